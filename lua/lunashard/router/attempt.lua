--- Running something on a shard, again where that is certain to be harmless.
-- Nothing that may have taken effect is ever repeated by itself: only what the pool says
-- was never sent, what the server says it undid (serialization failure, deadlock), and
-- what the caller declared to be a read.
-- @module lunashard.router.attempt

local errors = require("lunashard.errors")
local health = require("lunashard.manager.health")
local task = require("lunashard.task")

local attempt = {}

local now, note_success = task.now, health.success

local FIRST_DELAY, LONGEST_DELAY = 0.05, 2.0

local UNDONE = { ["40001"] = true, ["40P01"] = true }
-- The server turned the connection away before any statement.
local REFUSED = { ["53300"] = true, ["57P03"] = true }
local LOST = { SHARD_DOWN = true, UNKNOWN_OUTCOME = true }

--- Did the server undo the whole transaction for the sake of another one?
-- @tparam lunashard.error err
-- @treturn boolean
function attempt.is_undone(err)
  return err.code == "SQL" and UNDONE[err.sqlstate] == true
end

--- Is it certain that running it again does not run it twice?
-- @tparam lunashard.error err
-- @tparam ?boolean read_only the caller says it changes nothing
-- @treturn boolean
function attempt.is_safe(err, read_only)
  if err.code == "SQL" then
    return UNDONE[err.sqlstate] or REFUSED[err.sqlstate] or false
  elseif LOST[err.code] then
    return read_only or err.code == "SHARD_DOWN" and err.retryable == true
  end
  return false
end

--- Wait before the next try: longer each time, with jitter, never past the deadline.
-- @number n how many tries have failed
-- @tparam ?number deadline
-- @treturn boolean false when there is no time for another try; nothing was waited for
function attempt.pause(n, deadline)
  local longest = math.min(FIRST_DELAY * 2 ^ (n - 1), LONGEST_DELAY)
  local delay = longest * (0.5 + math.random() / 2)
  if deadline and now() + delay >= deadline then
    return false
  end
  task.sleep(delay)
  return true
end

local function explain(err, tries)
  local context = tries > 1 and { attempts = tries } or nil
  if err.sqlstate == "42601" and err.message:find("multiple commands", 1, true) then
    context = context or {}
    context.hint = "run the statements one by one, or use execute_on_all_shards"
  end
  return context and errors.wrap(err, context) or err
end

local function succeeded(router, member, endpoint, result, tries)
  result.shard_id = member.shard_id
  result.attempts = tries
  note_success(endpoint.health, result.duration)
  router.statistics:record(member.shard_id, result.duration)
  return result
end

-- What follows a first try that failed: a loop apart, so that calls that succeed have none.
local function again(router, member, endpoint, read_only, retries, deadline, err, fn, a, b, c)
  local manager, statistics = router.manager, router.statistics
  local tries, repeated = 1, 0
  while true do
    manager:note(endpoint, err)
    if endpoint ~= member.primary and LOST[err.code] then
      endpoint = member.primary
    elseif repeated < retries and attempt.is_safe(err, read_only) and not manager.closed
      and attempt.pause(repeated + 1, deadline) then
      repeated = repeated + 1
      statistics.retries = statistics.retries + 1
    else
      statistics:record(member.shard_id, nil, err)
      return nil, explain(err, tries)
    end
    tries = tries + 1
    local result
    result, err = fn(endpoint, a, b, c)
    if result then
      return succeeded(router, member, endpoint, result, tries)
    end
  end
end

--- Call `fn(endpoint, a, b, c)` on a shard until it succeeds or must not be tried again. Yields.
-- Reads go to a replica first, and to the primary when that fails for a reason of its own.
-- Health records and statistics are kept.
-- @tparam Router router
-- @tparam table member
-- @tparam ?boolean read_only
-- @number retries
-- @tparam ?number deadline
-- @tparam func fn returns a result table, or nil and an error
-- @param a passed on
-- @param b passed on
-- @param c passed on
-- @treturn[1] table the result, with `shard_id` and `attempts`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function attempt.run(router, member, read_only, retries, deadline, fn, a, b, c)
  local endpoint = member.primary
  if read_only and member.replicas[1] then
    endpoint = member:reader(now())
  end
  local result, err = fn(endpoint, a, b, c)
  if result then
    return succeeded(router, member, endpoint, result, 1)
  end
  return again(router, member, endpoint, read_only, retries, deadline, err, fn, a, b, c)
end

return attempt
