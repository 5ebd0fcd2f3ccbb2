--- Values as JSON, for commands, scripts and the HTTP server.
-- A table is a list when it has only whole numbers from 1 on as keys, or was marked as one: nothing else tells an empty list
-- from an empty object, and lua-cjson has no way to say it. Objects have their fields in alphabetical order.
-- @module lunashard.json_text
-- @local

local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local values = require("lunashard.values")

local json_text = {}

local List = {} -- metatable of tables that were marked

--- A list that is one also when it is empty.
-- @tparam ?table list an empty one by default
-- @treturn table the same
function json_text.list(list)
  return setmetatable(list or {}, List)
end

--- Mark fields of a table that are lists, where they are there.
-- @tparam table object
-- @string ... their names
-- @treturn table the same
function json_text.lists(object, ...)
  for _, name in ipairs({ ... }) do
    if object[name] ~= nil then
      json_text.list(object[name])
    end
  end
  return object
end

local function number_text(value)
  if value ~= value then
    return '"NaN"'
  elseif math.abs(value) == math.huge then
    return value > 0 and '"Infinity"' or '"-Infinity"'
  end
  local text = ("%.14g"):format(value)
  return tonumber(text) == value and text or ("%.17g"):format(value)
end

-- The last place of a list; nil for what is none. A few places may be empty.
local function length_of(value)
  local last, n = 0, 0
  for key in pairs(value) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then
      return nil
    end
    last, n = math.max(last, key), n + 1
  end
  return (n > 0 or getmetatable(value) == List) and last <= 2 * n and last or nil
end

local encode

local function list_text(value, last)
  local parts = {}
  for i = 1, last do
    parts[i] = encode(value[i])
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

local function object_text(value)
  local names, parts = {}, {}
  for name in pairs(value) do
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    return tostring(a) < tostring(b)
  end)
  for i, name in ipairs(names) do
    parts[i] = cjson.encode(tostring(name)) .. ":" .. encode(value[name])
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

function encode(value)
  local kind = type(value)
  if value == nil or value == values.null then
    return "null"
  elseif kind == "number" then
    return number_text(value)
  elseif kind == "cdata" then -- of 64 bits: a text, in which no reader loses digits
    return '"' .. tostring(value):gsub("U?LL$", "") .. '"'
  elseif kind ~= "table" then
    return assert(cjson.encode(value))
  elseif errors.is(value) then
    value = errors.to_table(value)
  end
  local last = length_of(value)
  return last and list_text(value, last) or object_text(value)
end

--- A value as JSON, on one line. Errors are told without what might be secret in them; numbers that JSON lacks are texts.
-- @param value without cycles
-- @treturn string
function json_text.encode(value)
  return encode(value)
end

return json_text
