--- Health records, fed by the outcomes of ordinary work.
-- One record for each endpoint, with the guide's fields. Only what the shard is to
-- blame for counts as a failure: no connection, no answer, a refused login. A wrong
-- statement is proof of a live server.
-- @module lunashard.manager.health

local health = {}

-- Weight of the newest sample in the moving averages: about the last 20 count.
local ALPHA = 0.1
-- How long an unhealthy replica is left alone before a read tries it again.
local COOL_DOWN = 5

local Record = {}

-- connection_count is asked of the pool when it is read: it changes without any call of ours.
function Record.__index(record, name)
  if name == "connection_count" then
    local pool = rawget(record, "pool")
    return pool and pool:stats().size or 0
  end
  return Record[name]
end

--- A record that knows nothing yet: `status` is `unchecked` and `is_healthy` false.
-- @number max_consecutive_failures after so many the record turns unhealthy
-- @treturn table `is_healthy`, `status`, `consecutive_failures`, `average_latency_ms`,
--   `error_rate` (0 to 1), `connection_count`, `last_error`, `last_check`; `circuit` (`closed`, `open`, `half_open`);
--   and, from the last probe: `in_recovery`, `timeline`, `lsn` (bytes: written by a primary, replayed by a replica),
--   `lag_bytes`, `lag_seconds`, `last_probe` (on the clock of `lunashard.now`), `system_identifier`
function health.new(max_consecutive_failures)
  return setmetatable({
    is_healthy = false,
    status = "unchecked",
    consecutive_failures = 0,
    average_latency_ms = 0,
    error_rate = 0,
    circuit = "closed",
    limit = max_consecutive_failures,
  }, Record)
end

--- Codes that speak against the shard rather than against the statement.
-- @table blames
health.blames = { SHARD_DOWN = true, AUTH = true, TIMEOUT = true, UNKNOWN_OUTCOME = true }

--- The endpoint answered.
-- @tparam table record
-- @tparam ?number seconds how long it took
function health.success(record, seconds)
  if not record.is_healthy then
    record.is_healthy, record.status, record.circuit = true, "healthy", "closed"
  end
  record.consecutive_failures = 0
  if record.error_rate > 0 then
    -- Halving for ever would end in denormal numbers, which are slow.
    local rate = record.error_rate * (1 - ALPHA)
    record.error_rate = rate > 1e-9 and rate or 0
  end
  if seconds then
    local before = record.average_latency_ms
    record.average_latency_ms = before == 0 and seconds * 1000 or before + ALPHA * (seconds * 1000 - before)
  end
end

--- The endpoint failed.
-- @tparam table record
-- @tparam lunashard.error err
-- @number now on the clock of `lunashard.now`
-- @bool[opt] certain unhealthy at once, however few failures there were
function health.failure(record, err, now, certain)
  record.consecutive_failures = record.consecutive_failures + 1
  record.error_rate = record.error_rate + ALPHA * (1 - record.error_rate)
  record.last_error = err
  record.last_failure = now
  if certain or record.consecutive_failures >= record.limit then
    record.is_healthy, record.status, record.circuit = false, "unhealthy", "open"
  end
end

--- Take over what a probe has found.
-- @tparam table record
-- @tparam table found from `probe.run`
function health.probed(record, found)
  record.in_recovery, record.timeline, record.lsn = found.in_recovery, found.timeline, found.lsn
  record.system_identifier, record.started = found.system_identifier, found.started
end

--- May a read be sent there: not known to be unhealthy, or long enough ago?
-- @tparam table record
-- @number now
-- @treturn boolean
function health.is_usable(record, now)
  return record.status ~= "unhealthy" or now - record.last_failure >= COOL_DOWN
end

--- The guide's fields as a plain table.
-- @tparam table record
-- @treturn table `last_error` as text
function health.snapshot(record)
  return {
    is_healthy = record.is_healthy,
    status = record.status,
    consecutive_failures = record.consecutive_failures,
    average_latency_ms = record.average_latency_ms,
    error_rate = record.error_rate,
    connection_count = record.connection_count,
    last_error = record.last_error and tostring(record.last_error) or nil,
    last_check = record.last_check,
    circuit = record.circuit,
    in_recovery = record.in_recovery,
    timeline = record.timeline,
    lsn = record.lsn,
    lag_bytes = record.lag_bytes,
    lag_seconds = record.lag_seconds,
  }
end

return health
