--- Running something on a shard, again where that is certain to be harmless.
-- Nothing that may have taken effect is ever repeated by itself. All tries share the call's one deadline and
-- `retries` [2]; between them is a pause of 50 ms, doubled each time up to 2 s, less up to a half at random.
--
--    error                                 tried again when
--    SHARD_DOWN, no connection or lost     always: the statement never left, or nothing of it was done;
--      before anything was done            53300 (too many connections) and 57P03 (starting up) among them
--    SHARD_DOWN, writes refused for now    always: nothing was sent
--    SHARD_DOWN, UNKNOWN_OUTCOME, lost     only with read_only = true; first on the primary, without a pause, when it
--      after it was sent (57P01 ...)       was a replica that failed
--    SQL 40001, 40P01                      always in autocommit; a transaction as a whole with its own `retries`
--    SQL 25006 of a write, on a standby    without a pause when another endpoint turns out to be the primary, else as
--                                          SHARD_DOWN; not when the server is the primary: then the session or the
--                                          transaction is read only
--    stale plan (26000, 0A000), 55P03 and  always, by the pool and not counted here: see `reruns` of the
--      57014 of a shared connection        pool's statistics
--    STALE_MAP, SQL LS001, LS003           not here: the statement may belong to another shard by now, see
--                                          `lunashard.router.guarding`
--    all else: TIMEOUT, CANCELED, AUTH,    never
--      POOL_EXHAUSTED, SQL, INVALID ...
--
-- Besides, all retries of a router together are bounded (`retry_budget`, see `lunashard.router.retry_budget`).
-- @module lunashard.router.attempt

local errors = require("lunashard.errors")
local failover = require("lunashard.manager.failover")
local guarding = require("lunashard.router.guarding")
local health = require("lunashard.manager.health")
local monitor = require("lunashard.manager.monitor")
local task = require("lunashard.task")

local attempt = {}

local now, note_success = task.now, health.success

local FIRST_DELAY, LONGEST_DELAY = 0.05, 2.0
local SUSPECT_EVERY = 1

local UNDONE = { ["40001"] = true, ["40P01"] = true }
-- The server turned the connection away before any statement.
local REFUSED = { ["53300"] = true, ["57P03"] = true }
local READ_ONLY = "25006"
local NO_WRITES = { SELECT = true, BEGIN = true, SHOW = true, EXPLAIN = true }
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

--- Take a retry out of the router's budget and count it.
-- @tparam Router router
-- @tparam lunashard.error err why it is tried again
-- @treturn[1] boolean true
-- @treturn[2] boolean false
-- @treturn[2] string that the budget is used up, for the error's message
function attempt.allow(router, err)
  local statistics = router.statistics
  if router.retry_budget:take(statistics:ended(), now()) then
    statistics:retried(err)
    return true
  end
  statistics.retries_refused = statistics.retries_refused + 1
  return false, ("not tried again, for the retry budget is used up (%g %% of recent requests)"):format(
    router.retry_budget.share * 100)
end

-- The error with what only the loop of tries knows.
local function explain(err, tries, elapsed, refusal)
  local context = { elapsed = elapsed, attempts = tries }
  if err.sqlstate == "42601" and err.message:find("multiple commands", 1, true) then
    context.hint = "run the statements one by one, or use execute_on_all_shards"
  end
  local explained = errors.wrap(err, context)
  explained.elapsed = elapsed
  if refusal then
    explained.message = explained.message .. "; " .. refusal
  elseif err.code == "TIMEOUT" or tries > 1 and err.code == "POOL_EXHAUSTED" then
    explained.message = ("%s; %s"):format(explained.message, tries == 1 and "it was the first attempt"
      or tries .. " attempts in all")
  end
  return explained
end

local function succeeded(router, member, endpoint, result, tries)
  result.shard_id = member.shard_id
  result.attempts = tries
  note_success(endpoint.health, result.duration)
  router.statistics:record(member.shard_id, result.duration, endpoint.name, result.command or "SELECT")
  return result
end

