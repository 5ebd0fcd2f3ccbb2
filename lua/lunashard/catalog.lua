--- The catalog as a router sees it: a cache of the map, looked after in the background.
-- `manager.catalog` is there once the cluster has a catalog (`lunashard cluster init`); without one the map is what the
-- strategies say, for ever. Whoever a shard refuses (`LS001`) calls `refresh` and tries again.
--
-- While the catalog cannot be reached the map is put together from the shards, each of which knows what it owns, and
-- `guards` is true: nothing is believed without asking.
-- @classmod lunashard.catalog
-- @local

local admit = require("lunashard.catalog.admit")
local applying = require("lunashard.catalog.applying")
local binding = require("lunashard.manager.binding")
local adoption = require("lunashard.strategy.adoption")
local errors = require("lunashard.errors")
local lease = require("lunashard.catalog.lease")
local events = require("lunashard.events")
local map = require("lunashard.catalog.map")
local place = require("lunashard.catalog.place")
local schema = require("lunashard.catalog.schema")
local standbys = require("lunashard.catalog.standbys")
local task = require("lunashard.task")
local topology = require("lunashard.manager.topology")
local watch = require("lunashard.catalog.watch")

local catalog = {}

local Catalog = {}
Catalog.__index = Catalog
Catalog.__name = "lunashard.catalog"

function Catalog:__tostring()
  return ("lunashard.catalog(map %d%s)"):format(self.version, self.guards and ", guarded" or "")
end

-- A router at work may lack shards, of which it knows nothing then.
local AT_WORK = { shards = true }

-- Of a catalog that cannot be asked, as opposed to one that says no.
local UNREACHABLE = { SHARD_DOWN = true, TIMEOUT = true, POOL_EXHAUSTED = true, AUTH = true, UNKNOWN_OUTCOME = true,
  READ_ONLY = true }

local function is_unreachable(err)
  return UNREACHABLE[err.code] or err.code == "SQL" and (err.sqlstate == "42501" or err.retryable)
end

-- ---- the map in use -----------------------------------------------------------------------

-- Who has routed by a map asks whether it is still `self.map`.
local function is_news(self, found, versions)
  local known = self.map
  if not known or found.silent or known.silent or found.version ~= known.version or found.guards ~= known.guards
    or found.guard_epoch ~= known.guard_epoch then
    return true
  end
  for shard_id, version in pairs(versions or {}) do
    if self.shard_versions[shard_id] ~= version then
      return true
    end
  end
  return false
end

local function install(self, found, groups, versions)
  if is_news(self, found, versions) then
    self.map, self.owned = found, admit.count_owned(found)
  end
  self.groups = groups
  self.id, self.name, self.version = found.id, found.name, found.version
  self.guard_epoch, self.guards = found.guard_epoch, found.guards
  self.shard_versions = versions or {}
  standbys.note(self, found)
  lease.refreshed(self)
  self.changed:notify()
end

--- May strategies take the place of those in use? Does not yield.
-- @tparam table strategies from `binding.bind`, with what `recorded` says
-- @tparam {table,...} members each with `info`
-- @tparam table tables as declared
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function Catalog:check(strategies, members, tables)
  local ok, err = admit.check(self.map, strategies, tables, members)
  if ok then
    ok, err = applying.run(self.map, strategies, members)
  end
  return ok and true, err
end

--- Let strategies that were checked place by the map. Does not yield.
-- @tparam table strategies
-- @tparam {table,...} members
function Catalog:serve(strategies, members)
  self.groups = assert(applying.run(self.map, strategies, members, true))
end

--- The shards over which open groups are placed for ever, for `binding.bind`.
-- @treturn table group -> list of shards
function Catalog:recorded()
  return admit.recorded(self.map)
end

--- How many buckets a shard owns.
-- @string shard_id
-- @treturn number
function Catalog:owned_by(shard_id)
  return self.owned[shard_id] or 0
end

-- ---- refreshing ---------------------------------------------------------------------------

-- Versions of shards are asked for before the map is read: see `map.shard_versions`.
local function read(manager, known, guarded, deadline)
  local versions
  if guarded then
    versions = map.shard_versions(manager, deadline)
  end
  local found, err = map.read(place.pool(manager), known, deadline)
  if found and found.guards and not guarded then
    return read(manager, known, true, deadline)
  end
  return found, err, versions
end

-- The state of being cut off from the catalog, told when it changes.
local function note_reach(self, manager, err)
  local message
  if err and not self.unreachable then
    message = ("the catalog (%s) cannot be read: %s%s; the map is taken from the shards, and every statement is checked there")
      :format(place.describe(manager), err.message, err.sqlstate == "42501"
        and " (`lunashard cluster init --grant ROLE` gives a router's role what it needs)" or "")
  elseif not err and self.unreachable then
    message = ("the catalog (%s) can be read again"):format(place.describe(manager))
  end
  self.unreachable = err
  if message and not manager.closed then
    events.emit({ kind = "catalog", message = message }, manager)
  end
