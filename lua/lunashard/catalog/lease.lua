--- The promise between a router and the catalog: to guard statements when asked, and until when that may be left out.
--
-- Every manager has a row in `lunashard_catalog.router` with the end of its lease, by the catalog's clock, and renews
-- it long before. A rebalance job asks for guards (`guard_epoch`) and waits until every router with a lease has
-- acknowledged that, or its lease has run out. A manager acknowledges once nothing without a guard is under way.
--
-- On our side a lease ends by our own monotonic clock, which is read before the catalog's, and a little earlier. From then
-- on everything is guarded, and what had no guard and has not been answered is not trusted any more: the pools see to
-- that themselves (`manager.term`), for whoever was frozen knows nothing of it. So no clocks need to agree, only to run at
-- about the same rate.
--
-- A renewal and a request for guards exclude each other by an advisory lock: whoever renews without having seen a
-- request is seen by those who make it.
-- @module lunashard.catalog.lease

local errors = require("lunashard.errors")
local lock = require("lunashard.rebalancer.lock")
local place = require("lunashard.catalog.place")
local shard = require("lunashard.manager.shard")
local task = require("lunashard.task")

local lease = {}

--- Seconds that a lease lasts.
lease.DURATION = 5

local SHARE = 0.9 -- of it that we make use of
local RENEW = 1 / 3 -- of it between renewals
local RETRY = 0.5 -- seconds after a renewal that failed, at most
local ACKNOWLEDGE = 0.01 -- seconds between looks at what is under way
local POLL = 0.02 -- seconds between looks at who has acknowledged
local RELEASE_TIMEOUT = 0.5

local LOCK = "hashtextextended('lunashard guards', 0)"

local now = task.now

local catalogs = setmetatable({}, { __mode = "k" }) -- that have a lease
local remaining = {} -- id -> endpoint of the catalog, of leases that could not be given up yet

local function quoted(text)
  return "'" .. text:gsub("%z", ""):gsub("'", "''") .. "'"
end

local function new_id()
  local file = assert(io.open("/dev/urandom", "rb"))
  local bytes = file:read(16)
  file:close()
  return (bytes:gsub(".", function(byte)
    return ("%02x"):format(byte:byte())
  end))
end

-- ---- what follows for statements ------------------------------------------------------

-- No statement that was routed before this is sent without a guard any more.
local function begin_generation(manager)
  manager.generation = manager.generation + 1
end

local function publish(manager, state)
  manager.term:set(manager.guarding and 0 or manager.generation, state.till, state.lost)
end

-- Has the lease run out since it was looked at last?
local function note_lapse(manager, state)
  if state.held and now() >= state.till then
    state.held = false
    state.lost = manager.generation
    begin_generation(manager)
  end
end

-- Guards are needed while they are asked for, unless it is certain that we would be told.
local function are_needed(catalog, state)
  return not state.held or catalog.guards or state.epoch > catalog.guard_epoch
end

local function decide(catalog)
  local manager, state = catalog.owner.manager, catalog.lease_state
  note_lapse(manager, state)
  local needed = are_needed(catalog, state)
  if needed ~= manager.guarding or state.version ~= catalog.version then
    begin_generation(manager)
  end
  manager.guarding, state.version = needed, catalog.version
  publish(manager, state)
end

--- Look whether guards are needed now. Does not yield.
-- @tparam Manager manager
function lease.check(manager)
  if manager.catalog and manager.catalog.lease_state then
    decide(manager.catalog)
  end
end

--- The catalog was read anew, or the shards in its place. Does not yield.
-- @tparam table catalog
function lease.refreshed(catalog)
  local state = catalog.lease_state
  if state then
    decide(catalog)
    state.wake:notify()
  end
end

--- Has what was sent under this generation, without a guard, been sent in time for its answer to count?
-- @tparam Manager manager
-- @int generation
-- @treturn boolean
function lease.holds(manager, generation)
  local state = manager.catalog and manager.catalog.lease_state
  return not state or generation > state.lost and now() < state.till
end

-- ---- renewing ----------------------------------------------------------------------------

-- One message, and so one transaction that nobody can hold up in the middle.
-- Who waited for the lock must see what its holder has written, whatever isolation sessions begin with.
local RENEW_SQL = [[
  SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
  SELECT pg_advisory_xact_lock_shared(%s);
  INSERT INTO lunashard_catalog.router AS r (router_id, name, lease_until) VALUES (%s, %s, clock_timestamp() + '%g s')
    ON CONFLICT (router_id) DO UPDATE SET lease_until = excluded.lease_until;
  SELECT guards, guard_epoch FROM lunashard_catalog.cluster]]

