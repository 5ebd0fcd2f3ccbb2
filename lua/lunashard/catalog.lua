--- The catalog as a router sees it: a cache of the map, looked after in the background.
-- `manager.catalog` is there once the cluster has a catalog (`lunashard cluster init`); without one the map is what the
-- strategies say, for ever. Whoever a shard refuses (`LS001`) calls `refresh` and tries again.
--
-- While the catalog cannot be reached the map is put together from the shards, each of which knows what it owns, and
-- `guards` is true: nothing is believed without asking.
-- @classmod lunashard.catalog
-- @local

local admit = require("lunashard.catalog.admit")
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

local catalog = {}

local Catalog = {}
Catalog.__index = Catalog
Catalog.__name = "lunashard.catalog"

function Catalog:__tostring()
  return ("lunashard.catalog(map %d%s)"):format(self.version, self.guards and ", guarded" or "")
end

-- A router at work may lack shards, of which it knows nothing then.
local AT_WORK = { shards = true }

local NONE = {}

local POLL = 1.0 -- seconds between two looks at the map's version, with a jitter

-- Of a catalog that cannot be asked, as opposed to one that says no.
local UNREACHABLE = { SHARD_DOWN = true, TIMEOUT = true, POOL_EXHAUSTED = true, AUTH = true, UNKNOWN_OUTCOME = true,
  READ_ONLY = true }

local function is_unreachable(err)
  return UNREACHABLE[err.code] or err.code == "SQL" and (err.sqlstate == "42501" or err.retryable)
end

-- ---- from a map that was read to one that is used ---------------------------------------

local function shards_of(members)
  local list = {}
  for i, member in ipairs(members) do
    local info = member.info
    list[i] = { shard_id = info.shard_id, weight = info.weight, region = info.region, tags = info.tags }
  end
  return list
end

-- The number of buckets decides which one a key has: a map that lacks some is no map.
local function check_count(group, owners)
  local n = 0
  for _ in pairs(owners) do
    n = n + 1
  end
  if group.buckets and n ~= group.buckets then
    return nil, errors.new("INVALID", {
      message = ("the map of the group %s has %d buckets, but the group has %d: it is damaged; restore the catalog"):format(
        group.name, n, group.buckets),
    })
  end
  return owners
end

-- Owners that the manager has, of all buckets that the strategy is expected to have; for a router that goes on, what is
-- owned by a shard that it does not have is owned by nobody.
local function known_owners(group, bound, has, lenient, is_partial)
  local expected, is_known = NONE, true
  if is_partial then
    local set, err = admit.expected(group, bound)
    if not set then
      return nil, err
    end
    expected = set
  end
  for _, shard_id in pairs(group.owners) do
    is_known = is_known and (has[shard_id] or not lenient)
  end
  if is_known and not is_partial then
    return check_count(group, group.owners)
  end
  local owners = {}
  for bucket, shard_id in pairs(group.owners) do
    owners[bucket] = (has[shard_id] or not lenient) and shard_id or adoption.UNKNOWN
  end
  for bucket in pairs(expected) do
    owners[bucket] = owners[bucket] or adoption.UNKNOWN
  end
  return check_count(group, owners)
end

-- The strategies that serve what the map says; or why they cannot. Does not yield; nothing is changed on failure.
-- `serving`: groups that may go on as they are, when nothing in them changed.
local function apply(found, strategies, members, lenient, serving)
  local list, groups, has = {}, {}, {}
  for _, member in ipairs(members) do
    has[member.shard_id] = true
  end
  for name, group in pairs(found.groups) do
    local bound, before = strategies.by_type[name], serving and serving[name]
    local is_same = before and before.bound == bound and before.owners == group.owners and not found.silent
      and not bound.has_unknown
    if bound and not is_same then
      local owners, err = known_owners(group, bound, has, lenient, found.silent ~= nil)
      if not owners then
        return nil, err
      end
      list[#list + 1] = { bound = bound, owners = owners }
    end
    groups[name] = bound and { name = name, bound = bound, versions = group.versions, buckets = group.buckets,
      tables = group.tables, owners = group.owners }
  end
  local ok, message = adoption.adopt(list, shards_of(members))
  if not ok then
    return nil, errors.new("INVALID", { message = "the catalog's map: " .. message })
  end
  return groups
end

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
    ok, err = apply(self.map, strategies, members)
  end
  return ok and true, err
end

--- Let strategies that were checked place by the map. Does not yield.
-- @tparam table strategies
-- @tparam {table,...} members
function Catalog:serve(strategies, members)
  self.groups = assert(apply(self.map, strategies, members, true))
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
    message = ("the catalog (%s) cannot be read: %s; the map is taken from the shards, and every statement is checked there")
      :format(place.describe(manager), err.message)
  elseif not err and self.unreachable then
    message = ("the catalog (%s) can be read again"):format(place.describe(manager))
  end
  self.unreachable = err
  if message then
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
    versions = map.shard_versions(manager, deadline)
    local why = err
    found, err = map.from_shards(manager, self.map, deadline)
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
    groups, problem = apply(found, manager.strategies, manager.members, true, not self.problem and self.groups)
  end
  if groups then
    install(self, found, groups, versions)
    problem = admit.missing(self.owned, manager.by_id)
  else -- what was right until now may send rows anywhere
    adoption.refuse(manager.strategies.by_type, shards_of(manager.members))
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
  return place.pool(manager):acquire(deadline or task.now() + manager.options.connection_timeout)
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

-- ---- in the background ----------------------------------------------------------------------

local LOOK = "SELECT id, map_version, guards, guard_epoch FROM lunashard_catalog.cluster"

-- While a job is open its mover may be gone; a shard that does not answer must not hold up the map.
local function see_to_fences(self, manager)
  if not self.seeing then
    self.seeing = true
    task.daemon(function()
      local ok, problem = pcall(require("lunashard.rebalancer.recover").run, manager)
      self.seeing = false
      if not ok and not errors.is(problem) then
        error(problem, 0)
      end
    end)
  end
end

local function look(self)
  local manager = self.owner.manager
  if not manager or manager.closed then
    return false
  end
  local result = self:execute(LOOK, nil, task.now() + manager.options.health_check_timeout)
  local row = result and result.rows[1]
  local same = row and not self.unreachable and row.id == self.id and row.map_version == self.version
    and row.guards == self.guards and row.guard_epoch == self.guard_epoch
  if row and not same or not row and not self:is_complete() then
    self:refresh()
  end
  if row and row.guards then
    see_to_fences(self, manager)
  end
  return true
end

-- Is it known of every bucket whose it is?
function Catalog:is_complete()
  for _, group in pairs(self.groups) do
    if group.bound.has_unknown then
      return false
    end
  end
  return true
end

local function run(self)
  repeat
    task.sleep(POLL * (0.75 + 0.5 * math.random()))
    local ok, goes_on = pcall(look, self)
  until ok and not goes_on
end

-- ---- beginning ------------------------------------------------------------------------------

local function new(manager)
  return setmetatable({
    owner = setmetatable({ manager = manager }, { __mode = "v" }),
    changed = task.event(), -- notified whenever another map is in use
    groups = {},
    shard_versions = {},
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
    versions = map.shard_versions(manager, deadline)
    found, err = map.from_shards(manager, nil, deadline)
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
    groups, err = apply(found, strategies, manager.members)
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
  self.poller = task.daemon(run, self)
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
