--- The users' plug-ins among the bound strategies of a manager, members of others included.
-- @module lunashard.loader.bounds

local selftest = require("lunashard.plugin.selftest")

local bounds = {}

local function each_bound(bound, visit)
  visit(bound)
  for _, member in ipairs(bound.shipped and type(bound.state) == "table" and bound.state.members or {}) do
    each_bound(member, visit)
  end
end

--- The key types that strategies are bound for, sorted.
-- @tparam table strategies from `binding.bind`
-- @treturn {string,...}
function bounds.key_types(strategies)
  local names = {}
  for name in pairs(strategies.by_type) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

--- The bound strategies that users' plug-ins make, in the order in which binding makes them.
-- @tparam table strategies from `binding.bind`
-- @string[opt] name only those of this plug-in
-- @treturn {lunashard.strategy.bound,...}
function bounds.users(strategies, name)
  local list = {}
  for _, key_type in ipairs(bounds.key_types(strategies)) do
    each_bound(strategies.by_type[key_type], function(bound)
      if not bound.shipped and (name == nil or bound.name == name) then
        list[#list + 1] = bound
      end
    end)
  end
  return list
end

--- Try them on sampled keys. Yields.
-- @tparam table strategies from `binding.bind`
-- @string[opt] name only those of this plug-in
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function bounds.try(strategies, name)
  for _, bound in ipairs(bounds.users(strategies, name)) do
    local ok, message = selftest.strategy(bound)
    if not ok then
      return nil, ("strategy %s: self-test: %s"):format(bound.name, message)
    end
  end
  return true
end

return bounds
