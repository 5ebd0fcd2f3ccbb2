--- The users' plug-ins among the bound strategies of a manager, members of others included.
-- @module lunashard.loader.bounds

local breath = require("lunashard.plugin.breath")
local guard = require("lunashard.plugin.guard")
local recent = require("lunashard.plugin.recent")
local selftest = require("lunashard.plugin.selftest")
local sorted = require("lunashard.sorted")

local bounds = {}

local PIECE = 16 -- keys between two looks at the clock

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
  return sorted.keys(strategies.by_type)
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

local function list_of(bound, wanted)
  local list = {}
  each_bound(bound, function(one)
    list[#list + 1] = wanted(one) and one or nil
  end)
  return list
end

local function is_users(bound)
  return not bound.shipped
end

--- Do two versions of a strategy that is made of others answer alike, as far as sampled keys tell? Yields.
-- Only the users' plug-ins in them may differ, so only these are asked, and no directory is.
-- @tparam lunashard.strategy.bound before
-- @tparam lunashard.strategy.bound after
-- @treturn boolean false when they differ somewhere, which need not be where keys get, or when it is a plug-in itself
function bounds.is_alike(before, after)
  local old, new = list_of(before, is_users), list_of(after, is_users)
  if is_users(before) or #old ~= #new then
    return false
  end
  local pause = breath.new()
  for _, keys in ipairs({ recent.of(before), guard.keys(before, after) }) do
    for from = 1, #keys, PIECE do
      local same = recent.unnoticed(function()
        for i = from, math.min(from + PIECE - 1, #keys) do
          for n = 1, #old do
            if old[n]:route(keys[i]) ~= new[n]:route(keys[i]) then
              return false
            end
          end
        end
        return true
      end)
      if not same then
        return false
      end
      pause()
    end
  end
  return true
end

--- Let the shipped parts of a strategy go on with what those of another have learnt; both are made alike.
-- @tparam lunashard.strategy.bound before
-- @tparam lunashard.strategy.bound after
function bounds.carry(before, after)
  local function inherits(bound)
    return bound.shipped and bound.plugin.inherit ~= nil
  end
  local old = list_of(before, inherits)
  for i, bound in ipairs(list_of(after, inherits)) do
    bound.plugin.inherit(bound.state, old[i].state)
  end
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
