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

-- A pattern as a text that it may match, without its anchors.
local function plain(pattern)
  return (pattern:gsub("^%^", ""):gsub("([^%%])%$$", "%1"):gsub("%%(%p)", "%1"))
end

local function day(text, days)
  local year, month, of_month = text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)$")
  if year and tonumber(year) > 1 then
    return os.date("!%Y-%m-%d", os.time({ year = year, month = month, day = of_month, hour = 12 }) + days * 86400)
  end
end

-- What keys of a type a value speaks of: a bound and its neighbours, a text and what begins or ends with it, a text's
-- length or a letter's code, the first day of a year or month and the one before.
local AROUND = {
  int8 = function(value)
    if type(value) == "number" and value % 1 == 0 then
      return { value, value - 1, value + 1 }
    end
    return { value }
  end,
  text = function(value)
    if type(value) == "string" then
      local text = plain(value)
      return { value, value .. "1", text, text .. "1", "a" .. text }
    elseif value % 1 ~= 0 or value < 0 then
      return {}
    end
    local list = { ("%.0f"):format(value) }
    if value >= 33 and value <= 126 then
      list[#list + 1] = string.char(value)
    end
    for length = math.max(value - 1, 1), value <= LONGEST and value + 1 or 0 do
      list[#list + 1] = ("x"):rep(length)
    end
    return list
  end,
  uuid = function(value)
    local digits = tostring(value):gsub("-", "")
    if #digits < 32 and digits:find("^%x+$") then
      return { digits .. ("0"):rep(32 - #digits), digits .. ("f"):rep(32 - #digits) }
    end
    return { value }
  end,
  date = function(value)
    local text = tostring(value)
    local first = text:find("^%d%d%d%d$") and text .. "-01-01" or text:find("^%d%d%d%d%-%d%d$") and text .. "-01" or text
    return { first, day(first, -1), day(first, 1) }
  end,
}

local MOST_FACTORS = 200
local LEAST_SCALE = 100

local function is_scale(value)
  if type(value) ~= "number" or value < LEAST_SCALE or value >= 2 ^ 53 then
    return false
  end
  local ten = math.floor(math.log10(value) + 0.5)
  return math.frexp(value) == 0.5 or 10 ^ ten == value
end

-- `math.floor(key / 1000000)` makes a tenant of a key: where 42 and 1000000 are named, 42000000 is meant, too.
local function scaled(values)
  local list = {}
  for _, scale in ipairs(values) do
    if is_scale(scale) then
      local factors = 0
      for _, value in ipairs(values) do
        if type(value) == "number" and value % 1 == 0 and math.abs(value * scale) < 2 ^ 53 and factors < MOST_FACTORS then
          factors = factors + 1
          list[#list + 1] = value * scale
        end
      end
    end
  end
  return list
end

--- Keys that a strategy names, as far as they can be keys of its type.
-- @tparam lunashard.strategy.bound bound
-- @tparam ?string|{string,...} key_type
-- @treturn table list
function telling.keys(bound, key_type)
  local types, keys, seen = samples.types(key_type), {}, {}
  local typical = samples.keys(types, 1, 1)[1]
  local values = telling.values(bound)
  for _, value in ipairs(scaled(values)) do
    values[#values + 1] = value
  end
  for _, value in ipairs(values) do
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
