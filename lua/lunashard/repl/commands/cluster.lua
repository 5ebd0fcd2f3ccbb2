--- What the cluster is and how it does: \shards \health \pools \plugins \jobs \reload.
-- @module lunashard.repl.commands.cluster

local errors = require("lunashard.errors")
local rebalance = require("lunashard.serve.rebalance")
local show = require("lunashard.repl.show")

local cluster = {}

local function no_cluster()
  return nil, errors.new("INVALID", { message = "there is no cluster: start with -c FILE, or try the sandbox" })
end

-- A row for each endpoint.
local function print_endpoints(session, columns, row_of)
  if not session.manager then
    return no_cluster()
  end
  local rows = {}
  for _, member in ipairs(session.manager.members) do
    for _, endpoint in ipairs(member.endpoints) do
      local row = row_of(member, endpoint)
      row.shard, row.endpoint = member.shard_id, endpoint.name
      rows[#rows + 1] = row
    end
  end
  show.result(session, { rows = rows, columns = columns })
  return true
end

--- \shards
-- @tparam Session session
-- @treturn boolean
function cluster.shards(session)
  return print_endpoints(session, { "shard", "endpoint", "role", "status", "database", "region", "weight" },
    function(member, endpoint)
      return { role = endpoint.role, status = endpoint.health.status, database = endpoint.info.database or member.info.database,
        region = member.info.region, weight = member.info.weight }
    end)
end

local function tell_alerts(session)
  local now = session.manager:get_cluster_status()
  for _, alert in ipairs(now.alerts) do
    session.out(("%s: %s\n"):format(alert.shard_id or alert.kind, alert.message))
  end
  session.err(("(%d of %d shards healthy)\n"):format(now.healthy_shards, now.total_shards))
end

--- \health
-- @tparam Session session
-- @treturn boolean
function cluster.health(session)
  local columns = { "shard", "endpoint", "role", "status", "circuit", "latency_ms", "errors", "lag_seconds", "last_error" }
  local ok, err = print_endpoints(session, columns, function(_, endpoint)
    local record = endpoint.health
    local latency = record.average_latency_ms
    return { role = endpoint.role, status = record.status, circuit = record.circuit,
      latency_ms = latency and ("%.1f"):format(latency), errors = ("%.0f %%"):format(100 * record.error_rate),
      lag_seconds = endpoint.role == "replica" and record.lag_seconds or nil,
      last_error = record.last_error and tostring(record.last_error) or nil }
  end)
  if ok then
    tell_alerts(session)
  end
  return ok, err
end

--- \pools
-- @tparam Session session
-- @treturn boolean
function cluster.pools(session)
  return print_endpoints(session, { "shard", "endpoint", "size", "used", "idle", "waiting", "max_size", "lanes", "queries",
    "errors" }, function(_, endpoint)
    return endpoint.pool and endpoint.pool:stats() or {}
  end)
end

--- \plugins
-- @tparam Session session
-- @treturn boolean
function cluster.plugins(session)
  if not session.manager then
    return no_cluster()
  elseif not session.manager.plugins then
    session.err("the cluster file names no folder of plug-ins\n")
    return true
  end
  show.print(session, session.manager.plugins:status())
  return true
end

--- \jobs
-- @tparam Session session
-- @treturn boolean
function cluster.jobs(session)
  if not session.cluster then
    return no_cluster()
  end
  local jobs = session.cluster.jobs and session.cluster.jobs:status() or {}
  local moving = session.manager.catalog and rebalance.refresh(session.manager)
  if #jobs > 0 then
    show.print(session, jobs)
  end
  if moving then
    show.print(session, moving)
  elseif #jobs == 0 then
    session.err("there are no jobs; those of the cluster file run in lunashard serve\n")
  end
  return true
end

local function tell_changes(session, changed)
  session.err(#changed == 0 and "cluster file read again, nothing changed\n" or "cluster file read again:\n")
  for _, change in ipairs(changed) do
    session.err("  " .. change.message .. "\n")
  end
end

--- \reload
-- @tparam Session session
-- @treturn boolean
function cluster.reload(session)
  if not session.cluster then
    return no_cluster()
  end
  local changed, err = session.cluster:reload()
  if not changed then
    return nil, err
  end
  tell_changes(session, changed)
  if session.manager.plugins then
    local ok, problem = require("lunashard").reload()
    if ok == nil then
      return nil, problem
    end
    session.err("plug-ins read again\n")
  end
  return true
end

return cluster
