--- Reads the LDoc comments of a Lua file: what is documented, its parameters and what it returns.

local ldoc = {}

local TYPED = { string = "string", number = "number", int = "int", bool = "boolean", func = "function" }

-- `tag[modifier] rest` of a line, the rest put together with the lines that continue it.
local function tags_of(block)
  local text, tags = {}, {}
  local current
  for _, line in ipairs(block) do
    local name, modifier, rest = line:match("^@(%l+)(%b[])%s*(.*)$")
    if not name then
      name, rest = line:match("^@(%l+)%s*(.*)$")
    end
    if name then
      current = { name = name, modifier = (modifier or ""):sub(2, -2), text = rest }
      tags[#tags + 1] = current
    elseif current then
      current.text = current.text .. " " .. line:match("^%s*(.*)$")
    else
      text[#text + 1] = line
    end
  end
  return table.concat(text, "\n"), tags
end

-- `{string,...} name rest` and the like; a type has no blanks.
local function word(text)
  return text:match("^(%S+)%s*(.*)$")
end

local function param_of(tag)
  local type_name, rest = TYPED[tag.name], tag.text
  if tag.name == "tparam" then
    type_name, rest = word(rest)
  elseif tag.name == "param" then
    type_name = "any"
  end
  local name, text = word(rest or "")
  local is_optional = tag.modifier:find("opt", 1, true) ~= nil
  if type_name:sub(1, 1) == "?" then
    type_name, is_optional = type_name:sub(2), true
  end
  return { name = name, type = type_name, is_optional = is_optional, text = text or "" }
end

-- Ways in which a function may return, each a list of values.
local function add_return(ways, tag)
  local number = tonumber(tag.modifier:match("^%d+")) or 1
  ways[number] = ways[number] or {}
  local type_name, text = "any", tag.text
  if tag.name == "treturn" then
    type_name, text = word(tag.text)
  end
  table.insert(ways[number], { type = type_name:gsub(",$", ""), text = text or "" })
end

local function entry(block, holder, separator, name, arguments, line)
  local text, tags = tags_of(block)
  local made = { holder = holder, name = name, is_method = separator == ":", arguments = {}, text = text, params = {},
    returns = {}, line = line }
  for argument in (arguments or ""):gmatch("[%w_.]+") do
    table.insert(made.arguments, argument)
  end
  for _, tag in ipairs(tags) do
    if tag.name == "local" then
      made.is_internal = true
    elseif tag.name == "return" or tag.name == "treturn" then
      add_return(made.returns, tag)
    elseif TYPED[tag.name] or tag.name == "param" or tag.name == "tparam" then
      local param = param_of(tag)
      made.params[param.name] = param
      if not arguments then -- `values.bytea = core.bytea`: only the comment tells
        table.insert(made.arguments, param.name)
      end
    end
  end
  return made
end

--- All documented functions of a file, in its order.
-- @string path
-- @treturn {table,...} each `holder` ("Manager" of `function Manager:reload`), `name`, `is_method`, `arguments` (names as
--   the code has them), `text`, `params` (by name: `type`, `is_optional`, `text`), `returns` (a list of lists of `type`,
--   `text`), `is_internal` (marked with @local), `line`
function ldoc.functions(path)
  local found, block, number = {}, nil, 0
  for line in io.lines(path) do
    number = number + 1
    local first = line:match("^%-%-%-%s?([^%-].*)$")
    local more = line:match("^%-%-%s?(.*)$")
    if first then
      block = { first }
    elseif block and more then
      block[#block + 1] = more
    elseif block then
      local holder, separator, name, arguments = line:match("^function ([%w_.]-)([.:])([%w_]+)(%b())")
      if not holder and table.concat(block, "\n"):find("\n@function ") then
        holder, name = line:match("^([%w_]+)%.([%w_]+) = ")
      end
      if holder then
        found[#found + 1] = entry(block, holder, separator, name, arguments, number)
      end
      block = nil
    end
  end
  return found
end

return ldoc
