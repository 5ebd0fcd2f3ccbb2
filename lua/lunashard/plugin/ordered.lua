--- `pairs` and `next` in an order that is the same in every process.
-- LuaJIT hashes texts with a seed of the process, so that the order of its own tells two processes apart: a strategy that
-- lists its shards by `pairs` would place keys elsewhere in each of them, which no test within one process can see.
-- Numbers come first, by value, then texts, by bytes, then false and true, then all else, in no order.
-- @module lunashard.plugin.ordered

jit.off(true, true) -- see lunashard.plugin.budget

local ordered = {}

local RANK = { number = 1, string = 2, boolean = 3 }
local NO_ORDER = 4

local next, type = next, type
local sort = table.sort

local function rank(key)
  return RANK[type(key)] or NO_ORDER
end

local function before(a, b)
  local x, y = rank(a), rank(b)
  if x ~= y then
    return x < y
  elseif x == 3 then
    return not a and b
  end
  return x < NO_ORDER and a < b
end

local function check(value, name)
  if type(value) ~= "table" then
    error(("bad argument #1 to '%s' (table expected, got %s)"):format(name, value == nil and "no value" or type(value)), 3)
  end
end

--- As in Lua, in order. A key that is removed meanwhile is passed over, and one that is added is not seen.
-- @tparam table t
-- @treturn func
-- @treturn table t
function ordered.pairs(t)
  check(t, "pairs")
  local keys, n = {}, 0
  for key in next, t do
    n = n + 1
    keys[n] = key
  end
  sort(keys, before)
  local at = 0
  return function()
    while at < n do
      at = at + 1
      local value = rawget(t, keys[at])
      if value ~= nil then
        return keys[at], value
      end
    end
  end, t
end

-- Of keys that have no order the one behind `key`, as they lie.
local function next_unordered(t, key)
  local is_behind = rank(key) < NO_ORDER or key == nil
  for other in next, t do
    if rank(other) == NO_ORDER then
      if is_behind then
        return other, rawget(t, other)
      end
      is_behind = rawequal(other, key)
    end
  end
end

--- As in Lua, in order. It looks through all of the table each time.
-- @tparam table t
-- @param[opt] key
-- @return the key behind it, or nil
-- @return its value
function ordered.next(t, key)
  check(t, "next")
  local best
  for other in next, t do
    if rank(other) < NO_ORDER and (key == nil or before(key, other)) and (best == nil or before(other, best)) then
      best = other
    end
  end
  if best ~= nil then
    return best, rawget(t, best)
  end
  return next_unordered(t, key)
end

return ordered
