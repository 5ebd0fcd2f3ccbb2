--- What happens to a mover at a point of a move.
-- @module spec.moves.strike

local cli = require("spec.support.cli")
local cut = require("spec.moves.cut")
local errors = require("lunashard.errors")
local task = require("lunashard.task")

local strike = {}

local VICTIM = "victim"
local PATIENCE = 20 -- seconds

--- A rebalancer that calls a function at a point, the nth time that it comes there. Yields.
-- @tparam World world
-- @tparam table point
-- @tparam func fn
-- @tparam[opt] table options of the rebalancer
-- @treturn Rebalancer; `passed` counts the points by name
function strike.victim(world, point, fn, options)
  local victim, passed = world:rebalancer({ application_name = VICTIM }, options), {}
  victim.passed = passed
  victim.at = function(at)
    passed[at] = (passed[at] or 0) + 1
    if at == point.name and passed[at] == point.nth then
      victim.struck = true
      fn(victim)
    end
  end
  return victim
end

local function is_struck(victim, point)
  assert(victim.struck, ("the move never came to %s for the %d. time"):format(point.name, point.nth))
end

local LOCK = [[hashtextextended('lunashard lock rebalance', 0)]]

-- Sessions of the job's lock, and those that stand in a transaction of the catalog.
local END_LOCK = [[
  SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
   WHERE a.datname = current_database() AND (a.application_name = $1 AND a.state = 'idle in transaction' OR EXISTS (
     SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.objsubid = 1
       AND (l.classid::bigint << 32 | l.objid::bigint) = ]] .. LOCK .. "))"

local LOCKED = [[
  SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
     AND (classid::bigint << 32 | objid::bigint) = ]] .. LOCK

--- End the session that holds the lock of all movers, as the server does with one that it believes dead. Yields.
-- @tparam World world
-- @string[opt] name that it gives to the server
function strike.end_lock(world, name)
  world:ask(END_LOCK, { name or VICTIM })
  cli.wait_until("nobody holds the lock", function()
    return world:ask(LOCKED)[1] == nil
  end)
end

local SESSION = [[
  SELECT client_port FROM pg_stat_activity WHERE application_name = 'lunashard mover ' || $1::bigint || '.1 ' || $2::text
     AND datname = current_database()]]
local IN_CATALOG = [[
  SELECT client_port FROM pg_stat_activity a WHERE application_name = $1 AND datname = current_database()
     AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory')]]

-- The ports of our connections on which the next commit goes.
local function ports_of(world, id, point)
  local rows
  if point.at == "catalog" then
    rows = world:ask(IN_CATALOG, { VICTIM })
  else
    rows = world:on(world[point.at], SESSION, { id, point.at })
  end
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = row.client_port
  end
  return list
end

-- ---- the kinds --------------------------------------------------------------------------------
-- Each gives a function that is called when the job has come to its end, or none.

local kinds = {}

--- Its process is gone, by kill -9.
function kinds.exit(world, id, point)
  local result = cli.run({ "run", "-c", world.cluster_file, "spec/moves/mover.lua", tostring(id), point.name,
    tostring(point.nth) }, { timeout = PATIENCE })
  assert(result.signal == 9, result.stderr)
end

--- Something is done with a job that fails at a point, for no reason that anybody knows. Yields.
-- @string what `execute_job` or `cancel_job`
-- @tparam World world
-- @int id
-- @tparam table point
function strike.fail(what, world, id, point)
  local victim = strike.victim(world, point, function()
    error(errors.new("CLOSED", { message = "struck" }), 0)
  end)
  local ran, ok, err = pcall(victim[what], victim, id)
  is_struck(victim, point)
  err = ran and err or ok
  assert(not (ran and ok) and tostring(err):find("struck", 1, true), tostring(err))
  world:shut(victim.manager)
end

--- It fails.
function kinds.error(world, id, point)
  strike.fail("execute_job", world, id, point)
end

--- It stands still, loses the lock, and wakes when another one has done what is left.
function kinds.sleep(world, id, point)
  local reached, woken = task.event(), task.event()
  local is_reached, is_woken, over = false, false, false
  local victim = strike.victim(world, point, function()
    is_reached = true
    reached:notify()
    while not is_woken do
      woken:wait()
    end
  end)
  local running = task.spawn(function()
    local ok, value, err = pcall(victim.execute_job, victim, id)
    over = true
    reached:notify()
    return ok, value, err
  end):watch()
  while not is_reached and not over do
    reached:wait(task.now() + PATIENCE)
  end
  is_struck(victim, point)
  strike.end_lock(world)
  return function()
    is_woken = true
    woken:notify()
    assert(running:join(PATIENCE))
    world:shut(victim.manager)
  end
end

local function lose(world, id, point, way, is_to_stop)
  local adopted
  local victim = strike.victim(world, point, function(victim)
    local ports = ports_of(world, id, point)
    adopted = victim.passed["adopting:before-commit"]
    victim.interrupt = is_to_stop and "asked to stop" or nil
    assert(cut.now(ports, way) > 0, "no connection was cut")
  end)
  local ok, err = victim:execute_job(id)
  is_struck(victim, point)
  -- A pool may see that an idle connection to the catalog is dead, and take another one.
  assert(not ok or point.at == "catalog" or victim.passed["adopting:before-commit"] > adopted, "the mover noticed nothing")
  assert(ok or errors.is(err), tostring(err))
  world:shut(victim.manager)
end

--- A commit does not come to the server. The mover sees to itself; with `is_to_stop` it is asked to stop then.
kinds["request lost"] = function(world, id, point, is_to_stop)
  lose(world, id, point, "request lost", is_to_stop)
end

--- A commit is done, and nobody is told.
kinds["reply lost"] = function(world, id, point, is_to_stop)
  lose(world, id, point, "reply lost", is_to_stop)
end

--- The kinds, by name.
strike.KINDS = { "exit", "error", "sleep", "request lost", "reply lost" }

--- Run a job until it is struck. Yields.
-- @string kind
-- @tparam World world
-- @int id
-- @tparam table point
-- @tparam ?boolean is_to_stop
-- @treturn ?func to be called in the end
function strike.run(kind, world, id, point, is_to_stop)
  return kinds[kind](world, id, point, is_to_stop)
end

return strike
