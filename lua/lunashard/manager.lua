--- The manager: which shards there are, where keys live, how the shards do.
-- It owns the pools and the health records; the router asks it where to go.
-- @module lunashard.manager

local adoption = require("lunashard.strategy.adoption")
local admission = require("lunashard.manager.admission")
local binding = require("lunashard.manager.binding")
local catalog_lease = require("lunashard.catalog.lease")
local catalog_place = require("lunashard.catalog.place")
local config = require("lunashard.config")
local core_pool = require("lunashard.core.pool")
local errors = require("lunashard.errors")
local extractor = require("lunashard.extractor")
local health = require("lunashard.manager.health")
local loader = require("lunashard.loader")
local options_of = require("lunashard.options")
local monitor = require("lunashard.manager.monitor")
local policy = require("lunashard.policy")
local reload = require("lunashard.manager.reload")
local shard = require("lunashard.manager.shard")
local sorted = require("lunashard.sorted")
local status = require("lunashard.manager.status")
local topology = require("lunashard.manager.topology")
local warn = require("lunashard.warn")

local manager = {}

local WEAK = { __mode = "k" }

local Manager = {}
Manager.__index = Manager
Manager.__name = "lunashard.manager"

function Manager:__tostring()
  return ("lunashard.manager(%d shards, %s%s)"):format(#self.members, self.strategy.name,
    self.closed and ", closed" or "")
end

local function hint_at_metadata(hints)
  local names = sorted.keys(hints)
  for i, from in ipairs(names) do
    names[i] = ("metadata.%s (use %s)"):format(from, hints[from])
  end
  if #names > 0 then
    warn.emit("shard options are given in " .. table.concat(names, ", "))
  end
end

-- The strategy tied to the shards, with the plug-in folder loaded before. Yields when a plug-in is tried.
local function use_plugins(self, members)
  local cfg, message = self.options
  if cfg.plugins then
    self.plugins, message = loader.open(cfg.plugins, { trusted = cfg.trusted_plugins, time = cfg.plugin_time,
      memory = cfg.plugin_memory, failures = cfg.max_plugin_failures })
    if not self.plugins then
      return nil, message
    end
    self.plugins:attach(self)
  end
  local strategies
  local ok, problem = policy.adopt(cfg)
  if ok then
    ok, problem = extractor.check(cfg.extractor)
  end
  if ok then
    strategies, problem = loader.bind(self, cfg.strategy, members, self.tables)
  end
  if not strategies and self.plugins then
    self.plugins:detach(self)
  end
  return strategies, problem
end

--- Build a manager, or say why not.
-- For callers that report instead of raising; see @{new}.
-- @local
-- @tparam table given the options
-- @treturn[1] Manager
-- @treturn[2] nil
-- @treturn[2] string what is wrong, with its path
function manager.build(given)
  if type(given) ~= "table" then
    return nil, "manager: expected a table of options, got a " .. type(given)
  end
  given = binding.adopt_shards(given)
  local cfg, hints = config.manager(given)
  if not cfg then
    return nil, hints
  elseif not cfg.shards or #cfg.shards == 0 then
    return nil, "shards: missing; expected a list of at least one shard"
  end
  local self = setmetatable({
    options = cfg,
    name = cfg.name,
    tables = cfg.tables or {},
    initialized = false,
    closed = false,
    -- How statements go while rows may move, see `lunashard.router.guarding`: each behind a guard, or relying on this
    -- term and generation of the map.
    guarding = false,
    generation = 0,
    term = core_pool.term(),
    routers = setmetatable({}, WEAK), -- those that take their defaults from here
    retired = setmetatable({}, WEAK), -- endpoints that are used no more, while something still runs there
  }, Manager)
  local members = {}
  for i, options in ipairs(cfg.shards) do
    members[i] = shard.new(options, cfg)
  end
  local problem
  self.catalog_place, problem = catalog_place.of(cfg)
  if not self.catalog_place then
    return nil, problem
  end
  local strategies, message = use_plugins(self, members)
  -- These may hold passwords; what is public of the shards is in self.shards.
  cfg.shards, cfg.strategy, cfg.catalog = nil, nil, nil
  if not strategies then
    return nil, message
  end
  topology.install(self, members, strategies)
  hint_at_metadata(hints)
  return self
