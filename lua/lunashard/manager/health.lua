--- Health records: what is known of each endpoint, and what it says about it.
-- One record for each endpoint, with the guide's fields. Only what the shard is to
-- blame for counts as a failure: no connection, no answer, a refused login, a full disk. A wrong
-- statement is proof of a live server. The states and their changes are in C (`src/base/health.h`): statements
-- that fail make a server suspect, probes open and close its circuit.
-- @module lunashard.manager.health

local core = require("lunashard.core.health")
local ffi = require("ffi")
local task = require("lunashard.task")

-- By FFI, for it runs after every statement, and a call through the C API would end the compiled code there.
ffi.cdef("bool luna_health_success(void *health, double seconds);")

local health = {}

local note_success = ffi.C.luna_health_success

-- Full, but there: whoever is connected may go on.
local FULL = "53300"

local Record = {}

-- What changes with every statement is asked for when it is read.
local LIVE = {
  average_latency_ms = function(record)
    return record.core:latency() * 1000
  end,
  connection_count = function(record)
    local pool = record.pool
    return pool and pool:stats().size or 0
  end,
  consecutive_failures = function(record)
    return record.core:failures()
  end,
  error_rate = function(record)
    return record.core:error_rate()
  end,
}

function Record.__index(record, name)
  local live = LIVE[name]
  return live and live(record)
end

function Record.__tostring(record)
  return ("lunashard.health(%s%s)"):format(record.status,
    record.last_error and ", " .. tostring(record.last_error) or "")
end

local function refresh(record)
  local was_well = record.status == "healthy" or record.status == "unchecked"
  record.status, record.circuit = record.core:state()
  record.is_healthy = record.status == "healthy" or record.status == "degraded"
  if record.status == "healthy" then
    record.failing_since = nil
  elseif was_well and record.status ~= "unchecked" then
    record.failing_since = task.now()
  end
end

--- A record that knows nothing yet: `status` is `unchecked` and `is_healthy` false.
-- @number max_consecutive_failures after so many the record turns unhealthy
-- @treturn table `is_healthy`, `status` (`unchecked`, `healthy`, `degraded`, `unhealthy`, `recovering`),
--   `consecutive_failures`, `average_latency_ms`, `error_rate` (0 to 1), `connection_count`, `last_error`,
--   `last_check`; `circuit` (`closed`, `open`, `half_open`); and, from the last probe that was answered: `in_recovery`,
--   `timeline`, `lsn` (bytes: written by a primary, replayed by a replica), `lag_bytes`, `lag_seconds`,
--   `system_identifier`; `failing_since`, `last_probe` (on the clock of `lunashard.now`)
function health.new(max_consecutive_failures)
  local record = setmetatable({ core = core.new(max_consecutive_failures) }, Record)
  refresh(record)
  return record
end

--- So many failures in a row make it unhealthy from now on.
-- @tparam table record
-- @int max_consecutive_failures
function health.set_limit(record, max_consecutive_failures)
  record.core:set_limit(max_consecutive_failures)
end

-- Codes that speak against the shard rather than against the statement, and what of SQL does: no room on its disk or
-- in its memory, a disk that fails, data that are damaged.
local BLAMES = { SHARD_DOWN = true, AUTH = true, TIMEOUT = true, UNKNOWN_OUTCOME = true }
local TROUBLES = {
  ["53000"] = true, ["53100"] = true, ["53200"] = true, ["58000"] = true, ["58030"] = true, ["XX001"] = true,
  ["XX002"] = true,
}

--- Is the server to blame, rather than the statement?
-- @tparam lunashard.error err
-- @treturn boolean
function health.is_to_blame(err)
  return BLAMES[err.code] or err.code == "SQL" and TROUBLES[err.sqlstate] or false
end

--- The endpoint answered a statement.
-- @tparam table record
-- @tparam ?number seconds how long it took
function health.success(record, seconds)
  if note_success(record.core, seconds or -1) then
    refresh(record)
  end
end

--- A statement failed at the endpoint. The monitor, if there is one, looks for itself soon.
-- @tparam table record
-- @tparam lunashard.error err
function health.failure(record, err)
  record.last_error = err
  if record.core:failure() then
    refresh(record)
  end
  if record.wake then
    record.wake:notify()
  end
end

--- A probe is sent off: where the circuit is open, it is half open until the answer.
-- @tparam table record
function health.probe_begins(record)
  if record.core:probe_begins() then
    refresh(record)
  end
end

--- A probe was answered.
-- @tparam table record
-- @tparam table found from `probe.run`
-- @number now on the clock of `lunashard.now`
function health.probe_success(record, found, now)
  record.last_check, record.last_probe = os.time(), now
  record.in_recovery, record.timeline, record.lsn = found.in_recovery, found.timeline, found.lsn
  record.system_identifier, record.started = found.system_identifier, found.started
  if record.core:probe_success(found.latency) then
    refresh(record)
  end
end

--- A probe failed.
-- @tparam table record
-- @tparam lunashard.error err
-- @number now on the clock of `lunashard.now`
-- @bool[opt] certain unhealthy at once, however few failures there were
function health.probe_failure(record, err, now, certain)
  record.last_check, record.last_probe = os.time(), now
  record.last_error = err
  local changed
  if err.sqlstate == FULL then
    changed = record.core:probe_refused()
  else
    changed = record.core:probe_failure(certain)
  end
  if changed then
    refresh(record)
  end
end

--- May work be sent there? Not while the circuit is open.
-- @tparam table record
-- @treturn boolean
function health.is_usable(record)
  return record.circuit == "closed"
end

--- The record's fields as a plain table.
-- @tparam table record
-- @treturn table `last_error` as text
function health.snapshot(record)
  return {
    is_healthy = record.is_healthy,
    status = record.status,
    circuit = record.circuit,
    consecutive_failures = record.consecutive_failures,
    average_latency_ms = record.average_latency_ms,
    error_rate = record.error_rate,
    connection_count = record.connection_count,
    last_error = record.last_error and tostring(record.last_error) or nil,
    last_check = record.last_check,
    failing_for = record.failing_since and task.now() - record.failing_since,
    in_recovery = record.in_recovery,
    timeline = record.timeline,
    lsn = record.lsn,
    lag_bytes = record.lag_bytes,
    lag_seconds = record.lag_seconds,
    system_identifier = record.system_identifier,
  }
end

return health
