--- Templates of options: each name with the type, range and default of its value, and tables checked along them.
-- A field has `type` (and `or_type`), `required`, `default`; of numbers `min`, `max`, `above`, `integer`; of texts `one_of`,
-- `nonempty`, `secret`; or it is `list_of` or `map_of` a template, a `list_of_strings`, or a table with `fields`.
-- @module lunashard.config.template

local errors = require("lunashard.errors")
local options = require("lunashard.options")

local template = {}

local function expectation(field)
  if field.integer and field.min and field.max then
    return ("an integer from %d to %d"):format(field.min, field.max)
  elseif field.integer then
    return ("an integer, %d or more"):format(field.min)
  elseif field.above then
    return ("a number above %g"):format(field.above)
  elseif field.min then
    return ("a number, %g or more"):format(field.min)
  elseif field.one_of then
    return "one of " .. table.concat(field.one_of, ", ")
  elseif field.nonempty then
    return "a string that is not empty"
  end
  local name = field.or_type and field.type .. " or " .. field.or_type or field.type
  return "a " .. name
end

local function is_member(list, value)
  for _, member in ipairs(list) do
    if member == value then
      return true
    end
  end
  return false
end

--- Is a value what a field takes, as far as that can be said of one value?
-- @tparam table field
-- @param value
-- @treturn boolean
function template.fits(field, value)
  local kind = type(value)
  if field.type == "any" then
    return true
  elseif kind ~= field.type and kind ~= field.or_type then
    return false
  elseif kind == "number" then
    -- NaN fails the first comparison, an endless value the second.
    return value == value and value < math.huge
      and not (field.integer and value % 1 ~= 0)
      and not (field.above and value <= field.above)
      and not (field.min and value < field.min)
      and not (field.max and value > field.max)
  elseif kind == "string" then
    return not (field.nonempty and value == "")
      and not (field.one_of and not is_member(field.one_of, value))
  end
  return true
end

--- What is wrong with a value that does not fit; one that is secret is not named.
-- @string path
-- @tparam table field
-- @param value
-- @treturn string
function template.mismatch(path, field, value)
  local got = field.secret and "a " .. type(value) or options.describe(value)
  local suggestion = ""
  if field.one_of and type(value) == "string" then
    local near = errors.nearest(value, field.one_of)
    suggestion = near and (" (did you mean %q?)"):format(near) or ""
  end
  return ("%s: expected %s, got %s%s"):format(path, expectation(field), got, suggestion)
end

local check

local function check_list(item_template, value, path)
  if type(value) ~= "table" then
    return nil, ("%s: expected a list of tables, got %s"):format(path, options.describe(value))
  end
  local list, n = {}, #value
  for key in pairs(value) do
    if type(key) ~= "number" or key < 1 or key > n or key % 1 ~= 0 then
      return nil, ("%s: expected a list, got the key %s"):format(path, options.describe(key))
    end
  end
  for i = 1, n do
    local item, message = check(item_template, value[i], ("%s[%d]"):format(path, i))
    if not item then
      return nil, message
    end
    list[i] = item
  end
  return list
end

local function check_map(item_template, value, path)
  if type(value) ~= "table" then
    return nil, ("%s: expected a table of tables, got %s"):format(path, options.describe(value))
  end
  local map = {}
  for name, given in pairs(value) do
    if type(name) ~= "string" then
      return nil, ("%s: expected names as keys, got %s"):format(path, options.describe(name))
    end
    local item, message = check(item_template, given, path .. "." .. name)
    if not item then
      return nil, message
    end
    map[name] = item
  end
  return map
end

local function check_strings(value, path)
  if type(value) ~= "table" then
    return nil, ("%s: expected a list of strings, got %s"):format(path, options.describe(value))
  end
  local list = {}
  for i, item in ipairs(value) do
    if type(item) ~= "string" then
      return nil, ("%s[%d]: expected a string, got %s"):format(path, i, options.describe(item))
    end
    list[i] = item
  end
  return list
end

local function check_value(field, value, path)
  if field.list_of then
    return check_list(field.list_of, value, path)
  elseif field.map_of then
    return check_map(field.map_of, value, path)
  elseif field.list_of_strings then
    return check_strings(value, path)
  elseif not template.fits(field, value) then
    return nil, template.mismatch(path, field, value)
  elseif field.fields and type(value) == "table" then
    return check(field.fields, value, path)
  end
  return value
end

--- Walk a table along its template.
-- @function template.check
-- @tparam table fields name -> field
-- @param given
-- @string path of the table, for messages; empty for the configuration itself
-- @treturn[1] table a new one, with defaults
-- @treturn[2] nil
-- @treturn[2] string what is wrong, and where
function check(fields, given, path)
  if type(given) ~= "table" then
    return nil, ("%s: expected a table, got %s"):format(path, options.describe(given))
  end
  local prefix = path == "" and "" or path .. "."
  for name in pairs(given) do
    if fields[name] == nil then
      local message = errors.unknown_option(path == "" and "the configuration" or path, name, fields)
      return nil, message
    end
  end
  local checked = {}
  for name, field in pairs(fields) do
    local value = given[name]
    if value == nil then
      if field.required then
        return nil, ("%s%s: missing; expected %s"):format(prefix, name, expectation(field))
      end
      checked[name] = field.default
    else
      local message
      checked[name], message = check_value(field, value, prefix .. name)
      if message then
        return nil, message
      end
    end
  end
  return checked
end

template.check = check

return template
