--- The keys that were routed lately, for the placement guard.
-- A sample of keys may miss the one tenant that a typo moves; those in use are known here. What is remembered are the
-- last keys that differ, at least `capacity` of them and at most twice as many, in two tables: when one is full, the
-- older one is emptied and takes its place. A key that is known costs one look into a table.
-- @module lunashard.plugin.recent

local clear = require("table.clear")

local recent = {}

local CAPACITY = 8192
local LONGEST = 256 -- bytes of a text; longer keys are not kept

local Recent = { __name = "lunashard.recent" }
Recent.__index = Recent

-- What asks for keys out of curiosity must not fill the memory with them.
local quiet = 0

--- An empty memory.
-- @tparam[opt=8192] int capacity
-- @treturn Recent
function recent.new(capacity)
  return setmetatable({ current = {}, previous = {}, n = 0, capacity = capacity or CAPACITY }, Recent)
end

local function put(self, index, key)
  if self.n >= self.capacity then
    local emptied = self.previous
    clear(emptied)
    self.previous, self.current, self.n = self.current, emptied, 0
  end
  self.current[index] = key
  self.n = self.n + 1
end

--- A key as a table's index: equal keys give equal indexes.
-- @param key
-- @treturn number|string
function recent.index(key)
  local kind = type(key)
  if kind == "number" or kind == "string" then
    return key
  elseif kind ~= "table" then
    return tostring(key)
  end
  local parts = {}
  for i, value in ipairs(key) do
    local text = tostring(value)
    parts[i] = #text .. ":" .. text
  end
  return table.concat(parts)
end

local function copied(key)
  local copy = {}
  for i, value in ipairs(key) do
    copy[i] = value
  end
  return copy
end

--- Remember a key that was routed.
-- @param key
function Recent:note(key)
  if quiet > 0 or self.current[key] then
    return
  end
  local index = recent.index(key)
  if (type(index) == "number" or #index <= LONGEST) and not self.current[index] then
    put(self, index, type(key) == "table" and copied(key) or key)
  end
end

--- All keys that are remembered, each once.
-- @treturn table list
function Recent:keys()
  local list = {}
  for _, key in pairs(self.current) do
    list[#list + 1] = key
  end
  for index, key in pairs(self.previous) do
    if not self.current[index] then
      list[#list + 1] = key
    end
  end
  return list
end

-- A strategy's own memory, and its members'.
local function each_memory(bound, visit)
  if bound.recent then
    visit(bound.recent)
  end
  for _, member in ipairs(type(bound.state) == "table" and bound.shipped and bound.state.members or {}) do
    each_memory(member, visit)
  end
end

--- The keys that a strategy and the members that it is made of have routed lately.
-- @tparam lunashard.strategy.bound bound
-- @treturn table list
function recent.of(bound)
  local list = {}
  each_memory(bound, function(memory)
    for _, key in ipairs(memory:keys()) do
      list[#list + 1] = key
    end
  end)
  return list
end

--- Let a strategy that takes the place of another go on with its memory, member by member.
-- @tparam lunashard.strategy.bound before
-- @tparam lunashard.strategy.bound after
function recent.carry(before, after)
  local memories, n = {}, 0
  each_memory(before, function(memory)
    memories[#memories + 1] = memory
  end)
  local function take(bound)
    if bound.recent then
      n = n + 1
      bound.recent = memories[n] or bound.recent
    end
    for _, member in ipairs(bound.shipped and bound.state.members or {}) do
      take(member)
    end
  end
  take(after)
end

--- Call a function without taking note of the keys that are routed meanwhile.
-- @tparam func fn
-- @return what it returns; at most three values
function recent.unnoticed(fn, ...)
  quiet = quiet + 1
  local ok, a, b, c = pcall(fn, ...)
  quiet = quiet - 1
  if not ok then
    error(a, 0)
  end
  return a, b, c
end

return recent
