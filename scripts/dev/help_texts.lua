--- Gathers the LDoc comments of functions for help(f) at the prompt: luajit scripts/dev/help_texts.lua FILES.. > OUT.lua.
-- Lua that returns a table: "file:line" of the function, as debug.getinfo tells it, or "module.name" for one that a comment
-- names with @function -> its declaration and the comment.

-- The comment's lines without their marks; nil when it is none, or only for the library itself.
local function text_of(block)
  local lines = {}
  for i, line in ipairs(block) do
    lines[i] = line:gsub("^%s*%-%-%-?%s?", "")
    if lines[i]:find("^@local") then
      return nil
    end
  end
  return table.concat(lines, "\n")
end

local function put(key, declaration, text)
  io.write(("  [%q] = %q,\n"):format(key, declaration .. "\n" .. text))
end

local function read(path)
  local module = path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
  local block, number = nil, 0
  for line in io.lines(path) do
    number = number + 1
    if line:find("^%s*%-%-%-") then
      block = { line }
    elseif block and line:find("^%s*%-%-") then
      block[#block + 1] = line
    elseif block then
      local text = text_of(block)
      local name = text and text:match("@function (%S+)")
      local declared = line:match("function%s+([%w_.:]*%b())") or line:match("([%w_.]+)%s*=%s*function")
      if name then
        put(module .. "." .. name, name, text)
      elseif text and declared then
        put(path .. ":" .. number, declared, text)
      end
      block = nil
    end
  end
end

io.write("return {\n")
for _, path in ipairs(arg) do
  read(path)
end
io.write("}\n")
