--- The manager's and the router's options: which there are, and what they take (see `lunashard.config.template`).
-- A checked configuration is a new table: what the caller passed is never changed or kept.
-- @module lunashard.config

local hedge = require("lunashard.router.hedge")
local lag_limit = require("lunashard.manager.lag_limit")
local options = require("lunashard.options")
local template = require("lunashard.config.template")

local config = {}

local SSL_MODES = { "disable", "allow", "prefer", "require", "verify-ca", "verify-full" }
local KEY_TYPE = { type = "string", one_of = { "int8", "text", "uuid", "date" } }

local function number(default, more)
  local field = { type = "number", default = default }
  for name, value in pairs(more or {}) do
    field[name] = value
  end
  return field
end

local function text(more)
  local field = { type = "string", nonempty = true }
  for name, value in pairs(more or {}) do
    field[name] = value
  end
  return field
end

local function seconds(default)
  return number(default, { above = 0 })
end

local function count(default, least)
  return number(default, { integer = true, min = least })
end

local function flag(default)
  return { type = "boolean", default = default }
end

-- What a connection needs, for a primary and, inherited where absent, for its replicas.
local CONNECTION = {
  port = number(5432, { integer = true, min = 1, max = 65535 }),
  user = text(),
  password = text({ secret = true }),
  passfile = text({ path = true }),
  sslmode = text({ one_of = SSL_MODES }),
  sslrootcert = text({ path = true }),
  sslcert = text({ path = true }),
  sslkey = text({ path = true }),
  sslpassword = text({ secret = true }),
  sslcrl = text({ path = true }),
  sslcrldir = text({ path = true }),
  sslsni = text(),
  ssl_min_protocol_version = text(),
  ssl_max_protocol_version = text(),
  channel_binding = text({ one_of = { "disable", "prefer", "require" } }),
  keepalives = count(nil, 0),
  keepalives_idle = count(nil, 0),
  keepalives_interval = count(nil, 0),
  keepalives_count = count(nil, 0),
  tcp_user_timeout = count(nil, 0),
  pool_size = count(nil, 1),
  pipeline = flag(nil),
  read_batches = flag(nil),
  tags = { type = "table" },
  region = text(),
}

local function with_connection(fields)
  for name, field in pairs(CONNECTION) do
    fields[name] = fields[name] or field
  end
  return fields
end

local REPLICA = with_connection({
  host = text({ required = true }),
  port = { type = "number", integer = true, min = 1, max = 65535, default = 5432 },
  database = text(),
})

local SHARD = with_connection({
  shard_id = text({ required = true }),
  host = text({ required = true }),
  database = text({ required = true }),
  weight = number(1.0, { above = 0 }),
  replicas = { list_of = REPLICA, what = "replicas" },
  metadata = { type = "table" },
})

local CATALOG = with_connection({ host = text({ required = true }), database = text() })

local TABLE = {
  shard_key = { type = "string", or_type = "table" },
  type = { type = "string", or_type = "table" },
  reference = flag(false),
}

local JOB = {
  name = text(),
  run = text({ required = true, path = true }),
  every = number(nil, { above = 0, required = true }),
  timeout = seconds(nil),
}

-- Every option of the cluster file. Those without a default are absent when not given.
local MANAGER = {
  name = text(),
  environment = text(),
  shards = { list_of = SHARD, what = "shards" },
  strategy = { type = "any" },
  tables = { map_of = TABLE },
  extractor = { type = "any" },
  plugins = text({ path = true }),
  trusted_plugins = { list_of_strings = true },
  on_plugin = { type = "function" },
  max_plugin_failures = count(5, 1),
  plugin_time = seconds(0.05),
  plugin_memory = count(64 * 1024 * 1024, 1),
  catalog = { type = "table", or_type = "string", fields = CATALOG },
  jobs = { list_of = JOB, what = "jobs" },
  require_all = flag(false),
  allow_placement_change = flag(false), -- there are no rows yet: keys may change their shard
  connection_pool_size = count(20, 1),
  connection_pool_min = count(0, 0),
  connection_timeout = seconds(5),
  idle_timeout = seconds(300),
  max_lifetime = seconds(3600),
  max_waiters = count(10000, 0),
  health_check_interval = seconds(30),
  health_check_timeout = seconds(2),
  max_consecutive_failures = count(3, 1),
  enable_auto_failover = flag(true),
  promote = flag(false),
  choose_primary = { type = "any" }, -- a function, or a policy: see lunashard.policy
  on_health = { type = "any" },
  max_replica_lag = number(10, { min = 0, or_type = "table" }),
  hedge = { type = "number", or_type = "table" },
  query_timeout = seconds(30),
  retries = count(2, 0),
  retry_budget = number(0.2, { min = 0 }),
  max_parallel_shards = count(nil, 1),
  max_result_bytes = count(256 * 1024 * 1024, 1),
  pipeline = flag(true),
  read_batches = flag(true),
  read_only = flag(nil),
  slow_statement = seconds(0.05),
  slow_log = seconds(nil),
  slow_log_parameters = flag(false),
  application_name = text(),
  statement_cache = count(256, 0),
}

