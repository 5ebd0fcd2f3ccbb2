--- Sort keys and identities of SQL values.
-- A sort key is a Lua value whose order is the server's order for the column's type; an
-- identity is a string that is the same exactly for values that the server calls equal.
-- Values come as the text or number that a session of ours gives (ISO dates, UTF8). What
-- cannot be ordered faithfully on our side is refused with the reason, never guessed.
-- @module lunashard.order.sortkey

local sortkey = {}

local ALIASES = {
  bigint = "int8", int = "int4", integer = "int4", smallint = "int2",
  decimal = "numeric", real = "float4", ["double precision"] = "float8", boolean = "bool",
  ["character varying"] = "varchar", character = "bpchar",
  ["timestamp without time zone"] = "timestamp", ["timestamp with time zone"] = "timestamptz",
  ["time without time zone"] = "time",
}

local C_COLLATIONS = { C = true, POSIX = true, ucs_basic = true }

local function integer(value)
  local kind = type(value)
  return (kind == "number" or kind == "cdata") and value or nil
end

local function float(value)
  return type(value) == "number" and value or nil
end

local function bool(value)
  if type(value) ~= "boolean" then
    return nil
  end
  return value and 1 or 0
end

local function text(value)
  return type(value) == "string" and value or nil
end

-- Trailing blanks of char(n) do not count.
local function padded(value)
  return type(value) == "string" and value:match("^(.-) *$") or nil
end

local function lower(value)
  return type(value) == "string" and value:lower() or nil
end

-- int64 and whole numbers as digits; 1e15 and the like must not get an exponent.
local function digits_of(value)
  if type(value) == "number" then
    return value == math.floor(value) and math.abs(value) < math.huge and ("%.0f"):format(value) or nil
  elseif type(value) == "cdata" then
    return (tostring(value):gsub("U?LL$", ""))
  end
  return value
end

local NINES = { ["0"] = "9", ["1"] = "8", ["2"] = "7", ["3"] = "6", ["4"] = "5",
  ["5"] = "4", ["6"] = "3", ["7"] = "2", ["8"] = "1", ["9"] = "0" }
local NUMERIC_WORDS = { ["-Infinity"] = " ", Infinity = "}", NaN = "~" }

-- Sign, exponent, digits: bytewise order is numeric order, and 1.0 and 1.00 are one key.
-- A negative number counts its exponent and digits down, and ends in a mark above all digits.
local function numeric(value)
  value = digits_of(value)
  if type(value) ~= "string" then
    return nil
  end
  local sign, whole, places = value:match("^(-?)(%d*)%.?(%d*)$")
  if not whole or #whole + #places == 0 then
    return NUMERIC_WORDS[value]
  end
  whole = whole:match("^0*(%d*)$")
  local exponent = #whole
  if exponent == 0 then
    exponent = -#places:match("^0*")
  end
  local digits = (whole .. places):match("^0*(%d-)0*$")
  if digits == "" then
    return "0"
  elseif sign == "" then
    return ("1%07d%s"):format(1000000 + exponent, digits)
  end
  return ("-%07d%s~"):format(1000000 - exponent, (digits:gsub("%d", NINES)))
end

-- Days since 1970-01-01 of the proleptic Gregorian calendar; year 0 is 1 BC. Counted in
-- years that begin in March, so that the leap day comes last.
local function day_number(year, month, day, era)
  if era == " BC" then
    year = 1 - year
  end
  if month <= 2 then
    year = year - 1
  end
  local day_of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + day_of_year - 719468
end

local ENDS_OF_TIME = { ["-infinity"] = -math.huge, infinity = math.huge }

local function date(value)
  if type(value) ~= "string" then
    return nil
  end
  local year, month, day, era = value:match("^(%d+)-(%d%d)-(%d%d)( ?B?C?)$")
  if not year then
    return ENDS_OF_TIME[value]
  end
  return day_number(tonumber(year), tonumber(month), tonumber(day), era)
end

local DAY = 86400 * 1000000 -- microseconds

-- A day and microseconds do not fit a double together: fixed-width text instead.
local function instant(day, micros)
  day = day + math.floor(micros / DAY)
  return ("%010d%012d"):format(day + 3000000, micros % DAY)
end

local ENDS_OF_INSTANTS = { ["-infinity"] = "", infinity = "~" }
local MOMENT = "^(%d+)-(%d%d)-(%d%d) (%d%d):(%d%d):(%d%d)%.?(%d*)"

local function moment(value, zone)
  local year, month, day, hour, minute, second, fraction, rest = value:match(MOMENT .. zone)
  if not year then
    return nil
  end
  local micros = ((tonumber(hour) * 60 + tonumber(minute)) * 60 + tonumber(second)) * 1000000
    + tonumber((fraction .. "000000"):sub(1, 6))
  return tonumber(year), tonumber(month), tonumber(day), micros, rest
end

local function timestamp(value)
  if type(value) ~= "string" then
    return nil
  end
  local year, month, day, micros, era = moment(value, "( ?B?C?)$")
  if not year then
    return ENDS_OF_INSTANTS[value]
  end
  return instant(day_number(year, month, day, era), micros)
