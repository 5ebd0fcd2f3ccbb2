--- What options of `lunashard rebalance` look like that are more than a word. Each gives the value, or nil and what is wrong.
-- @module lunashard.cli.rebalance.values

local values = {}

--- A policy: "pace:p95_ms=20,from=22" is { "pace", p95_ms = 20, from = 22 }.
-- @string text
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string
function values.policy(text)
  local name, rest = text:match("^([%a_][%w_]*):?(.*)$")
  if not name then
    return nil, ("%q: expected the name of a policy"):format(text)
  end
  local given = { name }
  for item in rest:gmatch("[^,]+") do
    local option, value = item:match("^%s*([%a_][%w_]*)%s*=%s*(.-)%s*$")
    if not option then
      return nil, ("%q: expected %s:OPTION=VALUE,..., got %q"):format(text, name, item)
    end
    if value == "true" or value == "false" then
      given[option] = value == "true"
    else
      given[option] = tonumber(value) or value
    end
  end
  return given
end

--- Percentages: "1,5,25,100".
-- @string text
-- @treturn[1] {number,...}
-- @treturn[2] nil
-- @treturn[2] string
function values.percentages(text)
  local list = {}
  for part in (text .. ","):gmatch("([^,]*),") do
    list[#list + 1] = tonumber(part)
    if not tonumber(part) then
      return nil, ("%q is no list of percentages such as 1,5,25,100"):format(text)
    end
  end
  return list
end

--- Limits: "p99_ms=250,lag_seconds=off".
-- @string text
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string
function values.gate(text)
  local gate = {}
  for item in text:gmatch("[^,]+") do
    local name, value = item:match("^%s*([%a_][%w_]*)%s*=%s*(.-)%s*$")
    if not name or not tonumber(value) and value ~= "off" then
      return nil, ("%q is no limit such as p99_ms=250 or lag_seconds=off"):format(item)
    end
    gate[name] = tonumber(value) or false
  end
  return gate
end

return values
