--- The background work of a manager: probes at intervals, and what follows from them.
-- Each shard has one task that probes its endpoints in rounds, all of them at the same time, so that their
-- positions can be compared. A round waits for those that were well or unknown before; one that hangs holds up its
-- first rounds and no others. A task holds the manager only while it works: one that nobody has any more is
-- collected with its pools.
-- @module lunashard.manager.monitor

local errors = require("lunashard.errors")
local events = require("lunashard.events")
local failover = require("lunashard.manager.failover")
local health = require("lunashard.manager.health")
local identity = require("lunashard.manager.identity")
local lag = require("lunashard.manager.lag")
local lag_limit = require("lunashard.manager.lag_limit")
local probe = require("lunashard.manager.probe")
local task = require("lunashard.task")
local warn = require("lunashard.warn")

local monitor = {}

-- Seconds, all of them at most the interval: between looks at a shard where something is wrong, a tenth of the
-- interval within bounds; and before a failure is confirmed or not.
local SHORTEST, LONGEST = 0.1, 1.0
local CONFIRM = 0.1
local JITTER = 0.2 -- of the interval, so that many clients do not come in step

local function describe(endpoint)
  return ("%s of %s (%s)"):format(endpoint.role, endpoint.shard_id, endpoint.name)
end

-- What has become of an endpoint since it was told last.
local function tell(manager, endpoint)
  local record = endpoint.health
  local from, to = endpoint.told or "unchecked", record.status
  endpoint.told = to
  if from == to or from == "unchecked" and to == "healthy" then
    return
  end
  local message = ("%s is %s"):format(describe(endpoint), to)
  if (to == "degraded" or to == "unhealthy") and record.last_error then
    message = ("%s: %s: %s"):format(message, record.last_error.code, record.last_error.message)
  end
  events.emit({
    kind = "health",
    shard_id = endpoint.shard_id,
    endpoint = endpoint.name,
    from = from,
    to = to,
    message = message,
  }, manager)
end

-- Nothing that goes wrong here may end the monitor.
local function guarded(what, fn, ...)
  local ok, err = pcall(fn, ...)
  if not ok and not errors.is(err, "CANCELED") then
    warn.emit(("%s raised: %s"):format(what, tostring(err)))
  end
end

-- What was found goes into the record; then it is decided what follows, one call at a time for each shard.
local function consider(manager, member)
  if member.considering then
    member.reconsider = true
    return
  end
  member.considering = true
  repeat
    member.reconsider = false
    guarded("failover of " .. member.shard_id, failover.consider, manager, member)
  until not member.reconsider
  member.considering = false
end

-- A server that says why it does not serve us is there: it starts up, shuts down, or has no connection left.
local function note_silence(record, found, err, now)
  local silent = not found and not err.sqlstate and err.code ~= "AUTH" and err.code ~= "INVALID"
  record.answered = found ~= nil
  record.misses = silent and (record.misses or 0) + 1 or 0
  record.silent_since = silent and (record.silent_since or now) or nil
end

local function look(manager, member, endpoint, deadline, first)
  local record = endpoint.health
  health.probe_begins(record)
  local found, err = probe.run(endpoint, deadline)
  if found then
    found, err = identity.check(manager, endpoint, found, deadline)
  end
  if manager.closed or member.monitor.stopped or err and err.code == "CLOSED" then
    return
  end
  local now = task.now()
  note_silence(record, found, err, now)
  if found then
    endpoint.server_encoding = found.server_encoding
    health.probe_success(record, found, now)
    lag.measure(member, endpoint, found, now)
  else
    health.probe_failure(record, err, now, first or err.code == "INVALID") -- it is there, and not ours
  end
  tell(manager, endpoint)
end

-- Starts a probe, or joins the one that is under way.
local function begin(manager, member, endpoint, deadline)
  local under_way = endpoint.probing
  if under_way then
    return under_way
  end
  local probing, state = {}, member.monitor
  endpoint.probing = probing
  local first = endpoint.health.status == "unchecked"
  task.daemon(function()
    guarded("the probe of " .. describe(endpoint), look, manager, member, endpoint, deadline, first)
    endpoint.probing = nil
    if probing.awaited then
      state.wake:notify()
    else
      consider(manager, member)
    end
  end)
  return probing
end

local function is_under_way(awaited)
  for endpoint, probing in pairs(awaited) do
    if endpoint.probing == probing then
      return true
    end
  end
  return false
