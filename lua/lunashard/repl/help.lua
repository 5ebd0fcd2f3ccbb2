--- What a function does, from its comment: of ours those that are compiled in, of the user's those in its file.
-- @module lunashard.repl.help

local help = {}

local TYPES = { string = "string", number = "number", int = "integer", bool = "boolean", func = "function" }

-- `@tparam[opt] table opts words` and the like as a line for people.
local function tag_line(line)
  local tag, rest = line:match("^@(%S+)%s*(.*)$")
  local name, modifier = tag:match("^(%a+)(.*)$")
  local optional = modifier:find("opt", 1, true) and ", optional" or ""
  if name == "tparam" then
    local kind, parameter, words = rest:match("^(%S+)%s+(%S+)%s*(.*)$")
    kind = kind or rest
    optional = kind:find("^%?") and ", optional" or optional
    return ("  %s (%s%s)  %s"):format(parameter or "", kind:gsub("^%?", ""), optional, words or "")
  elseif name == "param" then
    local parameter, words = rest:match("^(%S+)%s*(.*)$")
    return ("  %s%s  %s"):format(parameter or rest, optional ~= "" and " (optional)" or "", words or "")
  elseif TYPES[name] then
    local parameter, words = rest:match("^(%S+)%s*(.*)$")
    return ("  %s (%s%s)  %s"):format(parameter or "", TYPES[name], optional, words or "")
  elseif name == "treturn" or name == "return" then
    return "  returns " .. rest
  end
end

-- `scatter.methods:scatter_gather(...)` is where it is written, not what it is called.
local function called(declaration)
  return (declaration:gsub("^[%w_]+%.methods:", ":"))
end

local function shown(declaration, comment)
  local lines = { called(declaration) }
  for line in (comment .. "\n"):gmatch("(.-)\n") do
    if not line:find("^@") then
      lines[#lines + 1] = "  " .. line
    else
      lines[#lines + 1] = tag_line(line)
    end
  end
  for i, line in ipairs(lines) do
    lines[i] = line:gsub("%s+$", "")
  end
  return table.concat(lines, "\n")
end

local function texts()
  return require("lunashard.repl.texts")
end

-- The comment above a line of a file.
local function from_file(path, number)
  local file = io.open(path, "r")
  if not file then
    return nil
  end
  local block, at = {}, 0
  for line in file:lines() do
    at = at + 1
    if at == number then
      file:close()
      return line:match("function%s*([%w_.:]*%b())") or line:match("^%s*(.-)%s*$"), table.concat(block, "\n")
    elseif line:find("^%s*%-%-") then
      block[#block + 1] = line:gsub("^%s*%-%-%-?%s?", "")
    else
      block = {}
    end
  end
  file:close()
end

-- A function of C, or one that was made by another, is found by where it is kept.
local function by_name(fn)
  for module, exported in pairs(package.loaded) do
    if type(module) == "string" and module:find("^lunashard") and type(exported) == "table" then
      for name, value in next, exported do
        local text = value == fn and texts()[module .. "." .. tostring(name)]
        if text then
          return text
        end
      end
    end
  end
end

local function split(text)
  return text:match("^([^\n]*)\n(.*)$")
end

local function of_function(fn)
  local info = debug.getinfo(fn, "S")
  local path = info.source:gsub("^@", "")
  local known = path:find("lua/lunashard/", 1, true) and texts()[path:match("lua/lunashard/.*") .. ":" .. info.linedefined]
    or by_name(fn)
  if known then
    return shown(split(known))
  elseif info.what ~= "C" and info.source:find("^@") then
    local declaration, comment = from_file(path, info.linedefined)
    if declaration then
      return shown(declaration, comment ~= "" and comment or "(no comment above it)") .. ("\n  %s:%d"):format(path,
        info.linedefined)
    end
  end
  return info.what == "C" and "a function in C without a comment"
    or ("a function of %s, line %d, without a comment"):format(info.short_src, info.linedefined)
end

local function first_sentence(text)
  local _, comment = split(text)
  local sentence = (comment:gsub("\n", " ") .. " "):match("^(.-%.)%s") or comment:match("^[^\n]*")
  return sentence
end

-- The functions of a module or of an object's class, one line each.
local function of_table(object)
  local meta = debug.getmetatable(object)
  local class = meta and type(rawget(meta, "__index")) == "table" and meta.__index or object
  local lines = {}
  for name, value in next, class do
    if type(name) == "string" and type(value) == "function" and not name:find("^__") then
      local info = debug.getinfo(value, "S")
      local key = (info.source:match("lua/lunashard/.*") or "") .. ":" .. info.linedefined
      local text = texts()[key]
      if text then
        lines[#lines + 1] = ("  %s\n      %s"):format(called(split(text):gsub("^%u%a+:", ":")), first_sentence(text))
      end
    end
  end
  table.sort(lines)
  return #lines > 0 and table.concat(lines, "\n") or "a table without documented functions"
end

--- What there is to say of a value.
-- @param what a function, a module, or an object such as `router`
-- @treturn string
function help.text(what)
  if type(what) == "function" then
    return of_function(what)
  elseif type(what) == "table" then
    return of_table(what)
  elseif what == nil then
    return "help(f) shows what a function does, help(router) the functions of an object; \\help lists the commands."
  end
  return "a " .. type(what)
end

return help
