--- One statement that concerns several shards by its keys: each shard gets the part that is its own.
-- A list of keys is cut down to those of the shard (`IN` lists, `= ANY` arrays), an INSERT to its rows. What is written
-- is one transaction a shard, and not atomic over the shards: the answer, or the error, says what was done where.
-- @module lunashard.router.splitting

local extraction = require("lunashard.extraction")
local gather = require("lunashard.router.gather")
local groups = require("lunashard.router.groups")
local guarding = require("lunashard.router.guarding")
local guards = require("lunashard.router.guards")
local scatter = require("lunashard.router.scatter")
local target = require("lunashard.router.target")
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
local function in_given_order(parts, results)
  local rows = {}
  for i, group in ipairs(parts) do
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

-- Where the keys or rows of these numbers are now.
local function find_anew(manager, found, indexes, params)
  local all, n = extraction.keys(found.plan, params)
  if not all then
    return nil, n
  end
  local keys = {}
  for at, index in ipairs(indexes) do
    keys[at] = all[index]
  end
  local shard_ids, err = target.route_many(manager, found.plan.table, keys)
  if not shard_ids then
    return nil, err
  end
  local anew = { plan = found.plan, members = {}, groups = groups.by_shard(manager, shard_ids) }
  for at, group in ipairs(anew.groups) do
    anew.members[at] = group.member
    for position, number in ipairs(group.indexes) do
      group.indexes[position] = indexes[number]
    end
  end
  return anew
end

local write_part

-- A part that was refused had no effect, and what it is about may be on other shards by now.
local function write_anew(router, found, i, sql, params, opts, deadline, refused)
  local manager, indexes = router.manager, found.groups[i].indexes
  return guarding.through(manager, deadline, function(guarded)
    local generation = manager.generation
    local anew, err = find_anew(manager, found, indexes, params)
    if not anew then
      return nil, err
    elseif #anew.members == 1 then
      return write_part(router, anew, 1, sql, params, opts, deadline, guarded, generation)
    end
    return splitting.write(router, anew, sql, params, opts, deadline, guarded, generation)
  end, refused)
end

function write_part(router, found, i, sql, params, opts, deadline, guarded, generation)
  local under, err = generation
  if guarded then
    under, err = guards.found(router.manager, found, found.members[i], params, i)
    if not under then
      return nil, err
    end
  end
  local part, own = splitting.part(found, i, sql, params)
  return router:run_on(found.members[i], part, own, opts, deadline, under)
end

local function write_parts(router, found, sql, params, opts, deadline, guarded, generation)
  return scatter.run(found.members, { limit = router.max_parallel_shards }, function(_, i)
    local result, err = write_part(router, found, i, sql, params, opts, deadline, guarded, generation)
    if not result and router.manager.catalog and guarding.is_stale(err) then
      return write_anew(router, found, i, sql, params, opts, deadline, err)
    end
    return result, err
  end)
end

--- Write on several shards. Yields.
-- @tparam Router router
-- @tparam table found with `members`
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `execute`
-- @number deadline
-- @tparam boolean guarded
-- @number generation of the map by which it was split
-- @treturn[1] table `rows` of RETURNING (an INSERT's in the order of the rows given, where each gave one), `row_count` and
--   `command` of all, `split` (shard_id -> how many rows or keys), `shard_results`, `success`, `complete`, `failed`, `duration`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` with `failed`, `done`, `split`
function splitting.write(router, found, sql, params, opts, deadline, guarded, generation)
  local started = task.now()
  local results, failed
  if router.manager.catalog and guards.is_whole(found, params) then
    results, failed = require("lunashard.router.everywhere").try(router, found.members, sql, params, opts, deadline)
    if not results then
      return nil, failed
    end
  else
    results, failed = write_parts(router, found, sql, params, opts, deadline, guarded, generation)
  end
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
