--- Hedged reads: what is not answered in the usual time is asked of another endpoint as well.
-- The first answer wins, the other statement is cancelled. That trims the slowest answers for the price of a few
-- more statements, of which there is a budget: were a whole shard slow, hedges would only make it slower.
-- Only statements are sent twice of which the pool has found out, by the parser and in the catalog, that they read
-- and call nothing volatile.
-- @module lunashard.router.hedge

local errors = require("lunashard.errors")
local histogram = require("lunashard.router.histogram")
local options = require("lunashard.options")
local task = require("lunashard.task")

local hedge = {}

local now = task.now

local AT_LEAST = 0.001 -- seconds
local SHARE = 0.1
local BURST = 10 -- hedges that may follow one another

-- What was usual is told by the reads of late: of this many seconds or that many reads, and those before them.
local PERIOD, PER_PERIOD = 10, 1000
local ENOUGH = 50 -- reads, to tell what is usual
local RECOUNT = 16 -- reads after which the percentile is looked up anew

local NAMES = { percentile = true, at_least = true, share = true }

local function is_between(value, low, high)
  return type(value) == "number" and value > low and value < high
end

--- What is wrong with the option `hedge`.
-- @param given a percentile such as 0.95, `{ percentile = 0.95, at_least = 0.005, share = 0.1 }`, or false
-- @treturn ?string nil when it is right
function hedge.problem(given)
  if type(given) == "number" then
    given = { percentile = given }
  elseif given == false then
    return nil
  elseif type(given) ~= "table" then
    return "expected a percentile such as 0.95, a table such as { percentile = 0.95, at_least = 0.005 } or false, got "
      .. options.describe(given)
  end
  for name in pairs(given) do
    if not NAMES[name] then
      return errors.unknown_option("hedge", name, NAMES)
    end
  end
  if not is_between(given.percentile, 0, 1) then
    return "expected a percentile above 0 and below 1, such as 0.95, got " .. options.describe(given.percentile)
  elseif given.at_least ~= nil and not is_between(given.at_least, 0, math.huge) then
    return "at_least: expected a number of seconds above 0, got " .. options.describe(given.at_least)
  elseif given.share ~= nil and not is_between(given.share, 0, 1) then
    return "share: expected a number above 0 and below 1, got " .. options.describe(given.share)
  end
end

-- ---- what is usual -----------------------------------------------------------

local Recent = {}
Recent.__index = Recent

local function new_recent()
  return setmetatable({ present = histogram.new(), before = histogram.new(), began = now(), counted = -math.huge,
    total = 0 }, Recent)
end

function Recent:add(seconds)
  local at = now()
  if self.present.count >= PER_PERIOD or at - self.began >= PERIOD then
    self.before, self.present, self.began = self.present, histogram.new(), at
  end
  self.present:add(seconds)
  self.total = self.total + 1
end

-- Seconds that this share of the reads does not exceed; nil while there were too few.
function Recent:percentile(share)
  if self.present.count + self.before.count < ENOUGH then
    return nil
  elseif self.share ~= share or self.total - self.counted >= RECOUNT then
    local fuller = self.present.count >= ENOUGH and self.present or self.before.count >= ENOUGH and self.before
    self.seconds = fuller and fuller:percentile(share)
      or math.max(self.present:percentile(share), self.before:percentile(share))
    self.share, self.counted = share, self.total
  end
  return self.seconds
end

--- What a router knows of its reads.
-- @treturn table
function hedge.new()
  return { shards = {}, tokens = BURST }
end

-- ---- one read ------------------------------------------------------------------

-- One of the two statements, in a task. `fn` returns nothing when it has nothing to ask.
local function start(changed, fn)
  local side = { ended = false }
  side.task = task.spawn(function()
    local ok, result, err = pcall(fn, side)
    side.ended = true
    side.result, side.err = ok and result or nil, not ok and result or err
    changed:notify()
  end):watch()
  return side
end

local function winner(first, second)
  return first.result and first or second and second.result and second or nil
end

local function can_answer(endpoint, first)
  return endpoint and endpoint ~= first and endpoint.health.status ~= "unhealthy"
end

-- Wait for an answer; after `patience` ask somebody else too.
local function race(router, member, endpoint, patience, run, opts, deadline)
  local changed, statistics, budget = task.event(), router.statistics, router.hedging
  local first, second = start(changed, function()
    return run(endpoint)
  end), nil
  local ok, err = pcall(function()
    changed:wait(now() + patience)
    if not first.ended and budget.tokens < 1 then
      statistics.hedges_refused = statistics.hedges_refused + 1
    elseif not first.ended then
      second = start(changed, function(side)
        local other = member:reader({ after = opts.after, max_replica_lag = opts.max_replica_lag, avoid = endpoint },
          deadline)
        if can_answer(other, endpoint) and budget.tokens >= 1 then
          budget.tokens, side.sent = budget.tokens - 1, true
          statistics.hedged_reads = statistics.hedged_reads + 1
          return run(other)
        end
      end)
    end
    while not winner(first, second) and not (first.ended and (not second or second.ended)) do
      changed:wait()
    end
  end)
  for _, side in ipairs({ first, second }) do
    if not side.ended then
      side.task:cancel()
    end
  end
  if not ok then -- the caller was cancelled
    error(err, 0)
  end
  local won = winner(first, second)
  if won and won == second then
    statistics.hedges_won = statistics.hedges_won + 1
  elseif not won and not errors.is(first.err) then
    error(first.err, 0)
  end
  return won and won.result, first.err
end

--- Run a read on a shard with replicas, hedged. Yields.
-- @tparam Router router
-- @tparam table member
-- @string sql
-- @tparam table opts those of `execute`, with `read_only`
-- @number deadline
-- @tparam number|table given the checked option `hedge`
-- @tparam func run called with the endpoint that is to answer: a result, or nil and an error
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function hedge.run(router, member, sql, opts, deadline, given, run)
  local state = router.hedging
  local recent = state.shards[member.shard_id]
  if not recent then
    recent = new_recent()
    state.shards[member.shard_id] = recent
  end
  local endpoint, err = member:reader(opts, deadline)
  if not endpoint then
    return nil, err
  end
  local percentile, at_least, share = given, AT_LEAST, SHARE
  if type(given) == "table" then
    percentile, at_least, share = given.percentile, given.at_least or at_least, given.share or share
  end
  state.tokens = math.min(state.tokens + share, BURST)
  local usual, started = recent:percentile(percentile), now()
  local patience = usual and math.max(usual, at_least)
  local result
  if patience and started + patience < deadline and endpoint.pool:is_read(sql) then
    result, err = race(router, member, endpoint, patience, run, opts, deadline)
  else
    result, err = run(endpoint)
  end
  if result then
    recent:add(now() - started)
  end
  return result, err
end

return hedge