end

--- Create a manager. Connects nowhere before `initialize`.
-- Raises for an option that is unknown, missing or wrong, naming it by path.
-- @tparam table options see the cluster file: `shards`, `strategy`, `tables`,
--   `connection_pool_size` [20], `connection_timeout` [5 s], `max_waiters` [10000],
--   `query_timeout` [30 s], `retries` [2], `max_consecutive_failures` [3], `require_all` [false], ...;
--   `enable_auto_failover` [true], `promote` [false] (see `lunashard.manager.failover.promotion`),
--   `choose_primary(candidates, shard)` (false vetoes, an endpoint chooses), `on_health(event)`: functions or policies;
--   `plugins` (a folder), `trusted_plugins` (names of files in it, without .lua), `on_plugin(event)`;
--   `shards` may be left out when the strategy was given them
-- @treturn Manager with `strategy`, `shards` (without passwords), `shard_health`
function manager.new(options)
  local self, message = manager.build(options)
  if not self then
    error(message, 2)
  end
  return self
end

--- Is this value a manager?
-- @local
-- @param value anything
-- @treturn boolean
function manager.is(value)
  return getmetatable(value) == Manager
end

local function closed()
  return nil, errors.new("CLOSED", { message = "the manager was shut down" })
end

--- Open the pools and probe every endpoint once, all at the same time. Yields.
-- From then on they are probed every `health_check_interval` in the background. A shard that is down becomes
-- unhealthy, is warned of, and is in use again when a probe finds it; it is fatal only with `require_all = true`.
-- When text is a declared key type, each shard must use UTF8 and a deterministic collation for the key.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` (with `require_all`), `INVALID` (text keys in
--   a database that hashes them differently), `CLOSED`
function Manager:initialize()
  if self.closed then
    return closed()
  elseif self.initialized then
    return true
  end
  for _, member in ipairs(self.members) do
    member:open(self.term)
    monitor.start(self, member)
  end
  self.initialized = true
  local ok, err = admission.check(self, self.members)
  if ok and not self.closed and not self.is_unattached then
    ok, err = require("lunashard.catalog").attach(self)
    ok, self.looked_for_catalog = ok ~= nil, true
  end
  if self.closed then
    return closed()
  elseif not ok then
    self:shutdown()
    return nil, err
  end
  return true
end

--- Close every connection. May be called again; afterwards everything returns `CLOSED`. Yields where there is a catalog,
-- which is told, for half a second at the most.
-- @treturn boolean true
function Manager:shutdown()
  if not self.closed then
    self.closed = true
    if self.plugins then
      self.plugins:detach(self)
    end
    if self.catalog then
      require("lunashard.catalog.watch").stop(self.catalog)
      catalog_lease.stop(self.catalog)
    end
    for _, member in ipairs(self.members) do
      member:close()
    end
    catalog_place.close(self)
    for endpoint in pairs(self.retired) do
      shard.close(endpoint)
    end
  end
  return true
end

--- A shard that may be used now.
-- @local
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `CLOSED`, or `INVALID` before `initialize`
function Manager:check_open()
  if self.closed then
    return closed()
  elseif not self.initialized then
    return nil, errors.new("INVALID", { message = "the manager is not initialized: call manager:initialize() first" })
  end
  return true
end

--- The member of a name.
-- @local
-- @string shard_id
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_SHARD`, with the nearest name
function Manager:member(shard_id)
  local member = self.by_id[shard_id]
  if member then
    return member
  end
  if shard_id == adoption.UNKNOWN and self.catalog then
    return nil, self.catalog:unknown_owner()
  end
  local near = errors.nearest(shard_id, self.by_id)
  return nil, errors.new("NO_SHARD", {
    message = ("there is no shard %s%s"):format(tostring(shard_id),
      near and (", did you mean %q?"):format(near) or ""),
  })
end