end

local function note_problem(self, manager, err)
  if err and tostring(err) ~= self.told then
    events.emit({ kind = "catalog", message = err.message }, manager)
  end
  self.told = err and tostring(err)
  self.problem = err
end

local function refreshed(self, manager, deadline)
  local found, err, versions = read(manager, self.map, self.guards or self.wants_versions, deadline)
  if found == false then
    return nil, errors.new("INVALID", {
      message = ("there is no catalog in %s any more"):format(place.describe(manager)),
    })
  elseif not found and is_unreachable(err) then
    local why = err
    found, err, versions = map.from_shards(manager, self.map, deadline)
    if found then
      note_reach(self, manager, why)
    end
  elseif found then
    note_reach(self, manager, nil)
  end
  if found and found.id ~= self.id then
    found, err = nil, errors.new("INVALID", {
      message = ("the catalog in %s is that of another cluster now: start anew"):format(place.describe(manager)),
    })
  end
  if not found then
    return nil, err
  end
  local groups
  local ok, problem = admit.check(found, manager.strategies, manager.tables, manager.members, AT_WORK)
  if ok then
    groups, problem = applying.run(found, manager.strategies, manager.members, true, not self.problem and self.groups)
  end
  if groups then
    install(self, found, groups, versions)
    problem = admit.missing(self.owned, manager.by_id)
  else -- what was right until now may send rows anywhere
    adoption.refuse(manager.strategies.by_type, binding.described(manager.members))
  end
  note_problem(self, manager, problem)
  return groups and true or nil, problem
end

local function fly(self, manager, deadline)
  local flight = { landed = task.event() }
  self.flight = flight
  task.daemon(function()
    local ok, value, err = pcall(refreshed, self, manager, deadline)
    if not ok then
      value, err = nil, errors.is(value) and value or errors.new("INVALID", { message = tostring(value) })
    end
    flight.over, flight.value, flight.err = true, value, err
    self.flight = nil
    flight.landed:notify()
  end)
  return flight
end

local function wait(flight, deadline)
  while not flight.over do
    if task.now() >= deadline then
      return nil, errors.new("TIMEOUT", { message = "the shard map could not be read in time" })
    end
    flight.landed:wait(deadline)
  end
  return flight.value, flight.err
end

--- Bring the map up to date. Yields.
-- What is read was read after the call began. Calls at the same time share one reading.
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Catalog:refresh(deadline)
  local manager = self.owner.manager
  if not manager or manager.closed then
    return nil, errors.new("CLOSED", { message = "the manager was shut down" })
  end
  local own = task.now() + manager.options.connection_timeout
  deadline = math.min(deadline or own, own)
  local flight = self.flight
  if flight then -- it may have read before what the caller has seen happened
    wait(flight, deadline)
    if self.flight == flight then
      return nil, errors.new("TIMEOUT", { message = "the shard map could not be read in time" })
    end
  end
  flight = self.flight or fly(self, manager, own)
  return wait(flight, deadline)
end

--- Have the map brought up to date in the background, unless it is being read already. Does not yield.
function Catalog:refresh_soon()
  local manager = self.owner.manager
  if manager and not manager.closed and not self.flight then
    fly(self, manager, task.now() + manager.options.connection_timeout)
  end
end

-- ---- questions ------------------------------------------------------------------------------

--- The version of a bucket, for its guard.
-- @string group
-- @tparam number|string bucket
-- @treturn number
function Catalog:bucket_version(group, bucket)
  local versions = self.groups[group].versions
  return versions[bucket] or versions[type(bucket) == "number" and ("%.0f"):format(bucket) or bucket] or 1
end

--- The version of a shard, for its guard.
-- @string shard_id
-- @treturn ?number nil when the shard could not be asked since guards are on
function Catalog:shard_version(shard_id)
  return self.shard_versions[shard_id]
end

--- Why it is not known whose a bucket is.
-- @treturn lunashard.error `STALE_MAP`
function Catalog:unknown_owner()
  return errors.new("STALE_MAP", {
    message = self.problem and self.problem.message
      or "whose bucket this is, is not known while the catalog and some shards cannot be reached",
    cause = self.unreachable,
  })
end

--- Run a statement on the catalog's database. Yields.
-- @string sql
-- @tparam ?table params
-- @tparam ?number deadline
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Catalog:execute(sql, params, deadline)
  local manager = self.owner.manager
  return place.pool(manager):execute(sql, params,
    { deadline = deadline or task.now() + manager.options.query_timeout, pipeline = false })
end

