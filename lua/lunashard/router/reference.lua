--- Reference tables: the same rows on every shard.
-- A shard that joins a cluster with a catalog gets them before its first bucket (`lunashard.rebalancer.references`). Until
-- the map says that it has them it is neither read nor written; from then on it is written, and read once it owns something.
-- Writes are guarded on all shards that they go to, so that none can pass by while the rows are copied from one of these.
-- @module lunashard.router.reference

local attempt = require("lunashard.router.attempt")
local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local guards = require("lunashard.router.guards")
local routing = require("lunashard.router.routing")
local scatter = require("lunashard.router.scatter")

local reference = {}

-- A shard that owns nothing yet may not have the rows of reference tables yet.
local function members_with_rows(manager)
  local catalog, list = manager.catalog, {}
  for _, member in ipairs(catalog and manager.members or {}) do
    list[#list + 1] = catalog:owned_by(member.shard_id) > 0 and member or nil
  end
  return list[1] and list or manager.members
end

-- Any shard has the answer: a healthy one in turn, then whichever still answers.
local function candidates(router)
  local members = members_with_rows(router.manager)
  router.turn = (router.turn or 0) % #members + 1
  local healthy, others = {}, {}
  for i = 0, #members - 1 do
    local member = members[(router.turn + i - 1) % #members + 1]
    local list = member.primary.health.status == "unhealthy" and others or healthy
    list[#list + 1] = member
  end
  for _, member in ipairs(others) do
    healthy[#healthy + 1] = member
  end
  return healthy
end

--- Any member, a healthy one if there is one; another one each time.
-- @tparam Router router
-- @treturn table
function reference.any(router)
  return candidates(router)[1]
end

--- Run a statement of which any shard has the answer. Yields.
-- @tparam Router router
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `execute`
-- @number deadline
-- @tparam[opt] boolean guarded a guard is asked for all the same
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function reference.run_anywhere(router, sql, params, opts, deadline, guarded)
  local result, err
  for _, member in ipairs(candidates(router)) do
    local under = guarded and guards.shard(router.manager, member) or guarding.EXEMPT
    result, err = router:run_on(member, sql, params, opts, deadline, under)
    if result or not attempt.is_safe(err, opts.read_only) or err.code == "SQL" then
      return result, err
    end
  end
  return nil, err
end

--- The shards that writes go to.
-- @tparam Manager manager
-- @treturn[1] {table,...} members
-- @treturn[2] nil
-- @treturn[2] lunashard.error `STALE_MAP`: a shard that has the rows cannot be written, or it is not known which ones do
function reference.writers(manager)
  local catalog = manager.catalog
  if not catalog then
    return manager.members
  end
  local list = {}
  for _, member in ipairs(manager.members) do
    list[#list + 1] = catalog.map.joined[member.shard_id] and member or nil
  end
  for shard_id, row in pairs(catalog.map.shards) do
    if row.joined and row.state ~= "removed" and not manager.by_id[shard_id] then
      return nil, errors.new("STALE_MAP", {
        message = ("reference tables are on %s, too, which the cluster file does not have: reload it"):format(shard_id),
      })
    end
  end
  local silent = catalog.map.silent and catalog.map.silent[1]
  if silent and catalog.map.joined[silent] == nil then
    return nil, errors.new("STALE_MAP", {
      message = ("whether %s has the reference tables cannot be asked now: neither it nor the catalog answers"):format(silent),
      shard_id = silent,
    })
  end
  return list
end

-- Rows that some shards have and others do not.
local function differs(results, failed)
  for _, one in ipairs(failed) do
    if one.error.code == "UNKNOWN_OUTCOME" then
      return true
    end
  end
  for _, result in ipairs(results) do
    if result.success then
      return true
    end
  end
  return false
end

local function answer_of(table_name, results, failed)
  local report = scatter.report(results, failed)
  if #failed == 0 then
    local answer = {}
    for name, value in pairs(results[1]) do
      answer[name] = value
    end
    answer.shard_results = report.shard_results
    return answer
  end
  report.message = differs(results, failed) and ("the reference table %s now differs between shards: %s"):format(table_name,
    report.message) or report.message
  return nil, scatter.failure(failed, #results, report)
end

local function write(router, table_name, sql, params, opts, deadline)
  local manager = router.manager
  if not manager.catalog then
    return answer_of(table_name, scatter.run(manager.members, {}, function(member)
      return router:run_on(member, sql, params, opts, deadline, guarding.EXEMPT)
    end))
  end
  return guarding.through(manager, deadline, function()
    local members, err = reference.writers(manager)
    if not members then
      return nil, err
    end
    local results, failed = require("lunashard.router.everywhere").try(router, members, sql, params, opts, deadline)
    if not results then
      return nil, failed
    end
    return answer_of(table_name, results, failed)
  end)
end

--- `execute` on a reference table. Yields.
-- @tparam Router router
-- @string name of the table
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `execute`
-- @string kind `read` or `write`
-- @number deadline
-- @treturn[1] table result; of a write, that of the first shard with `shard_results` beside it
-- @treturn[2] nil
-- @treturn[2] lunashard.error a write that failed somewhere is `SHARDS_FAILED`, naming where it was done
function reference.run(router, name, sql, params, opts, kind, deadline)
  if opts.shard_id then
    if kind == "write" then
      return nil, routing.reference_refusal(name)
    end
    local member, err = router.manager:member(opts.shard_id)
    if not member then
      return nil, err
    end
    return router:run_on(member, sql, params, opts, deadline, guarding.EXEMPT)
  elseif kind == "read" then
    return reference.run_anywhere(router, sql, params, opts, deadline)
  end
  return write(router, name, sql, params, opts, deadline)
end

return reference