--- The strategy for the keys of a table.
-- @local
-- @string[opt] table_name a name in `tables`
-- @param[opt] key settles the type where no table is named
-- @treturn[1] table bound strategy
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` for an undeclared table, or when tables declare several
--   key types and nothing says which is meant
function Manager:strategy_for(table_name, key)
  if table_name == nil and not self.strategies.mixed then
    return self.strategy
  end
  return binding.choose(self.strategies, self.tables, table_name, key)
end

local OF_KEY = { table = "string" }

-- The member that owns a key, and the bucket.
local function owner(self, key, table_name)
  if self.closed then
    return closed()
  end
  local strategy, err = self:strategy_for(table_name, key)
  if not strategy then
    return nil, err
  end
  local shard_id, bucket = strategy:route(key)
  if not shard_id then
    return nil, bucket
  end
  local member
  member, err = self:member(shard_id)
  return member, err or bucket
end

--- Which shard owns a key, and its bucket, whatever the shard's health. `host` and `port` are the present primary's.
-- Raises for unknown options, as `get_shard_for_read` does.
-- @param key routing key
-- @tparam[opt] table opts `table`: the table whose key it is
-- @treturn[1] table the shard: `shard_id`, `host`, `port`, `database`, `region`, `tags`, ...
-- @treturn[1] number|string bucket
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY`, `INVALID`, `NO_SHARD`, `CLOSED`
function Manager:get_shard_for_write(key, opts)
  opts = options_of.check(opts, OF_KEY, "get_shard_for_write")
  local member, bucket = owner(self, key, opts.table)
  if not member then
    return nil, bucket
  end
  return member.info, bucket
end

--- Which shard a read of a key goes to, and at which endpoint.
-- @param key routing key
-- @tparam[opt] table opts `table`: the table whose key it is
-- @treturn[1] table the shard, as from `get_shard_for_write`
-- @treturn[1] string `host:port` of a usable replica, or of the primary
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY`, `INVALID`, `NO_SHARD`, `CLOSED`
function Manager:get_shard_for_read(key, opts)
  opts = options_of.check(opts, OF_KEY, "get_shard_for_read")
  local member, err = owner(self, key, opts.table)
  if not member then
    return nil, err
  end
  return member.info, member:reader().name
end

--- Take note of how a statement fared at an endpoint.
-- @local
-- @tparam table endpoint
-- @tparam ?lunashard.error err nil for success
-- @tparam ?number seconds how long it took
function Manager:note(endpoint, err, seconds) -- luacheck: no self
  if err == nil or not health.is_to_blame(err) then
    -- What we refuse or give up ourselves says nothing about the server.
    if err == nil or err.code == "SQL" then
      health.success(endpoint.health, seconds)
    end
    return
  end
  health.failure(endpoint.health, err)
end

--- The state of one shard.
-- @string shard_id
-- @treturn[1] table `shard_id`, `region`, `weight`, `primary` (`host:port` that writes go to), `write_refusal` (why none
--   is sent now, or nil), `health` (of the primary), `pool`; `endpoints`: a list, each with the fields of its health
--   record (`status`, `circuit`, `in_recovery`, `timeline`, `lsn`, `lag_bytes`, `lag_seconds`, ... and the guide's),
--   `endpoint`, `role` (what it is now), `configured_role`, `fenced` (why it gets no traffic, or nil); `alerts`: a list
--   of what is wrong, each `{ kind, shard_id, endpoint, message }` with `kind` one of `writes health fenced lag`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_SHARD`
function Manager:get_shard_status(shard_id)
  local member, err = self:member(shard_id)
  if not member then
    return nil, err
  end
  return status.of_shard(self, member)
end

--- The state of the cluster.
-- @treturn table `healthy_shards` (whose primary is healthy and gets writes), `total_shards`, `error_rate` (0 to 1,
--   mean over the shards), `shards` (shard_id -> as from `get_shard_status`), `alerts` (those of all shards, and of kind
--   `plugin`), `plugins`: a list, each with `kind`, `name`, `path`, `generation`, `state` (`active`; `failed`: never
--   loaded; `tripped`: back to an earlier version; `failing`; `missing`: the file is gone), `trusted`, `failures`, `problem`
function Manager:get_cluster_status()
  return status.of_cluster(self)
