--- One shard as the manager holds it: a primary, its replicas, a pool and a health record for each.
-- What is public of a shard is `info`; passwords live in a table of this module
-- alone, so that printing any object of the library never shows them.
-- @module lunashard.manager.shard

local health = require("lunashard.manager.health")
local lag_limit = require("lunashard.manager.lag_limit")
local lsn = require("lunashard.lsn")
local monitor = require("lunashard.manager.monitor")
local probe = require("lunashard.manager.probe")
local reader = require("lunashard.manager.reader")
local replay = require("lunashard.manager.replay")

local shard = {}

-- endpoint -> its options and those of its pool; weak, to die with the endpoint.
local secrets = setmetatable({}, { __mode = "k" })

local POOL_FIELDS = {
  "host", "port", "database", "user", "password", "passfile", "sslmode", "sslrootcert", "sslcert",
  "sslkey", "sslpassword", "sslcrl", "sslcrldir", "sslsni", "ssl_min_protocol_version",
  "ssl_max_protocol_version", "channel_binding", "pipeline", "read_batches",
  "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
}
local PLACE = { host = true, port = true }
local COMPARED = { "pool_size" }
for _, name in ipairs(POOL_FIELDS) do
  COMPARED[#COMPARED + 1] = not PLACE[name] and name or nil
end
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
    read_only = cfg.read_only,
  }
  for _, name in ipairs(POOL_FIELDS) do
    if given[name] ~= nil then
      options[name] = given[name]
    end
  end
  return options
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
  secrets[endpoint] = { given = given, pool = pool_options(given, shard_id, cfg) }
  return endpoint
end

--- An endpoint that belongs to no shard yet. Connects nowhere.
-- @function endpoint
-- @string role `primary` or `replica`
-- @tparam table given checked options of the shard or of a replica of it
-- @string shard_id
-- @tparam table cfg from `config.manager`
-- @treturn table
shard.endpoint = new_endpoint

--- What the public may know of a shard with these options.
-- @function describe
-- @tparam table given checked options
-- @treturn table
shard.describe = public

--- Create the pools of an endpoint, unless it has them.
-- @tparam table endpoint
-- @tparam[opt] userdata term the manager's
function shard.open(endpoint, term)
  local new_pool = require("lunashard.pool").new
  if not endpoint.pool then
    endpoint.pool = new_pool(secrets[endpoint].pool, term)
    endpoint.probe = probe.new(secrets[endpoint].pool) -- on a connection of its own: it never waits behind statements
    endpoint.health.pool = endpoint.pool
  end
end

--- A pool of one connection to an endpoint, beside its own. Connects when it is used.
-- @tparam table endpoint
-- @treturn Pool the caller's, to close
function shard.single(endpoint)
  local options = {}
  for name, value in pairs(secrets[endpoint].pool) do
    options[name] = value
  end
  options.min_size, options.max_size = 0, 1
  return require("lunashard.pool").new(options)
end

--- Close them; what waits there completes with `CLOSED`.
-- @tparam table endpoint
function shard.close(endpoint)
  if endpoint.pool then
    endpoint.pool:close()
    endpoint.probe:close()
  end
end

--- The options of an endpoint that others would change: of its connections, not its place.
-- @tparam table endpoint
-- @tparam table given checked options
-- @treturn {table,...} list of `{ name, from, to }`; secrets are among them
function shard.differences(endpoint, given)
  local before, list = secrets[endpoint].given, {}
  for _, name in ipairs(COMPARED) do
    if before[name] ~= given[name] then
      list[#list + 1] = { name = name, from = before[name], to = given[name] }
    end
  end
  return list
end

--- Give an endpoint other options: what runs goes on, new connections are made with them.
-- @tparam table endpoint
-- @tparam table given checked options of the same host and port
-- @tparam table cfg from `config.manager`
function shard.reconfigure(endpoint, given, cfg)
  local options = pool_options(given, endpoint.shard_id, cfg)
  secrets[endpoint] = { given = given, pool = options }
  for name, value in pairs(public(given)) do
    endpoint.info[name] = value
  end
  health.set_limit(endpoint.health, cfg.max_consecutive_failures)
  if endpoint.pool then
    endpoint.pool:reconfigure(options)
    endpoint.probe:reconfigure(options)
  end
end

--- An endpoint is not used any more: its connections are closed as they come free.
-- @tparam table endpoint
function shard.retire(endpoint)
  if endpoint.pool then
    endpoint.pool:drain()
    endpoint.probe:close()
  end
end

--- Ask an endpoint who it is, on a connection for that alone. Yields.
-- @tparam table endpoint
-- @number deadline
-- @treturn[1] table from `probe.run`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function shard.look(endpoint, deadline)
  local own = probe.new(secrets[endpoint].pool)
  local ok, found, err = pcall(probe.run, { probe = own }, deadline)
  own:close()
  if not ok then
    error(found, 0)
  end
  return found, err
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
  }
  member.written = lsn.lazily(function() -- the metatable of results of writes
    return replay.written(member, member.query_timeout)
  end)
  member.endpoints = { member.primary }
  for i, replica in ipairs(given.replicas or {}) do
    member.replicas[i] = new_endpoint("replica", replica, id, cfg)
    member.endpoints[i + 1] = member.replicas[i]
    member.info.replicas = member.info.replicas or {}
    member.info.replicas[i] = member.replicas[i].info
  end
  setmetatable(member, Member)
  member:adopt(cfg)
  return member
end

--- Take over what the manager's options say of shards.
-- @tparam table cfg from `config.manager`
function Member:adopt(cfg)
  self.pinned = not cfg.enable_auto_failover -- reads and writes stay on the configured primary
  self.max_lag_seconds, self.max_lag_bytes = lag_limit.limits(cfg.max_replica_lag)
  self.query_timeout = cfg.query_timeout
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
-- @tparam userdata term the manager's
function Member:open(term)
  for _, endpoint in ipairs(self.endpoints) do
    shard.open(endpoint, term)
  end
end

--- Close the pools; what waits in them completes with `CLOSED`. Nothing is probed any more.
function Member:close()
  monitor.stop(self)
  for _, endpoint in ipairs(self.endpoints) do
    shard.close(endpoint)
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
