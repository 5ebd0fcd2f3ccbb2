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
local errors = require("lunashard.errors")

local OPTIONS = { "shard", "epoch", "width", "worker", "worker_bits", "after" }
local EPOCH = 1704067200 -- 2024-01-01 00:00:00 UTC

local ids = {}
local Generator = { __name = "lunashard.ids" }
Generator.__index = Generator

local function whole(options, name, default)
  local value = options[name] == nil and default or options[name]
  if type(value) ~= "number" or value % 1 ~= 0 or value < 0 then
    error(("ids: %s must be a whole number, 0 or more"):format(name), 3)
  end
  return value
end

--- Make a generator.
-- Raises when a part does not fit its bits.
-- @tparam[opt] table options `shard` (0), `worker` (0), `worker_bits` (0), `width` (64), `epoch` in Unix
--   seconds (2024-01-01), `after`: an id below all that will be made
-- @treturn lunashard.ids
function ids.new(options)
  errors.check_options("ids", options, OPTIONS)
  options = options or {}
  local width = options.width == nil and 64 or options.width
  local epoch = options.epoch == nil and EPOCH or options.epoch
  if width ~= 64 and width ~= 53 then
    error("ids: width must be 64 or 53", 2)
  elseif type(epoch) ~= "number" or epoch ~= epoch or math.abs(epoch) > 2 ^ 40 then
    error("ids: epoch must be a Unix time in seconds", 2)
  end
  local handle, err = core.id_generator(width, math.floor(epoch * 1000), whole(options, "shard", 0),
    whole(options, "worker", 0), whole(options, "worker_bits", 0))
  if not handle then
    error("ids: " .. err.message, 2)
  end
  if options.after ~= nil then
    handle:advance(options.after)
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