--- A connection to the catalog's database of one's own. Yields.
-- @tparam ?number deadline
-- @treturn[1] Lease
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Catalog:lease(deadline)
  local manager = self.owner.manager
  local found, err = place.pool(manager):acquire(deadline or task.now() + manager.options.connection_timeout)
  if not found then
    return nil, err
  end
  found.keeps_schema = true
  return found
end

--- Write an event down. Yields.
-- @string kind
-- @string message
-- @tparam ?number job
-- @tparam ?number seq of a move
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Catalog:note(kind, message, job, seq)
  local ok, err = self:execute("INSERT INTO lunashard_catalog.event (kind, message, job, seq) VALUES ($1, $2, $3, $4)",
    { kind, message, job, seq, n = 4 })
  return ok and true, err
end

--- Is it known of every bucket whose it is?
-- @treturn boolean
function Catalog:is_complete()
  for _, group in pairs(self.groups) do
    if group.bound.has_unknown then
      return false
    end
  end
  return true
end

-- ---- beginning ------------------------------------------------------------------------------

local function new(manager)
  return setmetatable({
    owner = setmetatable({ manager = manager }, { __mode = "v" }),
    changed = task.event(), -- notified whenever another map is in use
    heard = task.event(), -- and when the catalog has said that something in it changed, which need not be the map
    groups = {},
    shard_versions = {},
    shard_guards = {}, -- shard_id -> the guard for its reads that was made last, see `lunashard.router.guards`
    version = 0,
    guard_epoch = 0,
    guards = true,
  }, Catalog)
end

-- The first map: the strategies of the manager must fit it as they are.
local function first_map(manager, deadline)
  local found, err, versions = nil, place.down(manager), nil
  if not err then
    found, err, versions = read(manager, nil, false, deadline)
  end
  local why
  if not found and err and is_unreachable(err) and admit.has_managed(manager) then
    why = err
    found, err, versions = map.from_shards(manager, nil, deadline)
  end
  return found, err, versions, why
end

local function attach(manager, deadline, allowed)
  local managed = admit.has_managed(manager)
  local found, err, versions, why = first_map(manager, deadline)
  if found == nil and not managed and is_unreachable(err) and not manager.catalog_place.named then
    return false
  elseif found == false then
    local ok
    ok, err = admit.static(manager, deadline)
    if ok then
      return false
    end
    return nil, err
  elseif not found then
    return nil, err
  end
  local asked, ok
  asked, err = admit.identities(manager, found, deadline)
  ok = asked ~= nil
  local before, strategies = manager.strategies, manager.strategies
  if ok and next(admit.recorded(found)) then
    strategies, err = binding.bind(before.spec, manager.members, manager.tables, admit.recorded(found))
    ok = strategies ~= nil
    err = err and errors.new("INVALID", { message = "strategy: " .. err })
  end
  if ok then
    ok, err = admit.check(found, strategies, manager.tables, manager.members, allowed)
  end
  local groups
  if ok then
    groups, err = applying.run(found, strategies, manager.members)
  end
  if not groups then
    return nil, err
  elseif manager.strategies ~= before or manager.closed then
    return nil, errors.new("INVALID", { message = "the shards or the strategy changed meanwhile; try again" })
  end
  local self = new(manager)
  install(self, found, groups, versions)
  if why then
    note_reach(self, manager, why)
  end
  if strategies ~= before then
    topology.bind(manager, strategies)
  end
  for _, endpoint in ipairs(asked) do
    endpoint.identified = true
  end
  manager.catalog = self
  lease.start(self, deadline)
  watch.start(self)
  return self
end

--- Take the cluster's catalog into use, if it has one. Yields.
-- Sets `manager.catalog`; the manager's strategies place by its map from then on.
-- @tparam Manager manager
-- @tparam ?number deadline
-- @tparam[opt] table allowed what may differ, see `admit.check`
-- @treturn[1] Catalog
-- @treturn[2] boolean false: there is none, the cluster is static
-- @treturn[3] nil
-- @treturn[3] lunashard.error what does not fit, and what to do
function catalog.attach(manager, deadline, allowed)
  deadline = deadline or task.now() + manager.options.connection_timeout
  while manager.attaching do
    if task.now() >= deadline then
      return nil, errors.new("TIMEOUT", { message = "the shard map could not be read in time" })
    end
    manager.attaching:wait(deadline)
  end
  if manager.catalog then
    return manager.catalog
  end
  local done = task.event()
  manager.attaching = done
  local ok, value, err = pcall(attach, manager, deadline, allowed)
  manager.attaching = nil
  done:notify()
  if not ok then
    error(value, 0)
  end
  return value, err
end

--- The version of the catalog's schema where the manager looks for it. Yields.
-- @tparam Manager manager
-- @tparam ?number deadline
-- @treturn[1] number 0 when there is none
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function catalog.schema_version(manager, deadline)
  return schema.version(place.pool(manager), "catalog", deadline)
end

return catalog