end

-- Sessions may print different offsets for one instant: all are brought to UTC.
local function timestamptz(value)
  if type(value) ~= "string" then
    return nil
  end
  local year, month, day, micros, rest = moment(value, "([+-].*)$")
  if not year then
    return ENDS_OF_INSTANTS[value]
  end
  local sign, hours, minutes, seconds, era = rest:match("^([+-])(%d%d):?(%d*):?(%d*)( ?B?C?)$")
  if not sign then
    return nil
  end
  local offset = (tonumber(hours) * 60 + (tonumber(minutes) or 0)) * 60 + (tonumber(seconds) or 0)
  micros = micros - (sign == "-" and -offset or offset) * 1000000
  return instant(day_number(year, month, day, era), micros)
end

-- type -> { family, key function, needs a bytewise collation to be ordered }. Columns of one
-- family can be compared with each other. Time of day, uuid and bytea order bytewise as they are.
local TYPES = {
  int2 = { "integer", integer }, int4 = { "integer", integer }, int8 = { "integer", integer },
  float4 = { "float", float }, float8 = { "float", float },
  numeric = { "numeric", numeric }, bool = { "bool", bool },
  text = { "text", text, true }, varchar = { "text", text, true }, bpchar = { "char", padded, true },
  name = { "text", text }, char = { "text", text }, uuid = { "uuid", lower }, bytea = { "bytea", text },
  date = { "date", date }, time = { "time", text },
  timestamp = { "timestamp", timestamp }, timestamptz = { "timestamptz", timestamptz },
}

-- Without a type the Lua value has to say what it is.
local function untyped(value)
  if type(value) == "boolean" then
    return value and 1 or 0
  end
  return type(value) ~= "table" and value or nil
end

local UNTYPED = { "untyped", untyped }

local function canonical(sql_type)
  local name = sql_type:lower():gsub("%s*%b()", "")
  return ALIASES[name] or name
end

local function kind_of(sql_type)
  if sql_type == nil then
    return UNTYPED
  end
  return TYPES[canonical(sql_type)]
end

--- Which types can be compared with each other: those of one family.
-- @tparam ?string sql_type
-- @treturn ?string nil when values of the type cannot be compared here
function sortkey.family(sql_type)
  local kind = kind_of(sql_type)
  return kind and kind[1]
end

--- A function from a value, not NULL, to its sort key.
-- The function gives nil for a value that is not of the type.
-- @tparam ?string sql_type as in `column_types`; nil lets the Lua values say
-- @tparam ?string collate `"C"` says that the server orders this text bytewise
-- @treturn[1] function
-- @treturn[2] nil
-- @treturn[2] string why the type cannot be ordered here, and what to do
function sortkey.ordering(sql_type, collate)
  local kind = kind_of(sql_type)
  if kind == nil then
    return nil, ("values of type %s cannot be ordered outside the server: cast the column to a type that can, "
      .. "such as numeric, timestamptz or text with collate \"C\""):format(sql_type)
  elseif collate ~= nil and not C_COLLATIONS[collate] then
    return nil, ("only the server knows the order of collation %q: use collate \"C\""):format(collate)
  end
  local by_bytes = collate ~= nil
  if kind[3] and not by_bytes then
    return nil, "only the server knows the order of its collation: order by the column COLLATE \"C\" in the "
      .. "statement, and give collate = \"C\" here"
  elseif kind == UNTYPED and not by_bytes then
    return function(value)
      return type(value) ~= "string" and untyped(value) or nil
    end
  end
  return kind[2]
end

local function identity_text(key)
  if type(key) == "string" then
    return ("s%d:%s"):format(#key, key)
  elseif key == 0 then
    return "n0;" -- -0 and 0 are one value
  elseif type(key) == "number" then
    return ("n%.17g;"):format(key)
  end
  return "n" .. tostring(key):gsub("U?LL$", "") .. ";"
end

--- A function from a value, not NULL, to a string that equal values share.
-- Strings of one row can be joined without becoming ambiguous. Text is compared byte by
-- byte, which is equality under every deterministic collation.
-- @tparam ?string sql_type as in `column_types`
-- @treturn[1] function gives nil for a value that is not of the type
-- @treturn[2] nil
-- @treturn[2] string why equality cannot be told here, and what to do
function sortkey.identity(sql_type)
  local kind = kind_of(sql_type)
  if kind == nil then
    return nil, ("equality of type %s cannot be told outside the server: cast the column to text"):format(sql_type)
  end
  local key_of = kind[2]
  return function(value)
    local key = key_of(value)
    return key ~= nil and identity_text(key) or nil
  end
end

--- Compare two sort keys of one family. NaN is above every number and equals itself.
-- @param a
-- @param b
-- @treturn number -1, 0 or 1
function sortkey.compare(a, b)
  if a == b then
    return 0
  elseif (type(a) == "string") ~= (type(b) == "string") then
    return type(a) == "string" and 1 or -1
  elseif a < b then
    return -1
  elseif a > b then
    return 1
  elseif a ~= a then
    return b ~= b and 0 or 1
  end
  return -1
end

return sortkey
