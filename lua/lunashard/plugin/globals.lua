--- Which globals a piece of code names, and where: read from its compiled form, so nothing is missed or guessed.
-- @module lunashard.plugin.globals

local bit = require("bit")
local util = require("jit.util")

local globals = {}

-- The numbers of the instructions differ between versions; this code has them all.
local READ, FIELD, WRITE
do
  local sample = loadstring("x = y.z")
  READ, FIELD, WRITE = bit.band(util.funcbc(sample, 1), 0xff), bit.band(util.funcbc(sample, 2), 0xff),
    bit.band(util.funcbc(sample, 3), 0xff)
end

-- `math.random` is two instructions, one right after the other: math into a register, and its field.
local function field_of(fn, pc, register)
  local instruction = util.funcbc(fn, pc + 1)
  if instruction and bit.band(instruction, 0xff) == FIELD and bit.rshift(instruction, 24) == register then
    return util.funck(fn, -bit.band(bit.rshift(instruction, 16), 0xff) - 1)
  end
end

local function collect(list, fn)
  for pc = 1, math.huge do
    local instruction = util.funcbc(fn, pc)
    if not instruction then
      break
    end
    local op = bit.band(instruction, 0xff)
    if op == READ or op == WRITE then
      list[#list + 1] = {
        name = util.funck(fn, -bit.rshift(instruction, 16) - 1),
        field = op == READ and field_of(fn, pc, bit.band(bit.rshift(instruction, 8), 0xff)) or nil,
        line = util.funcinfo(fn, pc).currentline,
        writes = op == WRITE,
      }
    end
  end
  for i = -1, -math.huge, -1 do
    local constant = util.funck(fn, i)
    if constant == nil then
      break
    elseif type(constant) == "proto" then
      collect(list, constant)
    end
  end
end

--- The globals that a function and those inside it name.
-- @tparam function fn
-- @treturn {table,...} each `name`, `line`, `writes`, and `field` where one is read at once (`random` of `math.random`); in
--   the order of lines
function globals.of(fn)
  local list = {}
  collect(list, fn)
  table.sort(list, function(a, b)
    return a.line < b.line or a.line == b.line and a.name < b.name
  end)
  return list
end

return globals
