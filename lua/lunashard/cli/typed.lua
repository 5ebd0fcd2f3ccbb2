--- Values and keys as they are typed on a command line.
-- @module lunashard.cli.typed

local values = require("lunashard.values")

local typed = {}

local EXACT = 2 ^ 53

--- Seconds, for an option's `convert`.
-- @string text
-- @treturn[1] number
-- @treturn[2] nil
-- @treturn[2] string what is wrong with it
function typed.seconds(text)
  local number = tonumber(text)
  if not number or number <= 0 or number ~= number or number == math.huge then
    return nil, ("%q is not a number of seconds"):format(text)
  end
  return number
end

--- A whole number that is not negative, for an option's `convert`.
-- @string text
-- @treturn[1] number
-- @treturn[2] nil
-- @treturn[2] string
function typed.count(text)
  local number = text:find("^%d+$") and tonumber(text)
  if not number or number > EXACT then
    return nil, ("%q is not a whole number"):format(text)
  end
  return number
end

--- A value: digits are a number, null is NULL, {1,2} is a list, anything else, or in single quotes, a text.
-- @string text
-- @return
function typed.value(text)
  local quoted, list = text:match("^'(.*)'$"), text:match("^{(.*)}$")
  if quoted then
    return (quoted:gsub("''", "'"))
  elseif list then
    local items = {}
    for item in list:gmatch("[^,]+") do
      items[#items + 1] = typed.value(item:match("^%s*(.-)%s*$"))
    end
    return items
  elseif text:lower() == "null" then
    return values.null
  end
  local number = text:match("^[+-]?%d+$") and tonumber(text)
  return number and math.abs(number) <= EXACT and number or text
end

--- Each of several values.
-- @tparam {string,...} texts
-- @treturn table
function typed.values(texts)
  local list = {}
  for i, text in ipairs(texts) do
    list[i] = typed.value(text)
  end
  return list
end

--- A key that is given as one value, or with one for each of its columns.
-- @tparam {string,...} texts
-- @return nil when there is none
function typed.key(texts)
  local keys = typed.values(texts)
  if #keys > 1 then
    return keys
  end
  return keys[1]
end

return typed
