--- One statement on several shards, and one answer made of theirs.
-- @module lunashard.router.scatter

local aggregate = require("lunashard.aggregate")
local checking = require("lunashard.router.checking")
local errors = require("lunashard.errors")
local raise = require("lunashard.misuse").raise
local gather = require("lunashard.router.gather")
local guarding = require("lunashard.router.guarding")
local merge = require("lunashard.router.merge")
local options = require("lunashard.options")
local parallel = require("lunashard.parallel")
local reads = require("lunashard.router.reads")
local reducing = require("lunashard.router.reducing")
local routing = require("lunashard.router.routing")
local statement = require("lunashard.router.statement")
local parse = require("lunashard.sql.statement").parse
local task = require("lunashard.task")

local scatter = { methods = {} }

local SCATTER = {
  aggregation_func = "any",
  on_failure = "string",
  min_shards = "count",
  max_parallel_shards = "count",
  read_only = "boolean",
  after = "any",
  max_replica_lag = "any",
  hedge = "any",
  timeout = "seconds",
  retries = "count",
  shard_ids = "table",
  all_shards = "boolean",
  decode_json = "boolean",
  max_result_bytes = "count",
  pipeline = "boolean",
}

--- The members that a call is for, in configured order.
-- @tparam Manager manager
-- @tparam ?{string,...} shard_ids nil for all
-- @treturn[1] {table,...}
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_SHARD`; `INVALID` for what is no list of at least one name
function scatter.members(manager, shard_ids)
  if shard_ids == nil then
    return manager.members
  elseif not options.is_list(shard_ids) or #shard_ids == 0 then
    return nil, errors.new("INVALID", { message = "shard_ids: expected a list of at least one shard_id, without gaps" })
  end
  local wanted, members = {}, {}
  for _, shard_id in ipairs(shard_ids) do
    local member, err = manager:member(shard_id)
    if not member then
      return nil, err
    end
    wanted[shard_id] = true
  end
  for _, member in ipairs(manager.members) do
    if wanted[member.shard_id] then
      members[#members + 1] = member
    end
  end
  return members
end

--- Do something on several shards at once. Yields.
-- @tparam {table,...} members
-- @tparam table how `limit`, `cancel_on_error`, `stop_on_error`
-- @tparam func fn called with each member; a result, or nil and an error
-- @treturn {table,...} a shard result for each member, in order: the result with `success = true`, or
--   `{ success = false, shard_id, rows = {}, error, error_message }`; those that were not run or were
--   cancelled for another's failure have neither result nor error
-- @treturn {table,...} failed: list of `{ shard_id, error }`
function scatter.run(members, how, fn)
  local outcome = parallel.each(members, fn, how)
  local results, failed = {}, {}
  for i, member in ipairs(members) do
    local result, err = outcome.results[i], outcome.errors[i]
    if result then
      results[i] = result
    else
      results[i] = {
        success = false,
        shard_id = member.shard_id,
        rows = {},
        error = err,
        error_message = err and tostring(err),
        started = outcome.started[i] or false,
      }
      failed[#failed + 1] = err and { shard_id = member.shard_id, error = err } or nil
    end
  end
  return results, failed
end

--- The error for failed shards.
-- @tparam {table,...} failed
-- @number total
-- @tparam[opt] table fields more fields of the error
-- @treturn lunashard.error `SHARDS_FAILED`
function scatter.failure(failed, total, fields)
  local context = fields or {}
  context.message = context.message or ("%d of %d shards failed"):format(#failed, total)
  context.failed, context.total = failed, total
  return errors.new("SHARDS_FAILED", context)
end

local function check_options(opts)
  opts = opts or {}
  local policy = opts.on_failure
  if policy ~= nil and policy ~= "partial" and policy ~= "fail" then
    raise(('scatter_gather: option on_failure: expected "fail" or "partial", got %s'):format(
      options.describe(policy)), 3)
  elseif opts.min_shards == 0 then
    raise("scatter_gather: option min_shards: expected 1 or more, got 0", 3)
  elseif opts.max_parallel_shards == 0 then
    raise("scatter_gather: option max_parallel_shards: expected 1 or more, got 0", 3)
  end
  local func = opts.aggregation_func
  if func ~= nil and type(func) ~= "function" and not gather.is_callable(func) and not reducing.is_reducer(func) then
    raise(("scatter_gather: option aggregation_func: expected a function or an aggregation, got %s"):format(
      options.describe(func)), 3)
  end
end

--- What was done where, by shard and in words.
-- @tparam {table,...} results from @{run}
-- @tparam {table,...} failed
-- @treturn table `shard_results`, `done` and `skipped` (lists of names), `message`
function scatter.report(results, failed)
  local report = { shard_results = {}, done = {}, skipped = {} }
  for _, result in ipairs(results) do
    report.shard_results[result.shard_id] = result
    if result.success then
      report.done[#report.done + 1] = result.shard_id
    elseif not result.error then
      report.skipped[#report.skipped + 1] = result.shard_id
    end
  end
  report.message = ("%d of %d shards failed; done on %s%s"):format(#failed, #results,
    #report.done > 0 and table.concat(report.done, ", ") or "none",
    #report.skipped > 0 and "; not run on " .. table.concat(report.skipped, ", ") or "")
  return report
end

--- Refuse a query around what it writes, `WITH gone AS (DELETE ... RETURNING ...) SELECT ... FROM gone`: the shards answer
-- that query, each for itself, and nobody knows what all of its rows would have given.
-- @string sql a statement that writes on several shards
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NOT_MERGEABLE`
function scatter.check_write(sql)
  local parsed = parse(sql)
  if not parsed or parsed.kind ~= "select" or not parsed.modifies then
    return true
  end
  return nil, errors.new("NOT_MERGEABLE", {
    message = "a query over what it writes cannot be put together from several shards: write with RETURNING alone, or once "
      .. "for each shard; scatter_gather with aggregation_func = lunashard.aggregate.concat() gives the rows of each shard",
  })
