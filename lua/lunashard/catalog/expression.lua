--- The bucket of a row as an SQL expression, for strategies that PostgreSQL can compute.
-- An expression without sub-selects, so that it may stand in the WHEN clause of a trigger. Hash partitioning is
-- PostgreSQL's own, so its functions are asked; sums modulo 2^64 are done in numeric, which does not overflow.
-- @module lunashard.catalog.expression
-- @local

local sorted = require("lunashard.sorted")

local expression = {}

local SEED = "8816678312871386365"
local ADDEND = "5305509591434766563" -- of hash_combine64
local TWO_64, TWO_63 = "18446744073709551616", "9223372036854775808"
local MAX_HASHED = 3 -- columns: the expression grows threefold with each

-- By key type, how a column's value becomes what is hashed or compared.
local CAST = { int8 = "(%s)::int8", uuid = "(%s)::uuid", text = '(%s)::text COLLATE "C"', date = "(%s)::date" }
local HASH = {
  int8 = "hashint8extended(%s, " .. SEED .. ")",
  uuid = "uuid_hash_extended(%s, " .. SEED .. ")",
  text = "hashtextextended(%s, " .. SEED .. ")",
  date = "hashint8extended((%s - '2000-01-01'::date)::int8, " .. SEED .. ")",
}

--- A text as an SQL literal.
-- @string text
-- @treturn string
function expression.literal(text)
  local quoted = "'" .. text:gsub("'", "''") .. "'"
  return text:find("\\", 1, true) and "E" .. quoted:gsub("\\", "\\\\") or quoted
end

local literal = expression.literal

local function list_of(value)
  return type(value) == "table" and value or { value }
end

-- A sum in numeric as the int8 of the same bits.
local function signed(sum)
  return ("(mod(%s + %s + %s, %s) - %s)::int8"):format(sum, TWO_63, TWO_64, TWO_64, TWO_63)
end

-- The same for one column, as mod n in whole numbers: a trigger computes it for each row that is written. The sum is taken
-- in halves, so that nothing overflows.
local function hashed_one(key_type, column, n)
  local hash = HASH[key_type]:format(CAST[key_type]:format(column))
  local low = ("((%s & 4294967295) + 367372515)"):format(hash)
  local high = ("(((%s >> 32) & 4294967295) + 1235285213 + (%s >> 32))"):format(hash, low)
  return ("mod((%s & 4294967295) * %d + (%s & 4294967295), %d)::text"):format(high, 2 ^ 32 % n, low, n)
end

-- Row hash mod n, for keys of one or a few columns.
local function hashed(types, columns, n)
  if #columns > MAX_HASHED then
    return nil
  elseif #columns == 1 and HASH[types[1]] then
    return hashed_one(types[1], columns[1], n)
  end
  local row
  for i, key_type in ipairs(types) do
    if not HASH[key_type] then
      return nil
    end
    local one = HASH[key_type]:format(CAST[key_type]:format(columns[i]))
    if not row then
      row = signed(("%s::numeric + %s"):format(one, ADDEND))
    else
      row = ("(%s # %s)"):format(row, signed(("%s::numeric + %s + (%s << 54)::numeric + ((%s >> 7) & 144115188075855871)::numeric"
        ):format(one, ADDEND, row, row)))
    end
  end
  return ("mod(%s::numeric + (CASE WHEN %s < 0 THEN %s ELSE 0 END), %d)::int8::text"):format(row, row, TWO_64, n)
end

local function value_of(key_type, value)
  if key_type == "int8" then
    return type(value) == "cdata" and tostring(value):sub(1, -3) .. "::int8" or ("%.0f::int8"):format(value)
  elseif key_type == "date" then
    return literal(value) .. "::date"
  end
  return literal(value) .. '::text COLLATE "C"'
end

local BY_NAME = {}

function BY_NAME.range(bound, columns)
  local key_type = bound.key_type
  if not CAST[key_type] or key_type == "uuid" then
    return nil
  end
  local parts, column = {}, CAST[key_type]:format(columns[1])
  for _, one in ipairs(bound.state.list) do
    local tests = {}
    if one.low ~= nil then
      tests[#tests + 1] = ("%s >= %s"):format(column, value_of(key_type, one.low))
    end
    if one.high ~= nil then
      tests[#tests + 1] = ("%s %s %s"):format(column, one.high_exclusive and "<" or "<=", value_of(key_type, one.high))
    end
    if #tests == 0 then
      tests[1] = column .. " IS NOT NULL"
    end
    parts[#parts + 1] = ("WHEN %s THEN %s"):format(table.concat(tests, " AND "), literal(one.name))
  end
  return ("CASE %s END"):format(table.concat(parts, " "))
end

function BY_NAME.geographic(bound, columns)
  local state, types = bound.state, list_of(bound.key_type)
  local region, parts, otherwise = CAST.text:format(columns[1]), {}, "NULL"
  local names = sorted.keys(state.regions)
  for _, name in ipairs(names) do
    local map, bucket = state.maps[name], literal(name)
    if map then
      local inner = types[2] and columns[2] and hashed({ types[2] }, { columns[2] }, map:buckets())
      if not inner then
        return nil
      end
      bucket = ("%s || %s"):format(literal(name .. "/"), inner)
    end
    parts[#parts + 1] = ("WHEN %s = %s THEN %s"):format(region, literal(name), bucket)
    otherwise = name == state.default and bucket or otherwise
  end
  return ("CASE WHEN %s IS NULL THEN NULL %s ELSE %s END"):format(region, table.concat(parts, " "), otherwise)
end

--- The bucket of a row.
-- @tparam lunashard.strategy.bound bound
-- @tparam {string,...} columns of the shard key, in its order, as SQL: quoted names, `NEW."user_id"`, ...
-- @treturn ?string SQL that gives the bucket as a text, NULL for a row that has none; nil when SQL cannot tell
function expression.bucket(bound, columns)
  if bound.map then
    local types = list_of(bound.key_type)
    return #types == #columns and hashed(types, columns, bound.map:buckets()) or nil
  elseif bound.shipped and BY_NAME[bound.name] then
    return BY_NAME[bound.name](bound, columns)
  end
  return nil
end

return expression
