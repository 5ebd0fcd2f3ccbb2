--- Drills: work on all shards, a fault on one of them, and what must hold before, during and after.
--
--     local drill = faults.drill({ servers = servers })          -- tasks write, count and read from now on
--     drill:baseline()                                           -- how it is without a fault
--     drill:fault("shard2", function() servers:kill("shard2") end)
--     drill:expect_status("shard2")                              -- says what is wrong, within an interval
--     drill:expect_neighbours_unharmed()                         -- their p99 as before, none of their statements failed
--     drill:recover(function() servers:start() end)
--     drill:expect_throughput()                                  -- is back within 2 s
--     drill:finish()                                             -- the ledger, the loop, memory, time limits
--
-- What is said elsewhere too has `#long` in its title and runs in `make test-fault` only.
-- `faults.close_all` belongs in `after_each`: it ends what a failed spec left running.
-- @module spec.support.faults

local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local gauge = require("spec.support.faults.gauge")
local ledger = require("spec.support.faults.ledger")
local load = require("spec.support.faults.load")
local lunashard = require("lunashard")
local pool = require("lunashard.pool")
local task = require("lunashard.task")

local faults = {}

local Drill = {}
Drill.__index = Drill

-- Under a sanitizer, or with the collector always on, everything takes its time.
local IS_SLOW = cli.binary:find("/asan/", 1, true) ~= nil or os.getenv("LUNASHARD_GCSTRESS") ~= nil
local SLOWNESS = IS_SLOW and 10 or 1

local WINDOW = 0.25 -- seconds; p99 and throughput are taken in windows of this length
local FLOOR = 0.015 -- seconds by which p99 may always grow: the machine is shared
local TURNS = 3 -- on a processor that an answer needs, at least
local PATIENCE = 8 -- seconds in which the machine may disturb a measurement that is then made again
local BLOCKED = 0.1 * SLOWNESS
local BACK_WITHIN = 2 * (IS_SLOW and 3 or 1)
local SHARE = 0.6 -- of the former throughput, to be called back
local MEMORY = 48 -- MiB
local OVERDUE = 0.5 * SLOWNESS -- beyond its timeout
local GRACE = 1 -- what a cancelled write gets besides: the answer says whether it was done
local ORPHANS = 0.25 * SLOWNESS -- in which backends whose server was killed take statements before they notice

local TASKS = { insert = 4, transaction = 1, counter = 2, read = 3 }

-- Health is asked often, and no other option is unlike a production's but by its size.
local OPTIONS = {
  health_check_interval = 0.5,
  health_check_timeout = 0.5,
  connection_timeout = 1,
  connection_pool_size = 8,
}

local running, warn_before = {}, nil

--- End the drills that a failed spec left, and close their managers. Yields.
function faults.close_all()
  for _, drill in ipairs(running) do
    drill.load:cancel()
    if drill.ticker then
      drill.ticker:stop()
    end
  end
  running = {}
  cluster.close_all()
  if warn_before then
    lunashard.set_warn(warn_before)
    warn_before = nil
  end
end

--- Run a statement on a server as its superuser, past everything under test. Yields.
-- @tparam table server as spec.support.sandbox describes it
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table more options of the pool, such as `database`
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function faults.ask(server, sql, params, more)
  local options = {
    host = server.host, port = server.port, database = server.database, user = server.superuser,
    password = server.superuser_password, max_size = 1, application_name = "ask", pipeline = false,
  }
  for name, value in pairs(more or {}) do
    options[name] = value
  end
  local connection = pool.new(options)
  local ok, result, err = pcall(connection.execute, connection, sql, params,
    { simple = params == nil, deadline = task.now() + 10 })
  connection:close()
  if not ok then
    error(result, 0)
  end
  return result, err
end

-- The tables must be there before anybody reads them.
local function wait_for_replicas(servers)
  for _, shard in ipairs(servers.shards) do
    for _, replica in ipairs(shard.replicas) do
      cluster.wait_until(replica.name .. " has the tables", function()
        local result = faults.ask(replica, "SELECT count(*) AS n FROM fault_counters")
        return result and result.rows[1].n > 0
      end, 15)
    end
  end
end