-- After a reload the primary may have another address.
local function is_same_server(router, member, endpoint)
  local before, after = endpoint.health, member.primary.health
  if not after.started then
    monitor.check_now(router.manager, member)
  end
  return before.started ~= nil and before.started == after.started
    and before.system_identifier == after.system_identifier
end

-- A server that is not the primary any more has acknowledged a write, too late: it may have gone a way of its own by
-- then, and what it holds alone is thrown away when it becomes a replica.
local function overtaken(router, member, endpoint, result, tries)
  if NO_WRITES[result.command] or is_same_server(router, member, endpoint) then
    return succeeded(router, member, endpoint, result, tries)
  end
  local err = errors.new("UNKNOWN_OUTCOME", {
    message = ("%s acknowledged the write when %s was the primary already; it may be lost"):format(endpoint.name,
      member.primary.name),
    shard_id = member.shard_id,
    endpoint = endpoint.name,
    attempts = tries,
    elapsed = result.duration,
  })
  router.statistics:record_failure(member.shard_id, err)
  return nil, err
end

--- Why a shard takes no writes now.
-- @tparam table member
-- @treturn ?lunashard.error nil when it takes them
function attempt.refusal(member)
  return member.write_refusal and errors.new("SHARD_DOWN", {
    message = (member.fenced[member.primary] and "refused: " or "writes are refused: ") .. member.write_refusal,
    shard_id = member.shard_id,
    endpoint = member.primary.name,
    elapsed = 0,
  }) or nil
end

-- `attempt.pause`; when the task is cancelled meanwhile, the error says where it was.
local function rest(member, endpoint, started, repeated, deadline)
  local ok, paused = pcall(attempt.pause, repeated, deadline)
  if not ok then
    error(errors.is(paused) and errors.wrap(paused, {
      shard_id = member.shard_id, endpoint = endpoint and endpoint.name, elapsed = now() - started,
    }) or paused, 0)
  end
  return paused
end

--- Was a write refused because its server is not the primary any more? Yields: the shard is probed.
-- 25006 certainly did nothing.
-- @tparam Manager manager
-- @tparam table member
-- @tparam lunashard.error err
-- @tparam ?number deadline
-- @treturn[1] boolean true: there is another primary, where it can be tried at once
-- @treturn[2] boolean false
-- @treturn[2] lunashard.error the same when it is none of that, `SHARD_DOWN` while there is no primary, `READ_ONLY` when
--   writes stay there for want of `enable_auto_failover`
function attempt.moved(manager, member, err, deadline)
  if err.sqlstate ~= READ_ONLY then
    return false, err
  end
  local endpoint = member:endpoint(err.endpoint) or member.primary
  if failover.moved(manager, member, endpoint, deadline) then
    return true, errors.wrap(err, {
      code = "READ_ONLY",
      message = ("%s is not the primary any more, %s is; nothing was done"):format(endpoint.name, member.primary.name),
    })
  elseif endpoint.health.in_recovery then
    return false, attempt.refusal(member) or errors.wrap(err, {
      code = "READ_ONLY",
      message = ("%s is a standby, and it is where writes go; nothing was done"):format(endpoint.name),
    })
  end
  return false, err
end

-- The primary was lost: it is probed at once, not only when its turn has come. Many calls find that out together.
local function suspect(manager, member, endpoint, err)
  if endpoint == member.primary and LOST[err.code] then
    failover.suspect(manager, member, SUSPECT_EVERY)
  end
end