end

--- Statistics of a shard's pool.
-- @string shard_id
-- @treturn[1] table `size`, `used`, `idle`, `waiting`, `max_size`, ... of the primary; `replicas` is a
--   list of the same
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_SHARD`, `CLOSED`, or `INVALID` before `initialize`
function Manager:get_pool_stats(shard_id)
  local member, err = self:member(shard_id)
  if not member then
    return nil, err
  end
  local ok
  ok, err = self:check_open()
  if not ok then
    return nil, err
  end
  local stats = member.primary.pool:stats()
  stats.replicas = {}
  for i, replica in ipairs(member.replicas) do
    stats.replicas[i] = replica.pool:stats()
  end
  return stats
end

--- Add a shard. Yields.
-- Refused while the new map would send keys elsewhere than where their rows are.
-- Raises for wrong shard options.
-- @tparam table options as in `shards`
-- @tparam[opt] table opts `strategy`: the strategy with the shard in it (new ranges, regions);
--   `allow_placement_change = true`: there is no data yet, or it is moved by other means
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `PLACEMENT_CHANGED` (with `movement`), `INVALID`, `CLOSED`
function Manager:add_shard(options, opts)
  opts = options_of.check(opts, topology.OPTIONS, "add_shard")
  if self.closed then
    return closed()
  end
  local hints = {}
  local given, message = config.shard(options, "shard", hints)
  if not given then
    error(message, 2)
  elseif self.by_id[given.shard_id] then
    error(("shard.shard_id: %q is already a shard"):format(given.shard_id), 2)
  end
  hint_at_metadata(hints)
  return topology.add(self, shard.new(given, self.options), opts)
end

--- Take other options, as those of a new manager, without disturbing what runs. Yields.
-- Shards and replicas may come and go, replicas have another address and the primary too, when the same server
-- answers there; users, passwords, limits, timeouts and health checks may change. New connections are made with the
-- new options, those that are not wanted any more are closed as they come free. Before anything is changed, all of it
-- is checked, and servers with a new address or login are asked whether they will do. Refused is what would make keys
-- belong to another shard (see `add_shard`), a change of a table's key, of `name`, `database` or `plugins`.
-- An option that is not given has its default again; without `strategy` the present one stays.
-- @tparam table options as for `new`
-- @tparam[opt] table opts `allow_placement_change`, `keys`: as for `add_shard`
-- @treturn[1] {table,...} what changed, each with `what`, `message`, and where known `shard_id` and `endpoint`
-- @treturn[2] nil, nothing was changed
-- @treturn[2] lunashard.error `INVALID`, `PLACEMENT_CHANGED` (with `movement`), `AUTH`, `SHARDS_FAILED`, `CLOSED`
function Manager:reload(options, opts)
  if type(options) ~= "table" then
    error("reload: expected a table of options, got a " .. type(options), 2)
  end
  opts = options_of.check(opts, reload.OPTIONS, "reload")
  if self.closed then
    return closed()
  elseif self.reloading then
    return nil, errors.new("INVALID", { message = "another reload is under way" })
  end
  self.reloading = true
  local ok, changed, err = pcall(reload.run, self, options, opts)
  self.reloading = false
  if not ok then
    error(changed, 0)
  end
  return changed, err
end

--- Remove a shard and close its connections.
-- Refused while keys live there, and for the last one.
-- @string shard_id
-- @tparam[opt] table opts as for `add_shard`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_SHARD`, `PLACEMENT_CHANGED` (with `movement`), `INVALID`, `CLOSED`
function Manager:remove_shard(shard_id, opts)
  opts = options_of.check(opts, topology.OPTIONS, "remove_shard")
  if self.closed then
    return closed()
  end
  local member, err = self:member(shard_id)
  if not member then
    return nil, err
  end
  return topology.remove(self, member, opts)
end

return manager
