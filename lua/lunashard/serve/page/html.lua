--- Pieces of HTML that are safe by construction: a text is escaped wherever it is put in, and only what this module
-- made is taken as it is.
-- @module lunashard.serve.page.html

local html = {}

local Fragment = {}
Fragment.__index = Fragment

function Fragment:__tostring()
  return self.text
end

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

--- Make a text show as what it is, between tags and in quoted attributes. Control characters become visible.
-- @string text
-- @treturn string
function html.escape(text)
  text = text:gsub("[&<>\"']", ENTITIES)
  return (text:gsub("%c", function(char)
    return char == "\n" and " " or ("\\x%02x"):format(char:byte())
  end))
end

--- Take a text of our own as HTML.
-- @string text
-- @treturn Fragment
function html.raw(text)
  return setmetatable({ text = text }, Fragment)
end

local function piece(value)
  if value == nil then
    return ""
  elseif getmetatable(value) == Fragment then
    return value.text
  elseif type(value) == "table" then
    local parts = {}
    for i, one in ipairs(value) do
      parts[i] = piece(one)
    end
    return table.concat(parts)
  end
  return html.escape(tostring(value))
end

--- Fill in a template.
-- @string template HTML with `%s` for each value
-- @param ... fragments, which are put in as they are; lists of them; nil, which is nothing; anything else is escaped
-- @treturn Fragment
function html.fill(template, ...)
  local values, i = { ... }, 0
  return html.raw((template:gsub("%%s", function()
    i = i + 1
    return piece(values[i])
  end)))
end

--- Put pieces in a row.
-- @tparam table list see `fill`
-- @treturn Fragment
function html.join(list)
  return html.raw(piece(list))
end

return html