local ROUTER = {
  shard_manager = { type = "table", required = true },
  hedge = { type = "any" },
  extractor = { type = "any" },
  query_timeout = seconds(nil),
  retries = count(nil, 0),
  retry_budget = number(nil, { min = 0 }),
  max_parallel_shards = count(nil, 1),
  max_result_bytes = count(nil, 1),
}

-- ---- the guide's metadata ---------------------------------------------------

local ADAPTERS = { postgresql = true, postgres = true }

-- Move the guide's `metadata` into the options proper; what is given there wins.
local function adopt_metadata(shard, path, hints)
  local metadata = shard.metadata
  if not metadata then
    return true
  end
  local kept = {}
  for name, value in pairs(metadata) do
    kept[name] = value
  end
  local adapter = kept.adapter_type
  if adapter ~= nil and not ADAPTERS[adapter] then
    return nil, ("%s.metadata.adapter_type: only postgresql is supported, got %s"):format(path,
      options.describe(adapter))
  end
  kept.adapter_type = nil
  local function adopt(from, to, value)
    kept[from] = nil
    if value == nil then
      return true
    elseif shard[to] == nil then
      local field = SHARD[to]
      if not template.fits(field, value) then
        return nil, template.mismatch(path .. ".metadata." .. from, field, value)
      end
      shard[to] = value
    end
    hints[from] = to
    return true
  end
  local ssl = kept.ssl
  if type(ssl) == "boolean" then
    ssl = ssl and "require" or "disable"
  end
  for _, move in ipairs({ { "user", "user", kept.user }, { "password", "password", kept.password },
    { "pool_size", "pool_size", kept.pool_size }, { "ssl", "sslmode", ssl } }) do
    local ok, message = adopt(move[1], move[2], move[3])
    if not ok then
      return nil, message
    end
  end
  shard.metadata = next(kept) ~= nil and kept or nil
  return true
end

-- ---- entry points -----------------------------------------------------------

