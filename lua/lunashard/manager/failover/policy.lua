--- Asking the user's `choose_primary`.
-- It may veto and it may choose among equals, and it cannot do harm: whatever it raises, returns or waits for, the
-- default decision stands, and a warning says why.
-- @module lunashard.manager.failover.policy

local options = require("lunashard.options")
local task = require("lunashard.task")
local warn = require("lunashard.warn")

local policy = {}

local function ignored(member, problem)
  warn.emit(("choose_primary for %s %s; the default decision stands"):format(member.shard_id, problem))
end

--- Ask who shall be the primary. Yields, at most for `health_check_timeout`.
-- @tparam Manager manager
-- @tparam table member
-- @tparam {table,...} candidates each with `endpoint` (`host:port`), `reason`, ...; the first is the default
-- @treturn[1] string the name of one of the candidates
-- @treturn[2] boolean false: none of them
function policy.choose(manager, member, candidates)
  local default = candidates[1].endpoint
  local choose_primary = manager.options.choose_primary
  if not choose_primary then
    return default
  end
  local given, offered = {}, {} -- what the policy may do to its argument is nothing to us
  for i, candidate in ipairs(candidates) do
    given[i], offered[candidate.endpoint] = {}, true
    for name, value in pairs(candidate) do
      given[i][name] = value
    end
  end
  local timeout = manager.options.health_check_timeout
  local asked = task.daemon(choose_primary, given, member.info):watch()
  local ok, answer = asked:join(timeout)
  if not ok then
    asked:cancel()
    ignored(member, answer.code == "TIMEOUT" and ("took longer than %gs"):format(timeout)
      or "raised: " .. tostring(answer.message))
  elseif answer == false then
    return false
  elseif answer ~= nil and answer ~= true then
    local name = type(answer) == "table" and answer.endpoint or answer
    if offered[name] then
      return name
    end
    ignored(member, "gave " .. options.describe(answer) .. ", which is no candidate's endpoint")
  end
  return default
end

return policy