local function renew(catalog, deadline)
  local state, started = catalog.lease_state, now()
  local connection, err = catalog:lease(deadline)
  if not connection then
    return nil, err
  end
  local ok, result
  state.renewing = true
  ok, result, err = pcall(connection.execute, connection, RENEW_SQL:format(LOCK, quoted(state.id), quoted(state.name),
    lease.DURATION), nil, { simple = true, deadline = deadline })
  state.renewing = false
  state.wake:notify()
  connection:release()
  if not ok then
    error(result, 0)
  elseif not result then
    return nil, err
  elseif state.stopped then
    return nil, errors.new("CLOSED", { message = "the manager was shut down" })
  end
  local row = result.rows[1]
  note_lapse(catalog.owner.manager, state)
  state.till, state.held = started + lease.DURATION * SHARE, now() < started + lease.DURATION * SHARE
  state.epoch = row and math.max(row.guard_epoch, state.epoch) or state.epoch
  decide(catalog)
  return true
end

local ACKNOWLEDGE_SQL = [[
  UPDATE lunashard_catalog.router SET acknowledged = greatest(acknowledged, $2), shards = $3 WHERE router_id = $1]]

local function known_shards(manager)
  local list = {}
  for i, member in ipairs(manager.members) do
    list[i] = member.shard_id
  end
  return list
end

-- What is asked for and not promised yet, or the shards that we know have become others.
local function is_to_acknowledge(catalog, state)
  local manager = catalog.owner.manager
  local epoch = math.max(catalog.guard_epoch, state.epoch)
  local shards = table.concat(known_shards(manager), "\0")
  if not manager.guarding or not state.held then
    return nil
  elseif epoch > state.acknowledged or shards ~= state.told then
    return epoch, shards
  end
end

local function acknowledge(catalog, deadline)
  local manager, state = catalog.owner.manager, catalog.lease_state
  local epoch, shards = is_to_acknowledge(catalog, state)
  if not epoch or manager.term:running() > 0 then
    return
  end
  local ok = catalog:execute(ACKNOWLEDGE_SQL, { state.id, epoch, known_shards(manager) }, deadline)
  if ok then
    state.acknowledged, state.told = epoch, shards
  end
end

-- One turn of the background task; how long to wait until the next.
local function turn(catalog)
  local state = catalog.lease_state
  decide(catalog)
  local at = now()
  if at >= state.due then
    local ok = renew(catalog, at + lease.DURATION * RENEW)
    state.due = now() + (ok and lease.DURATION * RENEW or math.min(RETRY, lease.DURATION * RENEW))
    if ok and state.epoch ~= catalog.guard_epoch then
      catalog:refresh(now() + lease.DURATION * RENEW)
    end
  end
  acknowledge(catalog, now() + lease.DURATION * RENEW)
  return is_to_acknowledge(catalog, state) and now() + ACKNOWLEDGE
    or math.min(state.due, state.held and state.till > now() and state.till or state.due)
end

local function run(weak, state)
  while true do
    local catalog = weak.catalog
    if not catalog or state.stopped or not catalog.owner.manager then
      return
    end
    local ok, due = pcall(turn, catalog)
    if not ok and errors.is(due, "CANCELED") then
      return
    end
    catalog = nil -- luacheck: no unused
    state.wake:wait(ok and due or now() + RETRY)
  end
end

--- Begin to hold a lease, in the background from then on. Yields until the first answer.
-- @tparam table catalog whose map is there; until there is a lease everything is guarded
-- @tparam ?number deadline for the first answer
function lease.start(catalog, deadline)
  local manager = catalog.owner.manager
  local state = {
    id = new_id(),
    name = ("%s, process %d"):format(manager.name or "lunashard", require("lunashard.core.system").getpid()),
    till = 0, -- on our clock
    held = false,
    lost = 0, -- what was sent under this generation or an earlier one is not trusted
    epoch = 0, -- of guards, as the last renewal saw it
    acknowledged = 0,
    due = 0,
    wake = task.event(),
  }
  catalog.lease_state = state
  catalogs[catalog] = true
  decide(catalog)
  renew(catalog, deadline)
  state.due = now() + (state.held and lease.DURATION * RENEW or RETRY)
  state.task = task.daemon(run, setmetatable({ catalog = catalog }, { __mode = "v" }), state)
end

-- A renewal that is on its way would bring it back.
local function let_renew(state)
  local until_then = now() + RELEASE_TIMEOUT
  while state.renewing and now() < until_then do
    state.wake:wait(until_then)
  end
end

local function withdraw(pool, id)
  return pool:execute("DELETE FROM lunashard_catalog.router WHERE router_id = $1", { id },
    { deadline = now() + RELEASE_TIMEOUT, pipeline = false })
end

--- Give the lease up, so that nobody waits for it to run out. Yields, for a second at the most.
-- Nothing is sent without a guard any more.
-- @tparam table catalog
function lease.stop(catalog)
  local state, manager = catalog.lease_state, catalog.owner.manager
  if not state or state.stopped then
    return
  end
  local had_lease = state.till > 0
  state.stopped, state.till = true, 0
  decide(catalog)
  state.wake:notify()
  catalogs[catalog] = nil
  if had_lease then
    local ok, err = pcall(function()
      let_renew(state)
      return withdraw(place.pool(manager), state.id)
    end)
    if not ok and errors.is(err, "CANCELED") then
      remaining[state.id] = place.endpoint(manager)
    end
  end
