--- A check-up's look at the servers: connections, versions, roles, clocks, settings and rights.
-- @module lunashard.checkup.servers

local task = require("lunashard.task")

local servers = {}

local OLDEST = 120000 -- what is tested is 15; partitioning by hash as we use it is there since 12
local SKEW = 1 -- seconds

local FACTS = [[
  SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS version_text,
    extract(epoch FROM clock_timestamp())::float8 AS clock, r.rolsuper AS is_superuser, current_user::text AS who,
    pg_has_role(current_user, 'pg_monitor', 'USAGE') AS may_monitor,
    has_function_privilege('pg_catalog.pg_promote(boolean, integer)', 'EXECUTE') AS may_promote,
    has_database_privilege(current_database(), 'CREATE') OR to_regnamespace('lunashard') IS NOT NULL AS may_create,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS connections,
    current_setting('server_encoding') AS encoding, current_setting('fsync') = 'on' AS fsync,
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted
  FROM pg_roles r WHERE r.rolname = current_user]]

local LOCAL = { ["127.0.0.1"] = true, ["::1"] = true, localhost = true }

local REMEDIES = {
  AUTH = "check user, password or passfile, and the server's pg_hba.conf",
  TIMEOUT = "find what the server or the network waits for, or raise connection_timeout",
}

-- Servers that do not answer, and what health checks know of the others.
local function check_endpoints(manager, found)
  local status = manager:get_cluster_status()
  for _, shard in ipairs(manager.shards) do
    local one = status.shards[shard.shard_id]
    for _, endpoint in ipairs(one.endpoints) do
      if not endpoint.is_healthy then
        local code = endpoint.last_error and endpoint.last_error:match("^(%u[%u_]+):")
        found:add("error", "servers", shard.shard_id, ("%s %s is %s: %s"):format(endpoint.role, endpoint.endpoint,
          endpoint.status, (endpoint.last_error or "no answer"):gsub("%s*\n%s*", " "):gsub("%s+%b()$", "")),
          REMEDIES[code] or "start the server, or correct host and port in the cluster file")
      elseif endpoint.configured_role == "replica" and endpoint.in_recovery == false and endpoint.role ~= "primary" then
        found:add("error", "servers", shard.shard_id, ("%s is configured as a replica and accepts writes of its own"):format(
          endpoint.endpoint), "make it a standby again (pg_rewind, or a new base backup), or take it out of the cluster file")
      end
    end
    for _, alert in ipairs(one.alerts) do
      if alert.kind ~= "health" and not (alert.kind == "writes" and not one.health.is_healthy) then
        found:add(alert.kind == "lag" and "warning" or "error", "servers", shard.shard_id, alert.message,
          alert.kind == "lag" and "see what holds replication up, or raise max_replica_lag"
            or "see Failover in the README: one primary on the highest timeline, the others its standbys")
      end
    end
  end
end

local function check_one(manager, shard, facts, found)
  local options, id = manager.options, shard.shard_id
  if facts.version < OLDEST then
    found:add("error", "servers", id, ("PostgreSQL %s is too old"):format(facts.version_text), "upgrade it: 15 is what is tested")
  end
  if facts.encoding ~= "UTF8" then
    found:add("warning", "servers", id, ("the database's encoding is %s"):format(facts.encoding),
      "keys of type text need a database with the encoding UTF8")
  end
  local wanted = shard.pool_size or options.connection_pool_size
  if wanted > facts.connections then
    found:add("warning", "servers", id, ("a pool may have %d connections, and the server takes %d"):format(wanted,
      facts.connections), "lower pool_size or connection_pool_size, or raise the server's max_connections")
  end
  if not facts.encrypted and not LOCAL[shard.host] and shard.host:sub(1, 1) ~= "/" then
    found:add("warning", "servers", id, ("connections to %s are not encrypted"):format(shard.host),
      "sslmode = \"verify-full\" in the cluster file, with TLS on the server")
  end
  if not facts.fsync and options.environment == "production" then
    found:add("error", "servers", id, "fsync is off: a crash of the machine loses rows", "fsync = on in postgresql.conf")
  end
  if facts.is_superuser then
    found:add("warning", "rights", id, ("the user %s is a superuser"):format(facts.who),
      "use a role that owns its tables and nothing else; GRANT pg_monitor to it")
  elseif not facts.may_monitor then
    found:add("warning", "rights", id, ("the user %s sees the timeline of a standby late"):format(facts.who),
      ("GRANT pg_monitor TO %s"):format(facts.who))
  end
  if options.promote and not facts.may_promote then
    found:add("error", "rights", id, ("promote = true, and the user %s may not promote a standby"):format(facts.who),
      ("GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO %s"):format(facts.who))
  end
  if not facts.may_create then
    found:add("warning", "rights", id, ("the user %s may not create the schema lunashard"):format(facts.who),
      "`schema apply` and rebalancing keep their state there: GRANT CREATE ON DATABASE to the user, or create the schema for it")
  end
end

-- Against the others, by the middle of the time that the question took.
local function check_clocks(known, found)
  local offsets = {}
  for _, one in ipairs(known) do
    offsets[#offsets + 1] = one.offset
  end
  table.sort(offsets)
  local middle = offsets[math.ceil(#offsets / 2)]
  for _, one in ipairs(known) do
    local skew = one.offset - middle
    if math.abs(skew) > SKEW then
      found:add("warning", "servers", one.shard_id, ("its clock is %.1f s %s those of the other servers"):format(math.abs(skew),
        skew > 0 and "ahead of" or "behind"), "run an NTP client on every server: rows of different shards are compared by now()")
    end
  end
end

local function check_versions(known, found)
  local majors, names = {}, {}
  for _, one in ipairs(known) do
    local major = math.floor(one.version / 10000)
    if not majors[major] then
      majors[major] = true
      names[#names + 1] = tostring(major)
    end
  end
  if #names > 1 then
    found:add("warning", "servers", nil, ("the shards run different major versions: %s"):format(table.concat(names, ", ")),
      "bring them to one version: statements are planned and merged as the first one does")
  end
end

--- Look at the servers. Yields.
-- @tparam Router router
-- @tparam Findings found
-- @treturn {string,...} the shards that answered
function servers.check(router, found)
  local manager, known, answered = router.manager, {}, {}
  check_endpoints(manager, found)
  for _, shard in ipairs(manager.shards) do
    local began = task.now()
    local result, err = router:execute(FACTS, nil, { shard_id = shard.shard_id })
    local facts = result and result.rows[1]
    if facts then
      known[#known + 1] = { shard_id = shard.shard_id, version = facts.version, offset = facts.clock - (began + task.now()) / 2 }
      answered[#answered + 1] = shard.shard_id
      check_one(manager, shard, facts, found)
    elseif manager.shard_health[shard.shard_id].is_healthy then
      found:add("error", "servers", shard.shard_id, tostring(err.message), "see the server's log")
    end
  end
  check_versions(known, found)
  check_clocks(known, found)
  return answered
end

return servers