local INHERITED = { "database" }
for name in pairs(CONNECTION) do
  if name ~= "port" and name ~= "tags" then
    INHERITED[#INHERITED + 1] = name
  end
end

local function complete_replicas(shard, path)
  local seen = { [shard.host .. ":" .. shard.port] = "the primary" }
  for i, replica in ipairs(shard.replicas or {}) do
    local address = replica.host .. ":" .. replica.port
    if seen[address] then
      return nil, ("%s.replicas[%d]: %s is already %s"):format(path, i, address, seen[address])
    end
    seen[address] = ("replicas[%d]"):format(i)
    for _, name in ipairs(INHERITED) do
      if replica[name] == nil then
        replica[name] = shard[name]
      end
    end
  end
  return true
end

--- Check one shard's options, defaults filled in, the guide's metadata adopted.
-- @tparam table given
-- @string path such as `shards[2]`
-- @tparam table hints filled with metadata name -> option to use instead
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function config.shard(given, path, hints)
  local shard, message = template.check(SHARD, given, path)
  if not shard then
    return nil, message
  end
  for _, step in ipairs({ adopt_metadata, complete_replicas }) do
    local ok
    ok, message = step(shard, path, hints)
    if not ok then
      return nil, message
    end
  end
  return shard
end

local function check_tables(tables)
  for name, declared in pairs(tables or {}) do
    local path = "tables." .. name
    if declared.reference and declared.shard_key then
      return nil, path .. ": a reference table lives on every shard and has no shard_key"
    elseif not declared.reference and not declared.shard_key then
      return nil, path .. ": expected a shard_key, or reference = true"
    end
    local types = type(declared.type) == "table" and declared.type or { declared.type }
    for _, key_type in ipairs(types) do
      if not template.fits(KEY_TYPE, key_type) then
        return nil, template.mismatch(path .. ".type", KEY_TYPE, key_type)
      end
    end
  end
  return true
end

-- A job is named after its file, and has as long as until it is due again.
local function complete_jobs(list)
  local seen = {}
  for i, job in ipairs(list or {}) do
    job.name = job.name or job.run:match("[^/]*$")
    job.timeout = job.timeout or job.every
    if seen[job.name] then
      return nil, ("jobs[%d].name: %q is already the name of jobs[%d]"):format(i, job.name, seen[job.name])
    end
    seen[job.name] = i
  end
  return true
end

--- Check the manager's options, which are those of the cluster file.
-- @tparam table given
-- @treturn[1] table with defaults; `shards` may be absent
-- @treturn[1] table metadata names of the guide that were used -> the option to use instead
-- @treturn[2] nil
-- @treturn[2] string what is wrong, with its path
function config.manager(given)
  local cfg, message = template.check(MANAGER, given, "")
  if not cfg then
    return nil, message
  end
  if cfg.environment == "production" and not cfg.name then
    return nil, "name: missing; a production cluster needs one, which commands that write ask for"
  end
  local hints, seen = {}, {}
  for i in ipairs(given.shards or {}) do
    local path = ("shards[%d]"):format(i)
    cfg.shards[i], message = config.shard(given.shards[i], path, hints)
    if message then
      return nil, message
    end
    local id = cfg.shards[i].shard_id
    if seen[id] then
      return nil, ("%s.shard_id: %q is already the name of shards[%d]"):format(path, id, seen[id])
    end
    seen[id] = i
  end
  local ok
  ok, message = check_tables(cfg.tables)
  if ok then
    ok, message = complete_jobs(cfg.jobs)
  end
  if not ok then
    return nil, message
  end
  message = lag_limit.problem(cfg.max_replica_lag)
  local problem = cfg.hedge ~= nil and hedge.problem(cfg.hedge)
  if message then
    return nil, "max_replica_lag: " .. message
  elseif problem then
    return nil, "hedge: " .. problem
  elseif cfg.connection_pool_min > cfg.connection_pool_size then
    return nil, ("connection_pool_min: expected at most connection_pool_size (%d), got %d"):format(
      cfg.connection_pool_size, cfg.connection_pool_min)
  end
  return cfg, hints
end

--- Check the router's options.
-- @tparam table given
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function config.router(given)
  local cfg, message = template.check(ROUTER, given, "")
  local problem = cfg and cfg.hedge ~= nil and hedge.problem(cfg.hedge)
  if problem then
    return nil, "hedge: " .. problem
  end
  return cfg, message
end

local function is_absolute(path)
  return path:sub(1, 1) == "/"
end

-- A path under `~` is the user's home, as in a shell; libpq does not know it.
local function resolve(path, dir)
  local rest = path:match("^~(/.*)$")
  if rest and os.getenv("HOME") then
    return os.getenv("HOME") .. rest
  end
  return is_absolute(path) and path or dir .. "/" .. path
end

local function resolve_fields(fields, given, dir)
  if type(given) ~= "table" then
    return given
  end
  local copy = {}
  for name, value in pairs(given) do
    local field = fields[name]
    if field and field.path and type(value) == "string" and value ~= "" then
      copy[name] = resolve(value, dir)
    elseif field and field.fields then
      copy[name] = resolve_fields(field.fields, value, dir)
    elseif field and field.list_of and type(value) == "table" then
      copy[name] = {}
      for key, item in pairs(value) do
        copy[name][key] = resolve_fields(field.list_of, item, dir)
      end
    else
      copy[name] = value
    end
  end
  return copy
end

--- A copy of the options with file names taken relative to a directory.
-- @tparam table given unchecked manager options
-- @string dir
-- @treturn table
function config.resolve_paths(given, dir)
  return resolve_fields(MANAGER, given, dir)
end

return config