--- Begin a drill. Yields.
-- @tparam table options
--
-- - `servers`: a sandbox of one's own (spec.support.sandbox `start`), all of it running
-- - `options`: of the manager, beside those of its cluster file
-- - `adapt`: a function that changes the manager's options in place, such as hosts and ports of shards
-- - `tasks`: how many tasks of each kind work on each shard: `insert`, `transaction`, `counter`, `read`
-- - `timeout` [1.5] of each statement, twice that where all is slow, `pause` [0.01] of a task between two, in seconds
-- @treturn Drill `router`, `manager`, `ledger`, `load`, `warnings`: what would have been printed
function faults.drill(options)
  local given = { cluster_file = options.servers.cluster_file }
  for _, from in ipairs({ OPTIONS, options.options or {} }) do
    for name, value in pairs(from) do
      given[name] = value
    end
  end
  given = cluster.options(given)
  if options.adapt then
    options.adapt(given)
  end
  given.cluster_file = options.servers.cluster_file
  local warnings = {}
  local before = lunashard.set_warn(function(message)
    warnings[#warnings + 1] = message
  end)
  warn_before = warn_before or before
  local router, manager = cluster.connect(given)
  assert(router:execute_on_all_shards(ledger.SCHEMA))
  local self = setmetatable({
    servers = options.servers,
    router = router,
    manager = manager,
    interval = given.health_check_interval,
    probe_timeout = given.health_check_timeout,
    timeout = (options.timeout or 1.5) * (IS_SLOW and 2 or 1),
    ledger = ledger.new(),
    where = {},
    warnings = warnings,
  }, Drill)
  self.load = load.new({
    manager = manager,
    router = router,
    ledger = self.ledger,
    timeout = self.timeout,
    pause = options.pause or 0.01,
  })
  wait_for_replicas(options.servers)
  self.load:start(options.tasks or TASKS)
  running[#running + 1] = self
  return self
end

--- Change a setting of a running server, for all its sessions. Yields.
-- @tparam table server as spec.support.sandbox describes it
-- @string name
-- @tparam ?string value nil for what it was before
function faults.set(server, name, value)
  local change = value and ("ALTER SYSTEM SET %s = '%s'"):format(name, value) or "ALTER SYSTEM RESET " .. name
  assert(faults.ask(server, change))
  local loaded = assert(faults.ask(server, "SELECT pg_conf_load_time()::text AS at")).rows[1].at
  assert(faults.ask(server, "SELECT pg_reload_conf()"))
  cluster.wait_until(name .. " is set", function()
    return assert(faults.ask(server, "SELECT pg_conf_load_time()::text AS at")).rows[1].at ~= loaded
  end, 15)
end

--- Make commits of a shard wait for a replica, so that no acknowledged write is lost when that is promoted. Yields.
-- @tparam table server the primary
function faults.synchronous(server)
  faults.set(server, "synchronous_standby_names", "*")
  cluster.wait_until("the replicas are synchronous", function()
    local sql = "SELECT count(*) AS n FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
    return assert(faults.ask(server, sql)).rows[1].n > 0
  end, 15)
end

-- ---- before ---------------------------------------------------------------

--- Work for a while without a fault, and remember how that went. Yields.
-- @number[opt=1.5] seconds
function Drill:baseline(seconds)
  for _, shard in pairs(self.load.shards) do
    cluster.wait_until("work goes on at " .. shard.shard_id, function()
      return shard.writes.n >= 20
    end, 15)
  end
  collectgarbage() -- before the loop is looked at: a whole collection of all that specs have left takes long
  self.memory = gauge.resident()
  self.ticker = gauge.ticker()
  local began = gauge.now()
  task.sleep(seconds or 1.5)
  local ended = gauge.now()
  self.before = {}
  for shard_id, shard in pairs(self.load.shards) do
    self.before[shard_id] = {
      p99 = shard.latencies:p99(began, ended, WINDOW),
      rate = shard.writes:rate(began, ended),
    }
  end
  self.wait = self.ticker.waits:p99(began, ended, WINDOW)
end

-- ---- during ---------------------------------------------------------------

--- Bring about the fault. Yields.
-- @param shard_ids the shard or list of shards that suffer
-- @tparam func fn
function Drill:fault(shard_ids, fn)
  if not self.before then
    self:baseline()
  end
  self.faulty = {}
  for _, shard_id in ipairs(type(shard_ids) == "table" and shard_ids or { shard_ids }) do
    self.faulty[shard_id] = true
  end
  self.fault_began = gauge.now()
  fn()
  self.fault_at = gauge.now()
end

--- Go on for a while. Yields.
-- @number seconds
function Drill:observe(seconds)
  task.sleep(seconds)
end

--- Where a server is found in the status of its shard.
-- @string shard_id
-- @tparam[opt] table server as spec.support.sandbox describes it [the configured primary]
-- @treturn table a record of the list `endpoints`
function Drill:endpoint(shard_id, server)
  local endpoints = assert(self.manager:get_shard_status(shard_id)).endpoints
  if not server then
    return endpoints[1]
  end
  local name = ("%s:%d"):format(server.host, server.port)
  for _, endpoint in ipairs(endpoints) do
    if endpoint.endpoint == name then
      return endpoint
    end
  end
  error(shard_id .. " has no endpoint " .. name)
end

local function is_wrong(endpoint)
  return endpoint.status ~= "healthy" and endpoint.last_error ~= nil
end

--- The status must say what is wrong within an interval of the fault, and the time that a probe may take. Yields.
-- @string shard_id
-- @tparam[opt] table options `server` [the configured primary], `is`: a function of the endpoint's status [not healthy, with
-- the last error]
function Drill:expect_status(shard_id, options)
  options = options or {}
  local is = options.is or is_wrong
  local limit = self.interval + self.probe_timeout + OVERDUE
  local endpoint
  while true do
    endpoint = self:endpoint(shard_id, options.server)
    if is(endpoint) then
      return endpoint
    elseif gauge.now() > self.fault_at + limit then
      error(("%s says %s, %s after the fault's %g s (last error: %s)"):format(endpoint.endpoint, endpoint.status, shard_id,
        gauge.now() - self.fault_at, tostring(endpoint.last_error)), 2)
    end
    task.sleep(0.01)
  end
end

-- The worst neighbour by its p99 of the last second, and what it may be. Every answer takes its turn on a processor a
-- few times, in this process and in the server, which costs more when the machine has got other things to do.
local function worst(self, now)
  local found
  local from = math.max(self.fault_at, now - 4 * WINDOW)
  local noise = TURNS * math.max(0, (self.ticker.waits:p99(from, now, WINDOW) or 0) - self.wait)
  for shard_id, shard in pairs(self.load.shards) do
    if not self.faulty[shard_id] then
      local p99 = shard.latencies:p99(from, now, WINDOW) or math.huge
      local before = self.before[shard_id].p99
      local limit = math.max(2 * before, before + FLOOR * SLOWNESS) + noise
      if not found or p99 / limit > found.p99 / found.limit then
        found = { shard_id = shard_id, p99 = p99, before = before, limit = limit }
      end
    end
  end
  return found
end

--- The other shards must answer as fast as before, twice as slowly at most, while the fault goes on, and none of their
-- statements may fail. Takes a second, and more when the machine itself is slow. Yields.
function Drill:expect_neighbours_unharmed()
  local started = gauge.now()
  local found
  repeat
    task.sleep(4 * WINDOW)
    found = worst(self, gauge.now())
    if found.p99 <= found.limit then
      return self:expect_neighbours_served()
    end
  until gauge.now() > started + PATIENCE
  error(("p99 of %s is %.1f ms, it was %.1f ms before the fault and may be %.1f ms"):format(found.shard_id,
    found.p99 * 1000, found.before * 1000, found.limit * 1000), 2)
end

-- Did the machine give us no processor for so long that a statement may have missed its deadline by that alone?
local function is_starved(self)
  return self.ticker.longest_wait > self.timeout / 4
end

--- No statement of the other shards may have failed.
function Drill:expect_neighbours_served()
  for shard_id, shard in pairs(self.load.shards) do
    if not self.faulty[shard_id] and shard.last_error and not is_starved(self) then
      error(("%s was no part of the fault and failed: %s (%s)"):format(shard_id, tostring(shard.last_error),
        self.ledger:summary(shard_id)), 2)
    end
  end
end

--- No read may have failed, on any shard.
function Drill:expect_reads_served()
  for shard_id, shard in pairs(self.load.shards) do
    if shard.reads.failed > 0 then
      error(("%d reads of %s failed, of %d: %s"):format(shard.reads.failed, shard_id, shard.reads.done,
        tostring(shard.last_error)), 2)
    end
  end
end

-- ---- after ----------------------------------------------------------------

--- End the fault. Yields.
-- @tparam func fn
function Drill:recover(fn)
  fn()
  self.recovered_at = gauge.now()
end

--- Work must go on as before within 2 s of the recovery, measured against the slower of what it was before and what the
-- other shards do now. Yields.
-- @tparam[opt] table options `since`: another time to count from, `within` seconds
function Drill:expect_throughput(options)
  options = options or {}
  local since = options.since or self.recovered_at or self.fault_at
  local limit = since + (options.within or BACK_WITHIN) + 2 * WINDOW
  for shard_id in pairs(self.faulty) do
    local rate, expected
    repeat
      task.sleep(0.05)
      local now = gauge.now()
      rate, expected = self.load.shards[shard_id].writes:rate(now - 2 * WINDOW, now), self.before[shard_id].rate
      for other, shard in pairs(self.load.shards) do
        if not self.faulty[other] then
          expected = math.min(expected, shard.writes:rate(now - 2 * WINDOW, now))
        end
      end
    until rate >= SHARE * expected or now > limit
    if rate < SHARE * expected then
      error(("%s does %.0f writes a second %g s after it came back; before it were %.0f, other shards do at least %.0f "
        .. "(last error: %s)"):format(shard_id, rate, gauge.now() - since, self.before[shard_id].rate, expected,
        tostring(self.load.shards[shard_id].last_error)), 2)
    end
  end
end

--- Another server holds the truth of a shard now: for `finish`.
-- @string shard_id
-- @tparam table server as spec.support.sandbox describes it
function Drill:truth_is_at(shard_id, server)
  self.where[shard_id] = server
end

--- At most so many writes of a shard may be of unknown outcome, all of them asked for before the fault had happened.
-- @string shard_id
-- @number most
-- @number[opt] before by default the end of the function that brought the fault about
function Drill:expect_unknown_in_flight(shard_id, most, before)
  before = (before or self.fault_at) + ORPHANS
  local unknown = self.ledger:of(shard_id).unknown
  if #unknown > most then
    error(("%d writes of %s are of unknown outcome, at most %d can be"):format(#unknown, shard_id, most), 2)
  end
  for _, entry in ipairs(unknown) do
    if entry.started > before then
      error(("a write (%s) that %s was asked for %g s after the fault is said to be of unknown outcome: %s"):format(
        entry.kind, shard_id, entry.started - before + ORPHANS, tostring(entry.err)), 2)
    end
  end
end

--- How many tasks write to each shard: the most writes that one fault can surprise.
function Drill:writers()
  return self.load.writers
end

local function check_outcomes(self)
  local complaints = {}
  for _, shard in ipairs(self.servers.shards) do
    local shard_id = shard.shard_id
    if self.load.shards[shard_id] then
      for _, complaint in ipairs(self.ledger:compare(shard_id, self.where[shard_id] or shard)) do
        complaints[#complaints + 1] = complaint
      end
    end
    if not self.faulty[shard_id] and self.ledger:count("unknown", shard_id) > 0 and not is_starved(self) then
      complaints[#complaints + 1] = shard_id .. " was no part of the fault and has writes of unknown outcome"
    end
  end
  if #complaints > 0 then
    error(("%d complaints (%s):\n%s"):format(#complaints, self.ledger:summary(),
      table.concat(complaints, "\n", 1, math.min(#complaints, 20))), 3)
  end
end

--- Stop the work and check all that must always hold: every acknowledged write is there exactly once, none of which an
-- error said that it was not done; the loop was never blocked for 100 ms; memory is bounded; nothing outlived its
-- timeout. Yields.
-- @tparam[opt] table options `blocked`: seconds, instead of 0.1
function Drill:finish(options)
  local blocked = self.ticker:stop()
  self.load:stop()
  collectgarbage()
  local growth = gauge.resident() - self.memory
  check_outcomes(self)
  self:expect_neighbours_served()
  local limit = options and options.blocked or BLOCKED
  if blocked > limit then
    error(("the loop was blocked for %.0f ms"):format(blocked * 1000), 2)
  elseif growth > MEMORY and not IS_SLOW then
    error(("memory grew by %.0f MiB"):format(growth), 2)
  end
  for shard_id, shard in pairs(self.load.shards) do
    for kind, slowest in pairs(shard.slowest_failures) do
      if slowest.took > self.timeout + (kind ~= "read" and GRACE or 0) + OVERDUE then
        error(("%s of %s with a timeout of %g s failed after %.2f s: %s"):format(kind, shard_id, self.timeout, slowest.took,
          tostring(slowest.err)), 2)
      end
    end
  end
end

return faults
