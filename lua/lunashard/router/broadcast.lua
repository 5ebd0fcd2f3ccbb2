--- The same SQL script on every shard: schema changes and maintenance.
-- Each shard runs it on a connection of its own by the simple protocol, where several
-- statements in one string are one transaction unless they say otherwise.
--
-- While rows move, what may write rows is refused. A query is guarded on all shards by one map, so that they see each row
-- once; what changes the schema, or maintains tables, sees no rows and needs no guard.
-- @module lunashard.router.broadcast

local attempt = require("lunashard.router.attempt")
local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local lease_of_map = require("lunashard.catalog.lease")
local raise = require("lunashard.misuse").raise
local options = require("lunashard.options")
local routing = require("lunashard.router.routing")
local scatter = require("lunashard.router.scatter")
local statement = require("lunashard.router.statement")
local task = require("lunashard.task")

local broadcast = { methods = {} }

local BROADCAST = {
  parallel = "any",
  canary = "string",
  stop_on_error = "boolean",
  on_failure = "string",
  shard_ids = "table",
  timeout = "seconds",
}

local function check(opts)
  local width = opts.parallel
  if width ~= nil and type(width) ~= "boolean" and not (type(width) == "number" and width >= 1 and width % 1 == 0) then
    raise("execute_on_all_shards: option parallel: expected true, false or a whole number from 1, got "
      .. options.describe(width), 3)
  elseif opts.on_failure ~= nil and opts.on_failure ~= "fail" and opts.on_failure ~= "partial" then
    raise('execute_on_all_shards: option on_failure: expected "fail" or "partial", got '
      .. options.describe(opts.on_failure), 3)
  end
end

-- Behind a guard, in the transaction that this holds for.
local function behind(lease, guard, sql, deadline)
  local how = { deadline = deadline }
  local result, err = lease:execute("BEGIN", nil, how)
  if result then
    result, err = lease:execute(guard.sql, guard.params, how)
  end
  if result then
    result, err = lease:execute(sql, nil, { simple = true, deadline = deadline })
  end
  local ok = result
  if result then
    ok, err = lease:execute("COMMIT", nil, how)
  end
  return ok and result, err
end

local function on_lease(endpoint, sql, deadline, under)
  local guard = type(under) == "table" and under or nil
  local generation = not guard and under or guarding.EXEMPT
  local lease, err = endpoint.pool:acquire(deadline, generation)
  if not lease then
    return nil, err
  end
  local ok, result
  if guard then
    ok, result, err = pcall(behind, lease, guard, sql, deadline)
  else
    ok, result, err = pcall(lease.execute, lease, sql, nil, { simple = true, deadline = deadline, generation = generation })
  end
  lease:release()
  if not ok then
    error(result, 0)
  end
  return result or nil, err
end

local function is_among(members, wanted)
  for _, member in ipairs(members) do
    if member == wanted then
      return true
    end
  end
  return false
end

-- The canary first and alone; false when it failed, and then nobody else is asked.
local function run(router, members, sql, opts, deadline, under)
  local function one(member)
    local result, err = attempt.run(router, member, false, router.retries, deadline, on_lease, sql, deadline,
      under(member))
    if err then
      err.elapsed = router:elapsed(opts, deadline)
    else
      member:mark_written(result)
    end
    return result, err
  end
  local width = opts.parallel
  if width == nil or width == true then
    width = router.max_parallel_shards or #members
  end
  local how = { limit = width or 1, stop_on_error = opts.stop_on_error }
  if not opts.canary then
    return scatter.run(members, how, one)
  end
  local first, rest = {}, {}
  for _, member in ipairs(members) do
    local list = member.shard_id == opts.canary and first or rest
    list[#list + 1] = member
  end
  local results, failed = scatter.run(first, how, one)
  if #failed > 0 then
    for _, member in ipairs(rest) do
      results[#results + 1] = { success = false, shard_id = member.shard_id, rows = {}, started = false }
    end
    return results, failed
  end
  local more
  more, failed = scatter.run(rest, how, one)
  for _, result in ipairs(more) do
    results[#results + 1] = result
  end
  return results, failed
end

-- What the scripts see of rows, they see by one map: as often as that takes.
local function run_guarded(router, members, sql, opts, deadline)
  local manager, results = router.manager, nil
  local ok, failed = guarding.through(manager, deadline, function(guarded)
    local generation = manager.generation
    local failures
    results, failures = run(router, members, sql, opts, deadline, guarding.under_all(manager, guarded, members))
    local stale = guarding.stale_among(failures)
    if stale then
      return nil, stale
    elseif not guarded and not lease_of_map.holds(manager, generation) then
      return guarding.changed()
    end
    return failures
  end)
  if not ok then
    return nil, failed
  end
  return results, ok
end

local function on_members(router, members, sql, opts)
  local manager, deadline = router.manager, router:deadline(opts)
  local kind = statement.classify(sql)
  local under = guarding.EXEMPT
  if statement.may_modify(sql) then
    under = manager.generation
    if manager.guarding then
      return guarding.refusal(manager, "rows cannot be written by a script (execute with all_shards = true can)")
    end
  elseif manager.catalog and kind == "read" then
    return run_guarded(router, members, sql, opts, deadline)
  end
  return run(router, members, sql, opts, deadline, function()
    return under
  end)
end

--- Run SQL on every shard, each on a connection of its own. Yields.
-- Several statements in one string are allowed. It is not atomic over the shards: the answer always
-- says what was done where. A query that meets rows that are being moved is asked again, of all.
-- @string sql
-- @tparam[opt] table opts `parallel` [true]: false or a number of shards at a time; `canary`: a shard_id that goes
--   first, and when it fails the others are left alone; `stop_on_error` [false]: start no more shards after a
--   failure;
--   `on_failure = "partial"`: return the result also when shards failed; `shard_ids`; `timeout` seconds for all
-- @treturn[1] table `success`, `complete`, `shard_results` (shard_id -> result, or `{ success = false, error,
--   started }`),
--   `failed` (list of `{ shard_id, error }`), `done`, `skipped` (lists of names), `error_message`, `duration`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` with `failed`, `shard_results`, `done`, `skipped`; `NO_SHARD`, `CLOSED`
function broadcast.methods:execute_on_all_shards(sql, opts)
  routing.check_arguments("execute_on_all_shards", sql)
  opts = options.check(opts, BROADCAST, "execute_on_all_shards")
  check(opts)
  local ok, err = self.manager:check_open()
  if not ok then
    return nil, err
  end
  local members
  members, err = scatter.members(self.manager, opts.shard_ids)
  if members and opts.canary then
    local canary
    canary, err = self.manager:member(opts.canary)
    if canary and not is_among(members, canary) then
      canary, err = nil, errors.new("INVALID", {
        message = ("option canary: %s is not among shard_ids"):format(opts.canary),
      })
    end
    members = canary and members
  end
  if not members then
    return nil, err
  end
  local started = task.now()
  local results, failed = on_members(self, members, sql, opts)
  if not results then
    return nil, failed
  end
  local report = scatter.report(results, failed)
  report.elapsed = task.now() - started
  local failure = #failed > 0 and scatter.failure(failed, #results, report) or nil
  if failure and opts.on_failure ~= "partial" then
    return nil, failure
  end
  return {
    success = failure == nil,
    complete = failure == nil,
    shard_results = report.shard_results,
    failed = failed,
    done = report.done,
    skipped = report.skipped,
    error_message = failure and tostring(failure),
    duration = report.elapsed,
  }
end

return broadcast
