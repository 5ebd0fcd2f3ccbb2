--- A program with an error in it: some of its files in another form, linked with all others as they are.
-- So there is nothing in the program itself by which anything can be switched off.
-- @module spec.mutations.mutant

local process = require("lunashard.process")

local mutant = {}

local OBJECTS = "build/release"

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  assert(file:close())
end

local function must(argv)
  local result = assert(process.run({ argv = argv, timeout = 300 }))
  if result.code ~= 0 then
    error(("%s: %s%s"):format(table.concat(argv, " "), result.stdout, result.stderr), 0)
  end
end

-- Where a text is in another one, and that it is there once.
local function place_of(text, wanted)
  local first, last = text:find(wanted, 1, true)
  if not first then
    return nil, "is not there"
  elseif text:find(wanted, first + 1, true) then
    return nil, "is there more than once"
  end
  return first, last
end

--- The files of a mutation in their other form.
-- @tparam table mutation `name`, `patches`: a list, each with `file`, `from` (there exactly once) and `to`
-- @treturn {[string]=string,...} path -> text
function mutant.texts(mutation)
  local texts = {}
  for _, patch in ipairs(mutation.patches) do
    local text = texts[patch.file] or read(patch.file)
    local first, last = place_of(text, patch.from)
    if not first then
      error(("mutation %s: %s: %s: %s"):format(mutation.name, patch.file, last, patch.from), 0)
    end
    texts[patch.file] = text:sub(1, first - 1) .. patch.to .. text:sub(last + 1)
  end
  return texts
end

-- Compile a changed file, in Lua or in C; the object in whose place its own goes.
local function compile(path, source)
  local layer, name = path:match("^src/(%w+)/([%w_]+)%.c$")
  if layer then
    must({ "make", "-s", "mutant-object", "LAYER=" .. layer, "SOURCE=" .. source, "OUT=" .. source .. ".o" })
    return ("%s/%s/%s.o"):format(OBJECTS, layer, name)
  end
  local module = assert(path:match("^lua/(.+)%.lua$"), path)
  must({ "luajit", "-b", "-g", "-t", "o", "-n", (module:gsub("/init$", ""):gsub("/", ".")), source, source .. ".o" })
  return ("%s/lua/%s.o"):format(OBJECTS, module)
end

--- Build it. Yields.
-- @tparam table mutation
-- @string folder
-- @treturn string the program's path
function mutant.build(mutation, folder)
  local without, with = {}, {}
  for path, text in pairs(mutant.texts(mutation)) do
    local source = ("%s/%s"):format(folder, path:gsub("/", "."))
    write(source, text)
    without[#without + 1] = compile(path, source)
    with[#with + 1] = source .. ".o"
  end
  local program = folder .. "/lunashard"
  must({ "make", "-s", "mutant", "WITHOUT=" .. table.concat(without, " "), "WITH=" .. table.concat(with, " "),
    "OUT=" .. program })
  return program
end

return mutant
