--- One statement that concerns several shards by its keys: each shard gets the part that is its own.
-- A list of keys is cut down to those of the shard (`IN` lists, `= ANY` arrays), an INSERT to its rows. What is written
-- is one transaction a shard, and not atomic over the shards: the answer, or the error, says what was done where.
-- @module lunashard.router.splitting

local gather = require("lunashard.router.gather")
local scatter = require("lunashard.router.scatter")
local task = require("lunashard.task")

local splitting = {}

-- The parameters with another list in one of them.
local function with_list(params, n, indexes)
  local copy, list = {}, {}
  for name, value in pairs(params) do
    copy[name] = value
  end
  for i, index in ipairs(indexes) do
    list[i] = params[n][index]
  end
  copy[n] = list
  return copy
end

--- The part of a statement for one shard.
-- @tparam table found from `lunashard.router.target`
-- @int i the number of the shard's group
-- @string sql the whole statement
-- @tparam ?table params
-- @treturn string sql
-- @treturn ?table params
function splitting.part(found, i, sql, params)
  local plan, group = found.plan, found.groups and found.groups[i]
  if not group then
    return sql, params
  elseif plan.split then
    return plan.split(group.indexes, params)
  elseif plan.array_param and type(params[plan.array_param]) == "table" then
    return sql, with_list(params, plan.array_param, group.indexes)
  end
  return sql, params
end

--- How many keys or rows go to each shard.
-- @tparam table found
-- @treturn ?table shard_id -> count; nil when nothing is split
function splitting.counts(found)
  if not found.groups then
    return nil
  end
  local counts = {}
  for _, group in ipairs(found.groups) do
    counts[group.member.shard_id] = #group.indexes
  end
  return counts
end

-- The rows that RETURNING gave, in the order of the rows that were given; nil when a shard gave fewer or more.
local function in_given_order(groups, results)
  local rows = {}
  for i, group in ipairs(groups) do
    local given = results[i].rows
    if #given ~= #group.indexes then
      return nil
    end
    for n, index in ipairs(group.indexes) do
      rows[index] = given[n]
    end
  end
  return rows
end

local function failure(found, results, failed)
  local report = scatter.report(results, failed)
  report.split = splitting.counts(found)
  report.message = ("the statement was split by shard, and it is not atomic over them: %s"):format(report.message)
  return nil, scatter.failure(failed, #found.members, report)
end

--- Write on several shards. Yields.
-- @tparam Router router
-- @tparam table found with `members`
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `execute`
-- @number deadline
-- @treturn[1] table `rows` of RETURNING (an INSERT's in the order of the rows given, where each gave one), `row_count` and
--   `command` of all, `split` (shard_id -> how many rows or keys), `shard_results`, `success`, `complete`, `failed`, `duration`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` with `failed`, `done`, `split`
function splitting.write(router, found, sql, params, opts, deadline)
  local started = task.now()
  local results, failed = scatter.run(found.members, { limit = router.max_parallel_shards }, function(member, i)
    local part, own = splitting.part(found, i, sql, params)
    return router:run_on(member, part, own, opts, deadline)
  end)
  if #failed > 0 then
    local _, err = failure(found, results, failed)
    err.elapsed = task.now() - started
    return nil, err
  end
  local answer = gather.combine(results)
  if found.plan.kind == "rows" and answer.rows[1] ~= nil then
    answer.rows = in_given_order(found.groups, results) or answer.rows
  end
  answer.shard_results = scatter.report(results, failed).shard_results
  answer.split = splitting.counts(found)
  answer.success, answer.complete, answer.failed, answer.duration = true, true, failed, task.now() - started
  return answer
end

return splitting
