--- Unique ids made without asking any server: 64-bit, in order of time, carrying a shard.
-- After Instagram's scheme. `width = 64`: 41 bits of milliseconds since the epoch, 13 of the shard, 10 of
-- the worker and a sequence (1,024 ids a millisecond). `width = 53`, for JSON readers and languages whose
-- numbers are doubles: 40, 7 and 6 bits (128 shards, 64 ids a millisecond). Both last 34.8 years from their
-- epoch and are positive as bigint. Processes that make ids for one shard at the same time need a `worker`
-- each: its `worker_bits` come off the sequence.
--
-- A generator never repeats an id and never goes back, also when the clock does; a millisecond that is used
-- up borrows from the next. After a restart with a clock that may have gone back, `after` = the greatest id
-- stored.
-- @classmod lunashard.ids

local core = require("lunashard.core.placement")
local options = require("lunashard.options")

local OPTIONS = options.known({
  shard = "count",
  epoch = "number",
  width = "count",
  worker = "count",
  worker_bits = "count",
  after = "any",
})
local EPOCH = 1704067200 -- 2024-01-01 00:00:00 UTC

local ids = {}
local Generator = { __name = "lunashard.ids" }
Generator.__index = Generator

--- Make a generator.
-- Raises when a part does not fit its bits.
-- @tparam[opt] table opts `shard` (0), `worker` (0), `worker_bits` (0), `width` (64), `epoch` in Unix
--   seconds (2024-01-01), `after`: an id below all that will be made
-- @treturn lunashard.ids
function ids.new(opts)
  opts = options.check(opts, OPTIONS, "ids")
  local width = opts.width or 64
  local epoch = opts.epoch or EPOCH
  if width ~= 64 and width ~= 53 then
    error("ids: width must be 64 or 53", 2)
  elseif epoch ~= epoch or math.abs(epoch) > 2 ^ 40 then
    error("ids: epoch must be a Unix time in seconds", 2)
  end
  local handle, err = core.id_generator(width, math.floor(epoch * 1000), opts.shard or 0, opts.worker or 0,
    opts.worker_bits or 0)
  if not handle then
    error("ids: " .. err.message, 2)
  end
  if opts.after ~= nil then
    handle:advance(opts.after)
  end
  return setmetatable({ handle = handle }, Generator)
end

--- The next id.
-- @tparam[opt] number now Unix time in seconds; the system's by default
-- @treturn[1] number|int64 greater than all before it; a number up to 2^53
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when the time lies outside the epoch's 34.8 years
function Generator:next(now)
  return self.handle:next(now and math.floor(now * 1000 + 0.5))
end

--- Take an id apart. The generator must have the options of the one that made it.
-- @tparam number|int64 id
-- @treturn table `time` (Unix seconds), `shard`, `worker`, `sequence`
function Generator:decode(id)
  local ms, shard, worker, sequence = self.handle:decode(id)
  return { time = ms / 1000, shard = shard, worker = worker, sequence = sequence }
end

return ids
