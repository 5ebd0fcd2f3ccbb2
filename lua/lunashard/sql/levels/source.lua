--- Constants and parameters as values of a shard key.
-- What counts is that the server would see the very value that is routed by: a cast or an expression that may change
-- it makes it none.
-- @module lunashard.sql.levels.source

local core = require("lunashard.core.placement")

local source = {}

local FAMILIES = {
  int2 = "int", int4 = "int", int8 = "int", text = "text", varchar = "text", uuid = "uuid", date = "date",
}
-- By the type of the key: what the last cast may be to, beside those to text before it.
local LAST = { int8 = "int", text = "text", uuid = "uuid", date = "date" }

--- What a type's values are to a key.
-- @tparam table type_name of the parse tree
-- @tparam ?boolean is_array
-- @treturn ?string nil when a cast to it may change a value
function source.family(type_name, is_array)
  local names = type_name.names
  local schema = names[2] and names[#names - 1].String.sval
  if type_name.typmods or type_name.setof or type_name.pct_type or #names > 2
    or schema and schema ~= "pg_catalog" or (type_name.arrayBounds ~= nil) ~= (is_array or false) then
    return nil
  end
  return FAMILIES[names[#names].String.sval]
end

-- The tree has no value of an integer that is not above 0.
local function integer_at(sql, location)
  local sign, digits = sql:match("^(%-?)%s*(%d+)", location + 1)
  if not digits or sign == "" and digits:find("[^0]") then
    return nil -- such as -(5), or - /* */ 5
  end
  return tonumber(sign .. digits)
end

local function constant(const, sql)
  if const.isnull then
    return { null = true, id = "null" }
  elseif const.ival then
    local value = const.ival.ival or integer_at(sql, const.location or 0)
    return value and { value = value, id = "i" .. ("%d"):format(value) }
  elseif const.fval then
    local digits = const.fval.fval
    return digits:find("^%-?%d+$") and { value = digits, id = "i" .. digits } or nil
  elseif const.sval then
    local text = const.sval.sval or ""
    return { value = text, id = "s" .. text }
  end
end

--- Read an expression.
-- @tparam table node of the parse tree
-- @string sql the text that it is of
-- @treturn ?table `param` (a number), `value` (a number or string) or `null = true`; `casts`, a list of families,
--   innermost first; `id`, equal for equal ones
function source.read(node, sql)
  local casts
  while node.TypeCast do
    local name = source.family(node.TypeCast.typeName)
    if not name then
      return nil
    end
    casts = casts or {}
    table.insert(casts, 1, name)
    node = node.TypeCast.arg
  end
  local read
  if node.ParamRef and node.ParamRef.number then
    read = { param = node.ParamRef.number, id = "p" .. node.ParamRef.number }
  elseif node.A_Const then
    read = constant(node.A_Const, sql)
  end
  if read then
    read.casts = casts
  end
  return read
end

-- Does a chain of casts leave a value of this type what it is?
local function casts_fit(casts, key_type)
  local last = LAST[key_type]
  for i, family in ipairs(casts) do
    if family ~= last and (family ~= "text" or i == #casts) then
      return false
    end
  end
  return true
end

--- Does a text read as an integer? Then it may be a value of int8 as well as one of text.
-- @string text
-- @treturn boolean
function source.looks_like_integer(text)
  return text:find("^%s*[+-]?%d+%s*$") ~= nil
end

-- Without a declared type the cast tells, or the form.
local function untyped(read)
  local first = read.casts and read.casts[1]
  if not first then
    return "any"
  end
  for _, family in ipairs(read.casts) do
    if family ~= first then
      return nil
    end
  end
  return first == "int" and "int8" or first == "text" and "text" or nil
end

--- A source as a key of a type.
-- @tparam table read what `read` gave
-- @string key_type `any` when none is declared
-- @treturn[1] table `param` or `value` (canonical), `as` (the type, where the key's own is not declared), `id`
-- @treturn[2] nil
-- @treturn[2] string why it is none
function source.as_key(read, key_type)
  if read.null then
    return nil, "it is compared with NULL"
  end
  local as = key_type
  if key_type == "any" then
    as = untyped(read)
    if not as then
      return nil, "the type of the key is not declared"
    end
  elseif read.casts and not casts_fit(read.casts, key_type) then
    return nil, ("a cast to %s may change the value"):format(read.casts[#read.casts])
  end
  local told = key_type == "any" and as ~= "any" and as or nil
  if read.param then
    return { param = read.param, as = told, id = "p" .. read.param }
  end
  local value = read.value
  if as == "any" and type(value) == "string" and source.looks_like_integer(value) and read.id:sub(1, 1) == "s" then
    return nil, ("declare the type of the key: %q may be a number or a text"):format(value)
  elseif as == "any" then
    as = read.id:sub(1, 1) == "s" and "text" or "int8"
  elseif as == "text" and type(value) == "number" then
    value = ("%d"):format(value)
  end
  local canonical, err = core.canonical(as, value)
  if canonical == nil then
    return nil, (err.message:gsub("^routing key ", "the value "))
  end
  return { value = canonical, as = told, id = "v" .. as .. ":" .. tostring(canonical) }
end

return source