end

-- The shards' answers as one, unless too few answered.
local function combine(results, failed, opts, func, kind, merged)
  local answered = #results - #failed
  local least = opts.min_shards or (opts.on_failure == "partial" and 1) or #results
  if #failed > 0 and answered < math.max(least, 1) or answered == 0 then
    return nil, scatter.failure(failed, #results, kind == "write" and scatter.report(results, failed) or nil)
  end
  local combined, err
  if merged and not merged.plan.trivial then
    combined, err = merged:finish(results)
  else
    combined, err = gather.combine(results, func)
  end
  if not combined then
    return nil, err
  end
  combined.shard_results = scatter.report(results, failed).shard_results
  combined.complete = #failed == 0
  combined.failed = failed
  combined.success = true
  return combined
end

-- A member to ask when each of them would say the same. One that owns nothing may not have reference tables yet.
local function any_member(members, catalog)
  local best, quality = members[1], -1
  for _, member in ipairs(members) do
    local own = (not catalog or catalog:owned_by(member.shard_id) > 0) and 2 or 0
    local it_is = own + (member.primary.health.status ~= "unhealthy" and 1 or 0)
    if it_is > quality then
      best, quality = member, it_is
    end
  end
  return best
end

-- How the statement says that its answers are put together. Without an aggregation, reads only; of one shard they are
-- whole already.
local function plan_merge(router, members, sql, params, opts, deadline, kind)
  if opts.aggregation_func ~= nil or kind ~= "read" or #members == 1 then
    return nil, members
  end
  local merged, err = merge.prepare(router, members, sql, params, opts, deadline)
  if not merged then
    return nil, nil, errors.is(err) and err or scatter.failure(err, #members)
  elseif merged.plan.kind == "once" then
    -- What names no table tells of its server: the caller wants to hear each of them.
    return nil, merged.plan.reference and { any_member(members, router.manager.catalog) } or members
  end
  return merged, members
end

-- The parts as the statement's merge asks for them.
local function merged_part(part, router, members, opts, deadline)
  return function(i)
    local sql, params = part(i)
    local merged, err = merge.prepare(router, members, sql, params, opts, deadline)
    if not merged then
      return nil, errors.is(err) and err or scatter.failure(err, #members)
    end
    return merged.sql, merged.params
  end
end

--- Run a statement on all shards and combine their rows. Yields.
-- Any failed shard fails the call and cancels the others, unless `on_failure = "partial"` or `min_shards` say
-- otherwise. Writes are refused unless `all_shards = true`; they are not atomic over the shards.
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table opts `aggregation_func`: a function of the list of shard results (each `success`, `shard_id`,
--   `rows`, `error`, ...) that returns a row or a list of rows, or one of `lunashard.aggregate`; without it answers are
--   put together as the statement says (aggregates, GROUP BY, HAVING, DISTINCT, ORDER BY, LIMIT), as one database with
--   all rows would, or it is refused with `NOT_MERGEABLE`; `lunashard.aggregate.concat()` gives the rows of each shard
--   as they come. A statement that names no table is asked of every shard, one over reference tables of one.
--   `on_failure` [`"fail"`], `min_shards`, `max_parallel_shards`, `shard_ids`,
--   `read_only`, `after`, `max_replica_lag`, `hedge`, `timeout`, `retries`, `decode_json`, `max_result_bytes`, `pipeline`
-- @treturn[1] table `rows`, `row_count`, `shard_results` (by shard_id; their rows are empty when an aggregation of
--   `lunashard.aggregate` took them as they came), `complete`, `failed` (list of `{ shard_id, error }`), `duration`,
--   `success`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` (with `failed`), `PLUGIN_FAILED` (the function raised), `INVALID`,
--   `NOT_MERGEABLE`, `NO_SHARD`, `CLOSED`
function scatter.methods:scatter_gather(sql, params, opts)
  routing.check_arguments("scatter_gather", sql, params)
  opts = options.check(opts, SCATTER, "scatter_gather")
  check_options(opts)
  reads.check(opts, "scatter_gather")
  local ok, err = self.manager:check_open()
  if not ok then
    return nil, err
  end
  local kind
  kind, err = routing.check_statement(sql, opts.read_only)
  if not kind then
    return nil, err
  elseif kind == "write" and not opts.all_shards then
    return nil, errors.new("INVALID", {
      message = "a statement that writes would run on every shard: pass routing_key to execute, "
        .. "or all_shards = true when that is meant",
    })
  end
  if kind == "write" and self.checks then
    ok, err = checking.check_everywhere(self, sql, params)
    if not ok then
      return nil, err
    end
  end
  local deadline = self:deadline(opts)
  return guarding.through(self.manager, deadline, function(guarded)
    local members
    members, err = scatter.members(self.manager, opts.shard_ids)
    if not members then
      return nil, err
    elseif kind == "write" and opts.aggregation_func == nil and #members > 1 then
      ok, err = scatter.check_write(sql)
      if not ok then
        return nil, err
      end
    end
    if opts.min_shards and opts.min_shards > #members then
      return nil, errors.new("INVALID", {
        message = ("option min_shards: %d shards are asked, %d of them cannot answer"):format(#members, opts.min_shards),
      })
    end
    return scatter.gather(self, members, sql, params, opts, kind, {
      deadline = deadline,
      under = guarding.under_all(self.manager, guarded, members),
    })
  end)
end

-- Ask the members, each for its part; or, of a write whose rows may move meanwhile, see `everywhere`.
local function ask(router, members, sql, params, opts, kind, deadline, part, under, reducer)
  if kind == "write" and router.manager.catalog then
    return require("lunashard.router.everywhere").run(router, members, sql, params, opts, deadline, reducer)
  end
  local tolerant = opts.on_failure == "partial" or opts.min_shards ~= nil
  local results, failed = scatter.run(members, {
    limit = opts.max_parallel_shards or router.max_parallel_shards,
    -- A write that is under way is let finish, so that its outcome is known.
    cancel_on_error = not tolerant and kind == "read",
  }, function(member, i)
    local own, values = sql, params
    if part then
      own, values = part(i)
      if own == nil then
        return nil, values
      end
    end
    local guard, err = under(member, i)
    if not guard then
      return nil, err
    elseif reducer then
      return reducing.run(router, member, own, values, opts, deadline, reducer, guard)
    end
    return router:run_on(member, own, values, opts, deadline, guard)
  end)
  -- What the others answered goes with another map than what is to come.
  local stale = router.manager.catalog and guarding.stale_among(failed)
  if stale then
    return nil, stale
  end
  return results, failed
end

--- The part of `scatter_gather` after the checks. Yields.
-- @tparam Router router
-- @tparam {table,...} members
-- @string sql
-- @tparam ?table params
-- @tparam table opts
-- @string kind `read` or `write`
-- @tparam table how `deadline`; `under(member, i)`: what its part relies on, see `lunashard.router.guarding`; `part(i)`: sql
--   and params for the member of this number, when they differ
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function scatter.gather(router, members, sql, params, opts, kind, how)
  local func, started = aggregate.present(opts.aggregation_func), task.now()
  local deadline, part = how.deadline, how.part
  local asked, given = members, opts
  router.statistics.scatter_queries = router.statistics.scatter_queries + 1
  local merged, err
  merged, members, err = plan_merge(router, members, sql, params, opts, deadline, kind)
  if err then
    return nil, err
  elseif merged then
    sql, params, opts = merged.sql, merged.params, merged.opts
  end
  part = members == asked and part or nil
  if part and merged then
    part = merged_part(part, router, members, given, deadline)
  end
  if aggregate.is(func) and func.name == "concat" then
    func = nil
  end
  if type(func) == "table" and func.push_down and func.push_down.limit then
    sql = statement.with_limit(sql, func.push_down.limit)
  end
  local reducer = reducing.is_reducer(func) and func or nil
  local results, failed = ask(router, members, sql, params, opts, kind, deadline, part, how.under, reducer)
  if not results then
    return nil, failed
  end
  local combined
  combined, err = combine(results, failed, opts, func, kind, merged)
  local elapsed = task.now() - started
  if not combined then
    if err.code == "SHARDS_FAILED" then -- any other is the aggregation's own
      err.elapsed = elapsed
    end
    return nil, err
  end
  combined.duration = elapsed
  return combined
end

--- The error for a call that names one shard and all of them.
-- @treturn lunashard.error `INVALID`
function scatter.contradiction()
  return errors.new("INVALID", { message = "all_shards = true contradicts routing_key and shard_id" })
end

--- `execute` with `all_shards = true`.
-- @local
-- @string sql
-- @tparam ?table params
-- @tparam table opts
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function scatter.methods:execute_everywhere(sql, params, opts)
  if opts.routing_key ~= nil or opts.shard_id ~= nil then
    return nil, scatter.contradiction()
  end
  return self:scatter_gather(sql, params, {
    all_shards = true,
    read_only = opts.read_only,
    timeout = opts.timeout,
    retries = opts.retries,
    decode_json = opts.decode_json,
    max_result_bytes = opts.max_result_bytes,
    pipeline = opts.pipeline,
  })
end

return scatter