end

-- One round: returns when all that were expected to answer have done so, or their deadline has passed. One that
-- nobody waits for makes way for one that is asked for.
local function run_round(manager, member, state, round)
  local deadline = task.now() + (round and round.timeout or manager.options.health_check_timeout)
  local awaited = {}
  for _, endpoint in ipairs(member.endpoints) do
    local well = endpoint.health.status ~= "unhealthy"
    local probing = begin(manager, member, endpoint, deadline)
    if round or well then
      probing.awaited = true
      awaited[endpoint] = probing
    end
  end
  while is_under_way(awaited) and (round or not state.asked) do
    state.wake:wait()
  end
  consider(manager, member)
end

local function jittered(seconds)
  return seconds * (1 + JITTER * (math.random() - 0.5))
end

-- How often to look where something is wrong.
local function urgent(interval)
  return math.min(interval, math.max(SHORTEST, math.min(interval / 10, LONGEST)))
end

-- Is something wrong that the next look may tell to be over?
local function is_watched(member, endpoint)
  local record = endpoint.health
  return record.status ~= "healthy" and record.status ~= "unchecked"
    or endpoint.role == "replica" and record.lag_bytes
      and not lag_limit.is_within(record, member.max_lag_seconds, member.max_lag_bytes)
end

local function pause(manager, member)
  local interval = manager.options.health_check_interval
  local delay = interval
  for _, endpoint in ipairs(member.endpoints) do
    local record = endpoint.health
    if record.answered == false and health.is_usable(record) then
      delay = math.min(delay, CONFIRM)
    elseif is_watched(member, endpoint) or member.write_refusal then
      delay = math.min(delay, urgent(interval))
    end
  end
  return jittered(delay), jittered(urgent(interval))
end

-- One turn of the background task; how long to wait until the next, and how long when something looks wrong.
local function step(weak, state)
  local manager, member = weak.manager, weak.member
  if not manager or not member or manager.closed or state.stopped then
    return nil
  end
  local round = state.asked
  state.asked = nil
  run_round(manager, member, state, round)
  if round then
    round.over = true
    round.done:notify()
  end
  return pause(manager, member)
end

-- Statements that failed wake it, and so do those who ask for a round.
local function rest(state, delay, alarmed)
  local started = task.now()
  local due = started + delay
  while not state.stopped and not state.asked and task.now() < due do
    if state.wake:wait(due) then
      due = math.min(due, started + alarmed)
    end
  end
end

local function run(weak, state)
  while true do
    local delay, alarmed = step(weak, state)
    if not delay then
      return
    end
    -- The first time anywhere in the interval, for many clients may have started together.
    rest(state, state.spread and delay or delay * math.random(), alarmed)
    state.spread = true
  end
end

local function new_round(timeout)
  return { timeout = timeout, done = task.event(), over = false }
end

--- Begin to probe a shard in the background, at once and then at intervals.
-- The first time a server gets as long as for any connection.
-- @tparam Manager manager
-- @tparam table member with open pools
function monitor.start(manager, member)
  local first = new_round(manager.options.connection_timeout)
  local state = { wake = task.event(), stopped = false, asked = first, first = first }
  member.monitor = state
  for _, endpoint in ipairs(member.endpoints) do
    endpoint.health.wake = state.wake
  end
  state.task = task.daemon(run, setmetatable({ manager = manager, member = member }, { __mode = "v" }), state)
end

--- End it. A round that is under way ends unheard.
-- @tparam table member
function monitor.stop(member)
  local state = member.monitor
  if state and not state.stopped then
    state.stopped = true
    state.wake:notify()
    if state.asked then
      state.asked.over = true
      state.asked.done:notify()
    end
  end
end

--- Probe all endpoints of a shard now. Yields until they have answered, or the time for that has passed, and what
-- follows has been done. Calls at the same time share one round.
-- @tparam Manager manager
-- @tparam table member
-- @treturn boolean false when nothing was asked, for the shard is closed
function monitor.check_now(manager, member)
  local state = member.monitor
  if manager.closed or not state or state.stopped then
    return false
  end
  -- One that has begun may have looked before what the caller has seen happened; but any will do as the first.
  local round = state.asked or not state.first.over and state.first
  if not round then
    round = new_round(manager.options.health_check_timeout)
    state.asked = round
    state.wake:notify()
  end
  while not round.over and not state.stopped do
    round.done:wait()
  end
  return round.over
end

return monitor
