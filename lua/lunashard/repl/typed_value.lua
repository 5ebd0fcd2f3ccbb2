--- Keys and parameters as people type them.
-- @module lunashard.repl.typed_value

local values = require("lunashard.values")

local typed_value = {}

local EXACT = 2 ^ 53

--- A value as it is typed: digits are a number, null is NULL, {1,2} is a list, anything else, or in single quotes, a text.
-- Digits beyond what a number holds exactly stay a text, so that none is lost.
-- @string text
-- @return a number, a text, a list or `lunashard.null`
function typed_value.parse(text)
  local quoted, list = text:match("^'(.*)'$"), text:match("^{(.*)}$")
  if quoted then
    return (quoted:gsub("''", "'"))
  elseif list then
    local items = {}
    for item in list:gmatch("[^,]+") do
      items[#items + 1] = typed_value.parse(item:match("^%s*(.-)%s*$"))
    end
    return items
  elseif text:lower() == "null" then
    return values.null
  end
  local number = text:match("^[+-]?%d+$") and tonumber(text)
  return number and math.abs(number) <= EXACT and number or text
end

return typed_value
