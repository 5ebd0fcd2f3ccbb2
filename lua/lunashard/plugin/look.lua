--- A look at a plug-in's code without running it: which globals it reads and sets.
-- What LuaJIT compiled is looked at, so that comments, texts and locals of the same names do not mislead. It finds
-- honest mistakes before a key is routed; what it misses, the plug-in's environment refuses when it runs.
-- @module lunashard.plugin.look

local jit_util = require("jit.util")

local errors = require("lunashard.errors")

local look = {}

local REGISTERS = 256

-- Instructions are 8 bits of opcode, 8 of A, then 16 of D or 8 of C and 8 of B.
local function decode(instruction)
  local rest = math.floor(instruction / REGISTERS)
  local a, d = rest % REGISTERS, math.floor(rest / REGISTERS) % 65536
  return instruction % REGISTERS, a, d, d % REGISTERS, math.floor(d / REGISTERS)
end

-- Opcodes have other numbers in other versions of LuaJIT: they are read off a function whose code is known.
local READ, FIELD, SET
do
  local sample = assert(loadstring("local a = x.y; x = 1"))
  READ, FIELD, SET = decode(jit_util.funcbc(sample, 1)), decode(jit_util.funcbc(sample, 2)),
    decode(jit_util.funcbc(sample, 4))
end

local WHY = {
  ["math.random"] = "is random: a plug-in must answer the same whenever it is asked",
  ["math.randomseed"] = "is random: a plug-in must answer the same whenever it is asked",
  ["os.time"] = "asks the clock: a plug-in must answer the same whenever it is asked",
  ["os.clock"] = "asks the clock: a plug-in must answer the same whenever it is asked",
  ["os.date"] = "asks the clock: a plug-in must answer the same whenever it is asked",
  io = "reads and writes files: a plug-in has no I/O",
  os = "is the operating system: a plug-in has no I/O and no clock",
  print = "writes to stdout: a plug-in has no I/O",
  dofile = "runs a file: use require for a sibling file",
  loadfile = "reads a file: use require for a sibling file",
  load = "makes code from texts: a plug-in is what its file says",
  loadstring = "makes code from texts: a plug-in is what its file says",
  package = "is where modules are: use require for a sibling file",
  debug = "reaches into other code",
  getfenv = "reaches into other code",
  setfenv = "reaches into other code",
  ffi = "reaches outside of Lua",
  jit = "reaches outside of Lua",
  newproxy = "is not for plug-ins",
  collectgarbage = "is not for plug-ins",
  _G = "is the table of all globals, and a plug-in has none of its own",
}

-- A plug-in's environment may raise for what it does not have.
local function get(holder, name)
  local ok, value = pcall(function()
    return holder[name]
  end)
  return ok and value or nil
end

local function names_of(environment)
  local names = {}
  for name in pairs(environment) do
    if type(name) == "string" then
      names[name] = true
    end
  end
  return names
end

local function unknown(environment, name, holder)
  local whole = holder and holder .. "." .. name or name
  local why = WHY[whole] or (holder and WHY[holder])
  if why then
    return ("%s %s"):format(whole, why)
  end
  local library = holder and get(environment, holder) or environment
  local near = errors.nearest(name, names_of(library))
  return ("%s is not among what a plug-in may use%s"):format(whole,
    near and ("; did you mean %s?"):format(holder and holder .. "." .. near or near) or "")
end

local function add(found, fn, pc, message)
  found[#found + 1] = { line = jit_util.funcinfo(fn, pc).currentline, message = message }
end

-- `math.random` is two instructions, one after the other: math into a register, its field random.
local function field_after(fn, pc, register)
  local instruction = jit_util.funcbc(fn, pc + 1)
  if instruction then
    local op, _, _, c, b = decode(instruction)
    if op == FIELD and b == register then
      return jit_util.funck(fn, -c - 1)
    end
  end
end

local function read(found, environment, fn, pc, register, name)
  local value = get(environment, name)
  local field = field_after(fn, pc, register)
  if field ~= nil and (value == nil or type(value) == "table" and get(value, field) == nil) then
    add(found, fn, pc, unknown(environment, field, name))
  elseif value == nil then
    add(found, fn, pc, unknown(environment, name))
  end
end

local function visit(found, environment, fn)
  local pc = 1
  local instruction = jit_util.funcbc(fn, pc)
  while instruction do
    local op, a, d = decode(instruction)
    if op == READ then
      read(found, environment, fn, pc, a, jit_util.funck(fn, -d - 1))
    elseif op == SET then
      add(found, fn, pc, ("sets the global %s: make it local"):format(jit_util.funck(fn, -d - 1)))
    end
    pc = pc + 1
    instruction = jit_util.funcbc(fn, pc)
  end
  -- Functions within are among the constants.
  for i = 1, jit_util.funcinfo(fn).gcconsts do
    local constant = jit_util.funck(fn, -i)
    if type(constant) == "proto" then
      visit(found, environment, constant)
    end
  end
end

--- What a chunk and the functions in it do with globals that they should not.
-- @tparam function chunk
-- @tparam table environment what it would run in
-- @treturn {table,...} each with `line` and `message`, in the order of lines
function look.at(chunk, environment)
  local found = {}
  visit(found, environment, chunk)
  table.sort(found, function(a, b)
    if a.line ~= b.line then
      return a.line < b.line
    end
    return a.message < b.message
  end)
  return found
end

return look
