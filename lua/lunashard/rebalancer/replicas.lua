--- Waiting until a step would survive a failover.
-- A step is on one server's disk when its transaction ends. Before the next one relies on it, every replica that may be
-- promoted has it on its disk, too: the replicas themselves are asked, for that takes no rights.
-- @module lunashard.rebalancer.replicas
-- @local

local errors = require("lunashard.errors")
local health = require("lunashard.manager.health")
local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

local replicas = {}

local PAUSE = 0.002 -- seconds between questions
local REACHED = [[
  SELECT coalesce(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) >= $1::pg_lsn, true) AS yes]]

local function wait_for(endpoint, position, deadline)
  while true do
    local found, err = endpoint.pool:execute(REACHED, { position }, { deadline = deadline, read_only = true })
    if not found and not health.is_usable(endpoint.health) then
      return true -- it has just gone: nobody promotes it now
    elseif found and found.rows[1].yes then
      return true
    elseif task.now() >= deadline then
      return nil, errors.new("TIMEOUT", { shard_id = endpoint.shard_id, endpoint = endpoint.name,
        message = "a replica has not received what was written: should it be promoted, it would be lost" })
    elseif not found then
      return nil, err
    end
    task.sleep(PAUSE)
  end
end

--- Wait until the replicas of a shard have all that its primary has written. Yields.
-- Those that are down are not waited for.
-- @tparam Session one
-- @tparam number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function replicas.wait(one, deadline)
  local list = {}
  for _, endpoint in ipairs(one.member.replicas) do
    list[#list + 1] = health.is_usable(endpoint.health) and endpoint or nil
  end
  if #list == 0 then
    return true
  end
  local found, err = one:execute("SELECT pg_current_wal_flush_lsn()::text AS position", nil, { deadline = deadline })
  if not found then
    return nil, err
  end
  local outcome = parallel.each(list, function(endpoint)
    return wait_for(endpoint, found.rows[1].position, deadline)
  end)
  for i in ipairs(list) do
    if outcome.errors[i] then
      return nil, outcome.errors[i]
    end
  end
  return true
end

--- The same of the catalog's shard. Nothing is to be waited for where the catalog is no shard's. Yields.
-- @tparam table context of the mover
-- @tparam number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function replicas.wait_for_catalog(context, deadline)
  local member = context.manager.by_id[context.manager.catalog_place.shard_id]
  if not member then
    return true
  end
  return replicas.wait({ member = member, execute = function(_, sql, params, opts)
    return context.catalog:execute(sql, params, opts.deadline)
  end }, deadline)
end

return replicas
