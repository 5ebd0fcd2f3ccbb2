--- Keys that a strategy itself names: in its options, its state, its tables, and the constants of its code.
-- `TIERS = { acme = "shard2" }` and `key < 1000000` say where placement changes; no sample of keys would find that.
-- @module lunashard.plugin.telling

local bit = require("bit")

local core = require("lunashard.core.placement")
local samples = require("lunashard.plugin.samples")
local jit_util = require("jit.util")

local telling = {}

local MOST_VALUES = 4096 -- of all that is found; what comes first is nearest to the keys
local MOST_NODES = 20000
local LONGEST = 256
local MOST_CONSTANTS = 65536
local MOST_UPVALUES = 60

local OWN_SOURCES = debug.getinfo(1, "S").source:match("^(.*)plugin/telling%.lua$")

local Search = {}
Search.__index = Search

function Search:value(value)
  local kind = type(value)
  if kind == "number" or kind == "string" and #value <= LONGEST then
    if not self.found[value] and self.n < MOST_VALUES and value == value then
      self.n = self.n + 1
      self.found[value], self.list[self.n] = true, value
    end
  elseif (kind == "table" or kind == "function") and not self.seen[value] and #self.queue < MOST_NODES then
    self.seen[value] = true
    self.queue[#self.queue + 1] = value
  elseif kind == "cdata" then
    self:value(tostring(value):match("^(%-?%d+)U?LL$"))
  end
end

-- The instruction that loads a small number has it in itself; which one that is, this function tells.
local function small_number()
  return 12321
end
local LOAD_SMALL = bit.band(jit_util.funcbc(small_number, 1), 0xff)

-- Of a function or a prototype: numbers, texts, tables to copy, and inner prototypes.
function Search:constants(fn)
  for at = 1, MOST_CONSTANTS do
    local instruction = jit_util.funcbc(fn, at)
    if not instruction then
      break
    elseif bit.band(instruction, 0xff) == LOAD_SMALL then
      self:value(bit.arshift(instruction, 16))
    end
  end
  for _, step in ipairs({ -1, 1 }) do -- objects have indexes below zero
    local at = step < 0 and -1 or 0
    local constant = jit_util.funck(fn, at)
    while constant ~= nil and math.abs(at) <= MOST_CONSTANTS do
      if type(constant) == "proto" then
        self:constants(constant)
      else
        self:value(constant)
      end
      at = at + step
      constant = jit_util.funck(fn, at)
    end
  end
end

-- Ours say nothing of a user's keys. One in C may hold one in Lua: so do those that are called within limits.
function Search:fn(fn)
  local source = jit_util.funcinfo(fn).source
  if source and source:sub(1, #OWN_SOURCES) == OWN_SOURCES then
    return
  elseif source then
    self:constants(fn)
  end
  for i = 1, MOST_UPVALUES do
    local name, value = debug.getupvalue(fn, i)
    if name == nil then
      return
    end
    self:value(value)
  end
end

function Search:run()
  local at = 1
  while self.queue[at] do
    local node = self.queue[at]
    at = at + 1
    if type(node) == "function" then
      self:fn(node)
    else
      local entries = 0
      for key, value in next, node do
        entries = entries + 1
        if entries > MOST_NODES then
          break
        end
        self:value(key)
        self:value(value)
      end
    end
  end
  return self.list
end

--- Numbers and texts that a strategy names.
-- @tparam lunashard.strategy.bound bound
-- @treturn {number|string,...}
function telling.values(bound)
  local search = setmetatable({ found = {}, list = {}, n = 0, seen = {}, queue = {} }, Search)
  search:value(bound.spec.options)
  search:value(bound.state)
  local functions = {}
  for _, value in pairs(bound.plugin) do
    if type(value) == "function" then
      functions[#functions + 1] = value
    else
      search:value(value)
    end
  end
  for _, fn in ipairs(functions) do
    search:value(fn)
  end
  return search:run()
end

-- What keys of a type a value speaks of: a bound itself and its neighbours, a text and what begins with it.
local AROUND = {
  int8 = function(value)
    if type(value) == "number" and value % 1 == 0 then
      return { value, value - 1, value + 1 }
    end
    return { value }
  end,
  text = function(value)
    if type(value) == "number" then
      return value % 1 == 0 and { ("%.0f"):format(value) } or {}
    end
    local plain = value:gsub("^%^", ""):gsub("%$$", "") -- of a pattern
    return { value, value .. "1", plain ~= value and plain or nil, plain ~= value and plain .. "1" or nil }
  end,
  uuid = function(value)
    return { value }
  end,
  date = function(value)
    return { value }
  end,
}

--- Keys that a strategy names, as far as they can be keys of its type.
-- @tparam lunashard.strategy.bound bound
-- @tparam ?string|{string,...} key_type
-- @treturn table list
function telling.keys(bound, key_type)
  local types, keys, seen = samples.types(key_type), {}, {}
  local typical = samples.keys(types, 1, 1)[1]
  for _, value in ipairs(telling.values(bound)) do
    for column, name in ipairs(types) do
      for _, around in pairs(AROUND[name](value)) do
        local canonical = core.canonical(name, around)
        local index = name .. column .. tostring(canonical)
        if canonical ~= nil and not seen[index] then
          seen[index] = true
          local key = canonical
          if #types > 1 then
            key = { unpack(typical) }
            key[column] = canonical
          end
          keys[#keys + 1] = key
        end
      end
    end
  end
  return keys
end

return telling
