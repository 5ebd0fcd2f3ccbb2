--- How far behind its primary a replica may be: seconds, bytes of the log, or both.
-- @module lunashard.manager.lag_limit

local errors = require("lunashard.errors")
local options = require("lunashard.options")

local lag_limit = {}

local NAMES = { seconds = true, bytes = true }

--- What is wrong with a limit.
-- @param given a number of seconds, or `{ seconds = s, bytes = n }` with one of the two or both
-- @treturn ?string nil when it is right
function lag_limit.problem(given)
  if type(given) == "number" then
    given = { seconds = given }
  elseif type(given) ~= "table" or next(given) == nil then
    return "expected a number of seconds or a table such as { bytes = 16 * 2^20 }, got " .. options.describe(given)
  end
  for name, value in pairs(given) do
    if not NAMES[name] then
      return errors.unknown_option("max_replica_lag", name, NAMES)
    elseif type(value) ~= "number" or value ~= value or value < 0 then
      return ("%s: expected a number, 0 or more, got %s"):format(name, options.describe(value))
    end
  end
end

--- The two limits of a checked one.
-- @tparam number|table given
-- @treturn ?number seconds
-- @treturn ?number bytes
function lag_limit.limits(given)
  if type(given) == "number" then
    return given
  end
  return given.seconds, given.bytes
end

--- Is a replica within the limits? One whose lag is not known is within none.
-- @tparam table record its health record
-- @tparam ?number seconds
-- @tparam ?number bytes
-- @treturn boolean
function lag_limit.is_within(record, seconds, bytes)
  if seconds then
    local behind = record.lag_seconds
    if not behind or behind > seconds then
      return false
    end
  end
  if bytes then
    local behind = record.lag_bytes
    if not behind or behind > bytes then
      return false
    end
  end
  return true
end

return lag_limit
