--- Preferring some servers as primary, and never taking others.
-- `choose_primary = { "prefer", hosts = { "db1", "db2" }, never = { "backup1" } }`: of the candidates the one on the first
-- of these hosts, else the one that would be taken anyway; one on a host of `never` is none. A host may be given with
-- its port.
-- @module lunashard.policies.prefer

local prefer = { api = 1, kind = "policy", name = "prefer" }

local KNOWN = { hosts = true, never = true }

local function check(name, list)
  if type(list) ~= "table" or type(list[1]) ~= "string" then
    error(("policy prefer: %s: expected a list of hosts"):format(name), 0)
  end
end

--- Check the options.
-- @tparam table options `hosts`, `never`
-- @treturn table options
function prefer.new(options)
  for name, list in pairs(options) do
    if not KNOWN[name] then
      error(("policy prefer: unknown option %s; there are hosts and never"):format(tostring(name)), 0)
    end
    check(name, list)
  end
  if next(options) == nil then
    error("policy prefer: give hosts, never, or both", 0)
  end
  return options
end

local function is_on(candidate, host)
  return candidate.host == host or candidate.endpoint == host
end

local function is_allowed(candidate, options)
  for _, host in ipairs(options.never or {}) do
    if is_on(candidate, host) then
      return false
    end
  end
  return true
end

--- Choose.
-- @tparam {table,...} candidates each with `endpoint` and `host`, the best first
-- @tparam table _ the shard
-- @tparam table options from @{new}
-- @treturn string|boolean the endpoint of a candidate, or false for none
function prefer.choose_primary(candidates, _, options)
  local allowed = {}
  for _, candidate in ipairs(candidates) do
    if is_allowed(candidate, options) then
      allowed[#allowed + 1] = candidate
    end
  end
  for _, host in ipairs(options.hosts or {}) do
    for _, candidate in ipairs(allowed) do
      if is_on(candidate, host) then
        return candidate.endpoint
      end
    end
  end
  return allowed[1] ~= nil and allowed[1].endpoint
end

return prefer
