--- One shard as the manager holds it: a primary, its replicas, a pool and a health record for each.
-- What is public of a shard is `info`; passwords live in a table of this module
-- alone, so that printing any object of the library never shows them.
-- @module lunashard.manager.shard

local health = require("lunashard.manager.health")
local lag_limit = require("lunashard.manager.lag_limit")
local lsn = require("lunashard.lsn")
local monitor = require("lunashard.manager.monitor")
local reader = require("lunashard.manager.reader")
local replay = require("lunashard.manager.replay")

local shard = {}

-- endpoint -> options of its pool and of its probe, until they are needed; weak, to die with the endpoint.
local secrets = setmetatable({}, { __mode = "k" })

local POOL_FIELDS = {
  "host", "port", "database", "user", "password", "passfile", "sslmode", "sslrootcert", "sslcert",
  "sslkey", "sslpassword", "sslcrl", "sslcrldir", "sslsni", "ssl_min_protocol_version",
  "ssl_max_protocol_version", "channel_binding", "pipeline", "read_batches",
  "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
}
local PUBLIC_FIELDS = {
  "shard_id", "host", "port", "database", "user", "weight", "region", "tags", "metadata", "sslmode",
  "pool_size",
}

local function pool_options(given, shard_id, cfg)
  local options = {
    shard_id = shard_id,
    application_name = cfg.application_name or "lunashard",
    max_size = given.pool_size or cfg.connection_pool_size,
    min_size = math.min(cfg.connection_pool_min, given.pool_size or cfg.connection_pool_size),
    max_waiters = cfg.max_waiters,
    connection_timeout = cfg.connection_timeout,
    idle_timeout = cfg.idle_timeout,
    max_lifetime = cfg.max_lifetime,
    statement_cache = cfg.statement_cache,
    max_result_bytes = cfg.max_result_bytes,
    slow_statement = cfg.slow_statement,
    pipeline = cfg.pipeline,
    read_batches = cfg.read_batches,
  }
  for _, name in ipairs(POOL_FIELDS) do
    if given[name] ~= nil then
      options[name] = given[name]
    end
  end
  return options
end

-- Probes have a connection of their own: they never wait behind statements.
local function probe_options(options, cfg)
  local own = {}
  for name, value in pairs(options) do
    own[name] = value
  end
  own.max_size, own.min_size, own.max_waiters = 1, 0, 1
  own.connection_timeout, own.idle_timeout, own.max_lifetime = cfg.health_check_timeout, 0, 0
  return own
end

local function public(given)
  local info = {}
  for _, name in ipairs(PUBLIC_FIELDS) do
    info[name] = given[name]
  end
  return info
end

local function new_endpoint(role, given, shard_id, cfg)
  local endpoint = {
    name = given.host .. ":" .. given.port,
    host = given.host,
    port = given.port,
    info = public(given),
    role = role,
    configured_role = role,
    shard_id = shard_id,
    health = health.new(cfg.max_consecutive_failures),
  }
  local options = pool_options(given, shard_id, cfg)
  secrets[endpoint] = { pool = options, probe = probe_options(options, cfg) }
  return endpoint
end

local Member = {}
Member.__index = Member

--- Build a shard from checked options. Connects nowhere.
-- @tparam table given from `config.shard`
-- @tparam table cfg from `config.manager`
-- @treturn Member `shard_id`, `info`, `endpoints`; of these, `primary` (writes go there), `replicas` (usable as such)
-- and `fenced` (a set: those that get no traffic); `write_refusal`: why no write is sent now, or nil
function shard.new(given, cfg)
  local id = given.shard_id
  local member = {
    shard_id = id,
    info = public(given),
    primary = new_endpoint("primary", given, id, cfg),
    replicas = {},
    fenced = {},
    turn = 0,
    pinned = not cfg.enable_auto_failover, -- reads and writes stay on the configured primary
  }
  member.max_lag_seconds, member.max_lag_bytes = lag_limit.limits(cfg.max_replica_lag)
  member.written = lsn.lazily(function() -- the metatable of results of writes
    return replay.written(member, cfg.query_timeout)
  end)
  member.endpoints = { member.primary }
  for i, replica in ipairs(given.replicas or {}) do
    member.replicas[i] = new_endpoint("replica", replica, id, cfg)
    member.endpoints[i + 1] = member.replicas[i]
    member.info.replicas = member.info.replicas or {}
    member.info.replicas[i] = member.replicas[i].info
  end
  return setmetatable(member, Member)
end

--- The endpoint of a name.
-- @tparam ?string name `host:port`
-- @treturn ?table
function Member:endpoint(name)
  for _, endpoint in ipairs(self.endpoints) do
    if endpoint.name == name then
      return endpoint
    end
  end
end

--- Create the pools. They connect when they are used, or at once for a minimum size.
function Member:open()
  local new_pool = require("lunashard.pool").new
  for _, endpoint in ipairs(self.endpoints) do
    if not endpoint.pool then
      endpoint.pool = new_pool(secrets[endpoint].pool)
      endpoint.probe = new_pool(secrets[endpoint].probe)
      endpoint.health.pool = endpoint.pool
    end
  end
end

--- Close the pools; what waits in them completes with `CLOSED`. Nothing is probed any more.
function Member:close()
  monitor.stop(self)
  for _, endpoint in ipairs(self.endpoints) do
    if endpoint.pool then
      endpoint.pool:close()
      endpoint.probe:close()
    end
  end
end

--- Let the result of a write have its position in the log, where there are replicas to read it from.
-- @tparam table result
-- @treturn table result, with `lsn`
function Member:mark_written(result)
  if self.replicas[1] then
    setmetatable(result, self.written)
  end
  return result
end

--- The endpoint for a read. Yields with `after`.
-- A healthy replica within the allowed lag, that with the least to do; the primary when there is none.
-- @tparam[opt] table wishes `after`, `max_replica_lag` as `execute` takes them; `avoid`: an endpoint to do
--   without; `endpoint`: the one that has been chosen already
-- @tparam[opt] number deadline for `after`
-- @treturn[1] table endpoint
-- @treturn[2] nil
-- @treturn[2] lunashard.error the position to read after cannot be had, or `TIMEOUT`
function Member:reader(wishes, deadline)
  local seconds, bytes = self.max_lag_seconds, self.max_lag_bytes
  if self.pinned or not self.replicas[1] then
    return self.primary
  elseif type(wishes) ~= "table" then
    return reader.choose(self, seconds, bytes)
  elseif wishes.endpoint then
    return wishes.endpoint
  end
  if wishes.max_replica_lag ~= nil then
    seconds, bytes = lag_limit.limits(wishes.max_replica_lag)
  end
  if wishes.after ~= nil then
    local position, err = lsn.of(wishes.after, self.shard_id)
    if err then
      return nil, err
    elseif position == false then
      return self.primary
    elseif position then
      return reader.after(self, seconds, bytes, wishes.avoid, position, deadline)
    end
  end
  return reader.choose(self, seconds, bytes, wishes.avoid)
end

return shard
