--- Keys to try a strategy with: drawn by chance from a seed, at the edges of their type, and in all their spellings.
-- Equal seeds give equal keys, on every machine.
-- @module lunashard.plugin.samples

local core = require("lunashard.core.placement")
local ffi = require("ffi")

local samples = {}

local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")
local MODULUS, FACTOR = 2147483647, 16807 -- Lehmer's generator: its products are exact in a double
local EXACT = 9007199254740992 -- 2^53

--- A generator of whole numbers.
-- @int seed
-- @treturn func `random(n)` gives a number from 0 to n - 1, n at most 2^31 - 2
function samples.random(seed)
  local state = seed % (MODULUS - 1) + 1
  return function(n)
    state = state * FACTOR % MODULUS
    return state % n
  end
end

local LETTERS = "abcdefghijklmnopqrstuvwxyz"
local BEYOND_ASCII = { "ü", "ß", "é", "Ж", "猫", "😀", " ", "-", "_", "'", "%" }

local function word(random)
  local letters = {}
  for i = 1, random(10) + 1 do
    local at = random(26) + 1
    letters[i] = random(12) == 0 and BEYOND_ASCII[random(#BEYOND_ASCII) + 1] or LETTERS:sub(at, at)
  end
  return table.concat(letters)
end

-- Ids are mostly counted from 1, so every other sample is; the others are of all sizes.
local DRAW = {
  int8 = function(random, i)
    if i % 2 == 1 then
      return (i + 1) / 2
    end
    local high, low = random(2 ^ 30), random(2 ^ 23)
    if random(16) == 0 then
      local value = int64(high + 2 ^ 21) * 4294967296LL + low
      return random(2) == 0 and -value or value
    end
    local value = math.floor((high * 2 ^ 23 + low) / 2 ^ random(53))
    return random(4) == 0 and -value or value
  end,
  text = function(random, i)
    local kind = i % 6
    if kind == 0 then
      return ("%d"):format(random(2 ^ 30))
    elseif kind == 1 then
      return "key " .. i
    elseif kind == 2 then
      return word(random) .. "@" .. word(random) .. ".example"
    elseif kind == 3 then
      return word(random):upper()
    end
    return word(random)
  end,
  uuid = function(random)
    local parts = {}
    for part = 1, 8 do
      parts[part] = ("%04x"):format(random(65536))
    end
    return ("%s%s-%s-4%s-a%s-%s%s%s"):format(parts[1], parts[2], parts[3], parts[4]:sub(2), parts[5]:sub(2), parts[6],
      parts[7], parts[8])
  end,
  date = function(random, i)
    if i % 2 == 1 then
      local month = (i - 1) / 2
      return ("%04d-%02d-%02d"):format(2000 + math.floor(month / 12) % 60, month % 12 + 1, random(28) + 1)
    end
    return ("%04d-%02d-%02d"):format(1 + random(2500), random(12) + 1, random(28) + 1)
  end,
}

local EDGES = {
  int8 = { 0, 1, -1, 2, 7, 10, 42, 100, 255, 256, 999, 1000, 1001, 9999, 10000, 65535, 65536, 99999, 100000, 999999,
    1000000, 1000001, 2147483647, 2147483648, -2147483648, -2147483649, 4294967295, 4294967296, 9007199254740991,
    EXACT, 9007199254740993LL, -EXACT, -9007199254740993LL, 9223372036854775807LL, -9223372036854775807LL - 1LL },
  text = { "", " ", "0", "1", "42", "-1", "a", "A", "z", "acme", "NULL", "null", "true", "nan", "é", "😀", "a b",
    "a'b", "%", "\\", ("x"):rep(255), ("long "):rep(200) },
  uuid = { "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "00000000-0000-0000-0000-000000000001", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" },
  date = { "0001-01-01", "1899-12-31", "1969-12-31", "1970-01-01", "1999-12-31", "2000-01-01", "2000-02-29",
    "2024-02-29", "2038-01-19", "2038-01-20", "9999-12-31", "10000-01-01", "5874897-12-31" },
}

--- The types of a key's columns as a list; a number is an int8 key where no type is declared.
-- @tparam ?string|{string,...} key_type
-- @treturn {string,...}
function samples.types(key_type)
  return type(key_type) == "table" and key_type or { key_type or "int8" }
end

--- Keys drawn by chance.
-- @tparam ?string|{string,...} key_type
-- @int n how many
-- @int seed
-- @treturn table list
function samples.keys(key_type, n, seed)
  local random, types = samples.random(seed), samples.types(key_type)
  local keys = {}
  for i = 1, n do
    local key = {}
    for column, name in ipairs(types) do
      key[column] = DRAW[name](random, i)
    end
    keys[i] = #types > 1 and key or key[1]
  end
  return keys
end

--- Keys at the edges of their type: the least and the greatest, those where a representation ends, round numbers,
-- texts that look like something else.
-- @tparam ?string|{string,...} key_type
-- @treturn table list
function samples.edges(key_type)
  local types = samples.types(key_type)
  local keys = {}
  if #types == 1 then
    for i, key in ipairs(EDGES[types[1]]) do
      keys[i] = key
    end
    return keys
  end
  local typical = samples.keys(types, 1, 1)[1]
  for column, name in ipairs(types) do
    for _, edge in ipairs(EDGES[name]) do
      local key = {}
      for i, value in ipairs(typical) do
        key[i] = value
      end
      key[column] = edge
      keys[#keys + 1] = key
    end
  end
  return keys
end

local function digits(value)
  return type(value) == "cdata" and tostring(value):match("^-?%d+") or ("%.0f"):format(value)
end

local function forms_of_one(name, value)
  if name == "int8" then
    local canonical = core.canonical("int8", value)
    if canonical == nil then
      return { value }
    end
    local forms = { canonical, int64(canonical), digits(canonical) }
    forms[#forms + 1] = canonical >= 0 and uint64(canonical) or nil
    return forms
  elseif name == "uuid" then
    return { value, value:upper(), (value:gsub("-", "")) }
  end
  return { value }
end

--- All spellings of one key: 42, 42LL, "42" and 42ULL of an int8, upper case of a UUID.
-- @tparam ?string|{string,...} key_type
-- @param key of the type, as the functions here give it
-- @treturn table list, the plainest first
function samples.forms(key_type, key)
  local types = samples.types(key_type)
  if #types == 1 then
    return forms_of_one(types[1], key)
  end
  local per_column, most = {}, 1
  for column, name in ipairs(types) do
    per_column[column] = forms_of_one(name, key[column])
    most = math.max(most, #per_column[column])
  end
  local forms = {}
  for i = 1, most do
    forms[i] = {}
    for column, list in ipairs(per_column) do
      forms[i][column] = list[(i - 1) % #list + 1]
    end
  end
  return forms
end

local LONGEST = 60 -- bytes of a text in a message

--- A key as a message may show it, so that 42, 42LL and "42" look different.
-- @param key
-- @treturn string
function samples.describe(key)
  if type(key) == "table" then
    local parts = {}
    for i, value in ipairs(key) do
      parts[i] = samples.describe(value)
    end
    return "(" .. table.concat(parts, ", ") .. ")"
  elseif type(key) == "number" and key % 1 == 0 then
    return ("%.0f"):format(key)
  elseif type(key) == "string" then
    local text = #key > LONGEST and key:sub(1, LONGEST - 3) .. "..." or key
    return '"' .. text:gsub("%c", function(c)
      return ("\\%d"):format(c:byte())
    end) .. '"'
  end
  return tostring(key)
end

return samples