end

--- The same of all that there are, for a program that ends, and of those whose tasks were cancelled. Yields.
function lease.stop_all()
  for catalog in pairs(catalogs) do
    if catalog.owner.manager then
      lease.stop(catalog)
    end
  end
  for id, endpoint in pairs(remaining) do
    local pool = shard.single(endpoint)
    pcall(withdraw, pool, id)
    pool:close()
  end
end

-- ---- for those who move rows ----------------------------------------------------------------

local SWITCH_SQL = [[
  SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
  SELECT pg_advisory_xact_lock(%s);
  DELETE FROM lunashard_catalog.router WHERE lease_until < clock_timestamp() - interval '1 hour';
  UPDATE lunashard_catalog.cluster SET guards = %s, guard_epoch = guard_epoch + 1, guards_changed = clock_timestamp() WHERE %s
    RETURNING guard_epoch, timeline, substring(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS present]]

-- Of a job that is the mover's still, and is to its transaction's end.
local OWN = "EXISTS (SELECT FROM lunashard_catalog.job WHERE id = %.0f AND token = %.0f FOR SHARE)"

local function switch(catalog, on, deadline, mover)
  local connection, err = catalog:lease(deadline)
  if not connection then
    return nil, err
  end
  local ok, result
  ok, result, err = pcall(connection.execute, connection, SWITCH_SQL:format(LOCK, tostring(on),
    mover and OWN:format(mover.job, mover.token) or "true"), nil,
    { simple = true, deadline = deadline })
  connection:release()
  if not ok then
    error(result, 0)
  elseif not result then
    return nil, err
  elseif not result.rows[1] then
    return nil, mover and lock.taken_over(mover.job)
      or errors.new("INVALID", { message = "there is no catalog: lunashard cluster init makes it" })
  end
  local refreshed
  refreshed, err = catalog:refresh(deadline)
  return refreshed and result.rows[1], err
end

-- A server that has become the catalog's primary may lack leases, and has a clock of its own. When as much time has passed
-- as they last, everybody has one there, or none.
local function await_leases(catalog, found, deadline)
  if found.timeline == found.present then
    return true
  end
  local at = now() + lease.DURATION
  if deadline and at >= deadline then
    return nil, errors.new("TIMEOUT", {
      message = ("the catalog has another primary than before, which may not know all routers: their leases last %g s")
        :format(lease.DURATION),
    })
  end
  task.sleep(lease.DURATION)
  local ok, err = catalog:execute("UPDATE lunashard_catalog.cluster SET timeline = $1", { found.present }, deadline)
  return ok and true, err
end

local MISSING_SQL = [[
  SELECT name, acknowledged < $1 AS unguarded,
         ARRAY(SELECT shard_id FROM lunashard_catalog.shard WHERE state <> 'removed' AND NOT shard_id = ANY (r.shards)
                ORDER BY position) AS unknown,
         extract(epoch FROM lease_until - clock_timestamp())::float8 AS left_for
    FROM lunashard_catalog.router r
   WHERE lease_until > clock_timestamp()
     AND (acknowledged < $1 OR EXISTS (SELECT FROM lunashard_catalog.shard
                                        WHERE state <> 'removed' AND NOT shard_id = ANY (r.shards)))
   ORDER BY name]]

local function describe(missing)
  local parts = {}
  for i, row in ipairs(missing) do
    parts[i] = row.unguarded and row.name .. " has statements or transactions under way without guards"
      or ("%s does not know the shard %s: reload its cluster file"):format(row.name, table.concat(row.unknown, ", "))
  end
  return table.concat(parts, "; ")
end

--- Have all routers guard their statements. Yields until that is certain.
-- @tparam table catalog
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil, guards stay switched on
-- @treturn[2] lunashard.error `TIMEOUT`, naming routers that have not agreed, or why the catalog cannot be asked
function lease.open_guards(catalog, deadline)
  local found, err = switch(catalog, true, deadline)
  local ok
  if found then
    ok, err = await_leases(catalog, found, deadline)
  end
  if not ok then
    return nil, err
  end
  local missing
  while true do
    local result
    result, err = catalog:execute(MISSING_SQL, { found.guard_epoch }, deadline)
    if not result and not (missing and err.code == "TIMEOUT") then
      return nil, err
    elseif result and not result.rows[1] then
      return true
    end
    missing = result and result.rows or missing
    if not result or deadline and now() + POLL >= deadline then
      return nil, errors.new("TIMEOUT", { message = "not all routers guard their statements yet: " .. describe(missing) })
    end
    task.sleep(POLL)
  end
end

--- No guards are needed any more: nothing is being moved. Yields.
-- @tparam table catalog
-- @tparam ?number deadline
-- @tparam[opt] table mover who says so, as `job` and `token`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` when another mover has taken over
function lease.close_guards(catalog, deadline, mover)
  local found, err = switch(catalog, false, deadline, mover)
  return found and true, err
end

return lease