-- What follows a first try that failed: a loop apart, so that calls that succeed have none. `done` says what becomes of
-- a result.
local function again(router, member, endpoint, read_only, retries, deadline, done, err, fn, a, b, c)
  local manager, statistics = router.manager, router.statistics
  local tries, repeated, fell_back, started = 1, 0, false, now() - (err.elapsed or 0)
  while true do
    if manager.catalog and guarding.is_stale(err) then
      return nil, err
    end
    if endpoint then
      manager:note(endpoint, err)
      suspect(manager, member, endpoint, err)
    end
    local refusal, ok
    if not read_only and tries <= #member.endpoints then
      ok, err = attempt.moved(manager, member, err, deadline)
    end
    if ok then
      statistics.fallbacks = statistics.fallbacks + 1
    elseif read_only and not fell_back and endpoint ~= member.primary and LOST[err.code] then
      fell_back, ok = true, true
      statistics.fallbacks = statistics.fallbacks + 1
    elseif repeated < retries and attempt.is_safe(err, read_only) and not manager.closed then
      repeated = repeated + 1
      ok, refusal = attempt.allow(router, err)
      ok = ok and rest(member, endpoint, started, repeated, deadline)
    end
    if not ok then
      err = explain(err, tries, now() - started, refusal)
      statistics:record_failure(member.shard_id, err, type(a) == "string" and a or nil)
      return nil, err
    end
    endpoint = member.primary
    tries = tries + 1
    local result
    if member.write_refusal and (not read_only or member.fenced[endpoint]) then
      endpoint, err = nil, attempt.refusal(member)
    else
      result, err = fn(endpoint, a, b, c)
    end
    if result and done == succeeded and not read_only and endpoint ~= member.primary then
      return overtaken(router, member, endpoint, result, tries)
    elseif result then
      return done(router, member, endpoint, result, tries)
    end
  end
end

--- Call `fn(endpoint, a, b, c)` on a shard until it succeeds or must not be tried again. Yields.
-- Reads go to a replica first, and to the primary when that fails for a reason of its own.
-- Health records and statistics are kept.
-- @tparam Router router
-- @tparam table member
-- @tparam ?boolean|table read_only a table has wishes for the endpoint, see `lunashard.router.reads`
-- @number retries
-- @tparam ?number deadline
-- @tparam func fn returns a result table, or nil and an error
-- @param a passed on
-- @param b passed on
-- @param c passed on
-- @treturn[1] table the result, with `shard_id` and `attempts`
-- @treturn[2] nil
-- @treturn[2] lunashard.error with `attempts`, and `elapsed` over all of them
function attempt.run(router, member, read_only, retries, deadline, fn, a, b, c)
  local endpoint, result, err = member.primary
  if read_only and member.replicas[1] then
    endpoint, err = member:reader(read_only, deadline)
    if not endpoint then
      router.statistics:record_failure(member.shard_id, err, a)
      return nil, err
    elseif member.write_refusal and member.fenced[endpoint] then
      return again(router, member, nil, read_only, retries, deadline, succeeded, attempt.refusal(member), fn, a, b, c)
    end
  elseif member.write_refusal and not read_only then
    return again(router, member, nil, read_only, retries, deadline, succeeded, attempt.refusal(member), fn, a, b, c)
  end
  result, err = fn(endpoint, a, b, c)
  if result and not read_only and endpoint ~= member.primary then
    return overtaken(router, member, endpoint, result, 1)
  elseif result then
    return succeeded(router, member, endpoint, result, 1)
  end
  return again(router, member, endpoint, read_only, retries, deadline, succeeded, err, fn, a, b, c)
end

local function acquire(endpoint, deadline, generation)
  return endpoint.pool:acquire(deadline, generation)
end

local function taken(_, _, endpoint, lease)
  return lease, endpoint
end

--- A connection to a shard, for what takes longer than a statement. Yields. Tried again as statements are.
-- @tparam Router router
-- @tparam table member
-- @tparam table how `wishes` for a reader, or `writes`: it needs a primary that takes them; `generation` that it relies on
-- @number deadline
-- @treturn[1] Lease
-- @treturn[1] table endpoint
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function attempt.lease(router, member, how, deadline)
  local endpoint = member.primary
  local reads = how.wishes or not how.writes
  if how.wishes then
    local none
    endpoint, none = member:reader(how.wishes, deadline)
    if not endpoint then
      return nil, none
    end
  elseif how.writes and member.write_refusal then
    return again(router, member, nil, false, router.retries, deadline, taken, attempt.refusal(member), acquire, deadline,
      how.generation)
  end
  local lease, err = acquire(endpoint, deadline, how.generation)
  if lease then
    return lease, endpoint
  end
  return again(router, member, endpoint, reads, router.retries, deadline, taken, err, acquire, deadline,
    how.generation)
end

return attempt
