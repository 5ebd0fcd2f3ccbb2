--- A pace for moving rows that gives way to others: slower while a replica lags or statements take long, fast in a time window.
-- `throttle = { "pace", p95_ms = 20, lag_seconds = 5, from = 22, to = 6 }`: while a limit is exceeded the pause after each
-- batch is doubled, up to `longest`; while none is, it is halved. Between the hours `from` and `to` no limit counts.
-- @module lunashard.policies.pace

local pace = { api = 1, kind = "policy", name = "pace", options = { "p95_ms", "lag_seconds", "from", "to", "longest" } }

local FIRST, LONGEST = 0.02, 5 -- seconds

--- Check the options.
-- @tparam table options `p95_ms`, `lag_seconds`, `from` and `to` (hours, 0 to 23), `longest` (seconds [5])
-- @treturn table options
function pace.new(options)
  for name, value in pairs(options) do
    if type(value) ~= "number" or value ~= value or value < 0 then
      error(("pace: %s must be a number, 0 or more, not %s"):format(name, tostring(value)), 0)
    end
  end
  if (options.from == nil) ~= (options.to == nil) then
    error("pace: from and to go together", 0)
  elseif not options.p95_ms and not options.lag_seconds then
    error("pace: give p95_ms, lag_seconds, or both", 0)
  end
  return options
end

local function is_quiet_hour(hour, options)
  if not options.from then
    return false
  elseif options.from <= options.to then
    return hour >= options.from and hour < options.to
  end
  return hour >= options.from or hour < options.to
end

--- How long to pause after a batch.
-- @tparam table stats see `throttle` of `lunashard.rebalancer`
-- @tparam table options from `new`
-- @treturn number seconds
function pace.throttle(stats, options)
  local is_over = options.p95_ms and stats.p95_ms > options.p95_ms
    or options.lag_seconds and stats.lag_seconds > options.lag_seconds
  if is_over and not is_quiet_hour(stats.time.hour, options) then
    return math.min(math.max(stats.throttle * 2, FIRST), options.longest or LONGEST)
  end
  return stats.throttle > FIRST and stats.throttle / 2 or 0
end

return pace
