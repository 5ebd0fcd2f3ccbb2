--- Folds: one value out of one column of many rows.
-- The parts of which the aggregates are made. A fold has `init() -> cell`,
-- `step(cell, row, types, shard_id)`, `merge(cell, other)`, `value(cell)` and `type(cell)`;
-- `step` and `merge` return true, or nil and an error. NULLs are skipped, and a fold over
-- nothing but NULLs is NULL, as in SQL.
-- @module lunashard.aggregate.fold

local decimal = require("lunashard.core.decimal")
local errors = require("lunashard.errors")
local options = require("lunashard.options")
local order = require("lunashard.order")
local sortkey = require("lunashard.order.sortkey")

local fold = {}

local EXACT = 2 ^ 53 -- whole doubles are exact up to here
local MIXED = "is float on one shard and exact on another: cast it to one type"

local function not_mergeable(column, shard_id, text)
  return nil, errors.new("NOT_MERGEABLE", {
    message = ("column %q: %s"):format(column, text),
    shard_id = shard_id,
  })
end

local function is_whole(value)
  return value == math.floor(value) and value - value == 0
end

-- SQL type of the column, checked once for each table of types.
local function type_of(cell, column, types, shard_id)
  if types == nil then
    return true, nil
  elseif cell.types ~= types then
    if types[column] == nil then
      return nil, order.no_column(column, types, shard_id)
    end
    cell.types = types
  end
  return true, types[column]
end

-- ---- sum ------------------------------------------------------------------

local Sum = {}
Sum.__index = Sum

--- The sum of a column; int and numeric exactly, float as the server adds it.
-- A column of integers gives a number, int64 cdata, or text when beyond int64; numeric gives text.
-- @string column
-- @treturn table fold
function fold.sum(column)
  return setmetatable({ column = column }, Sum)
end

-- `whole` holds the sum while it is exact in a double; `decimal` takes over what is not.
function Sum.init()
  return { whole = 0, seen = false }
end

local SUMMABLE = { integer = "exact", numeric = "exact", float = "float", untyped = "untyped" }

-- How a value is added: "exact", "float" or nil. Without a type its Lua value has to say.
local function mode_of(cell, family, value)
  local mode = SUMMABLE[family]
  if mode ~= "untyped" then
    return mode
  end
  return type(value) == "number" and (cell.mode == "float" or not is_whole(value)) and "float" or "exact"
end

-- Returns nil and an error when a text is no number.
local function add_exact(cell, value)
  if type(value) == "number" and math.abs(value) <= EXACT then
    local whole = cell.whole + value
    if math.abs(whole) < EXACT then -- 2^53 itself may be 2^53 + 1, rounded
      cell.whole = whole
      return true
    end
  end
  cell.decimal = cell.decimal or decimal.new()
  return cell.decimal:add(value)
end

local function switch_to_float(cell)
  if cell.decimal then
    cell.whole = cell.whole + tonumber(tostring(cell.decimal))
  end
  cell.mode, cell.float, cell.whole, cell.decimal = "float", cell.whole, 0, nil
end

local function add(cell, column, value, family, shard_id)
  local mode = mode_of(cell, family, value)
  if mode == nil then
    return not_mergeable(column, shard_id, ("cannot add values of type %s"):format(tostring(cell.types[column])))
  elseif cell.mode == nil then
    cell.mode, cell.float = mode, 0
  elseif cell.mode ~= mode then
    if family ~= "untyped" or cell.is_numeric then
      return not_mergeable(column, shard_id, MIXED)
    end
    switch_to_float(cell)
  end
  cell.seen, cell.untyped = true, family == "untyped"
  if mode == "float" then
    cell.float = cell.float + value
    return true
  end
  cell.is_numeric = cell.is_numeric or family == "numeric" or type(value) == "string"
  local ok, err = add_exact(cell, value)
  if not ok then
    return not_mergeable(column, shard_id, err.message)
  end
  return true
end

local ADDABLE = { number = true, string = true, cdata = true }

function Sum:step(cell, row, types, shard_id)
  local value = row[self.column]
  local ok, sql_type = type_of(cell, self.column, types, shard_id)
  if not ok then
    return nil, sql_type
  elseif value == nil then
    return true
  end
  local family = types == nil and "untyped" or sortkey.family(sql_type)
  local whole_only = family == "integer" or family == "numeric"
  if not ADDABLE[type(value)] or (family == "float" and type(value) ~= "number")
    or (whole_only and type(value) == "number" and not is_whole(value)) then
    return not_mergeable(self.column, shard_id, ("cannot add %s"):format(options.describe(value)))
  end
  return add(cell, self.column, value, family, shard_id)
end

function Sum:merge(cell, other)
  if not other.seen then
    return true
  elseif cell.mode ~= nil and cell.mode ~= other.mode then
    if not cell.untyped or not other.untyped or cell.is_numeric or other.is_numeric then
      return not_mergeable(self.column, nil, MIXED)
    end
    switch_to_float(cell.mode == "exact" and cell or other)
  end
  cell.mode, cell.seen, cell.untyped = other.mode, true, other.untyped
  if other.mode == "float" then
    cell.float = (cell.float or 0) + other.float
    return true
  end
  cell.is_numeric = cell.is_numeric or other.is_numeric
  add_exact(cell, other.whole)
  if other.decimal then
    add_exact(cell, other.decimal)
  end
  return true
end

-- The decimal holds everything from here on.
local function settled(cell)
  cell.decimal = cell.decimal or decimal.new()
  cell.decimal:add(cell.whole)
  cell.whole = 0
  return cell.decimal
end

function Sum.value(_, cell)
  if not cell.seen then
    return nil
  elseif cell.mode == "float" then
    return cell.float
  elseif cell.is_numeric then
    return tostring(settled(cell))
  end
  return cell.decimal and settled(cell):value() or cell.whole
end

function Sum.type(_, cell)
  return cell.mode == "float" and "float8" or "numeric"
end

-- ---- count ----------------------------------------------------------------

local Count = {}
Count.__index = Count

--- The total of the shards' counts: like a sum, but 0 where there is nothing.
-- @string column
-- @treturn table fold
function fold.count(column)
  return setmetatable({ sum = fold.sum(column), column = column }, Count)
end

Count.init = Sum.init

function Count:step(cell, row, types, shard_id)
  local ok, err = self.sum:step(cell, row, types, shard_id)
  if ok and cell.mode == "float" then
    return not_mergeable(self.column, shard_id, "a count is a whole number")
  end
  return ok, err
end

function Count:merge(cell, other)
  return self.sum:merge(cell, other)
end

function Count.value(_, cell)
  return cell.seen and settled(cell):value() or 0
end

function Count.type()
  return "numeric"
end

-- ---- avg ------------------------------------------------------------------

local Avg = {}
Avg.__index = Avg

--- The mean, from each shard's sum and count of non-NULL values.
-- @string sum the column that holds sum(x)
-- @string count the column that holds count(x)
-- @treturn table fold: text with the server's digits for int and numeric, a number for float
function fold.avg(sum, count)
  return setmetatable({ sum = fold.sum(sum), count = fold.count(count) }, Avg)
end

function Avg:init()
  return { sum = self.sum:init(), count = self.count:init() }
end

function Avg:step(cell, row, types, shard_id)
  local ok, err = self.sum:step(cell.sum, row, types, shard_id)
  if not ok then
    return nil, err
  end
  return self.count:step(cell.count, row, types, shard_id)
end

function Avg:merge(cell, other)
  local ok, err = self.sum:merge(cell.sum, other.sum)
  if not ok then
    return nil, err
  end
  return self.count:merge(cell.count, other.count)
end

function Avg:value(cell)
  local count = self.count:value(cell.count)
  if not cell.sum.seen or count == 0 then
    return nil
  elseif cell.sum.mode == "float" then
    return cell.sum.float / tonumber(count)
  end
  return settled(cell.sum):div(count)
end

function Avg:type(cell)
  return self.sum:type(cell.sum)
end

-- ---- min and max ----------------------------------------------------------

local Extreme = {}
Extreme.__index = Extreme

local function extreme(column, how, sign)
  return setmetatable({
    column = column,
    items = { { column = column, collate = how and how.collate, type = how and how.type } },
    sign = sign,
  }, Extreme)
end

--- The smallest value of a column, in the server's order.
-- @string column
-- @tparam[opt] table how `collate = "C"` for text, `type` when the results do not tell types
-- @treturn table fold
function fold.min(column, how)
  return extreme(column, how, -1)
end

--- The largest value of a column, in the server's order.
-- @string column
-- @tparam[opt] table how as for `min`
-- @treturn table fold
function fold.max(column, how)
  return extreme(column, how, 1)
end

function Extreme.init()
  return {}
end

function Extreme:bind(cell, types, shard_id)
  local bound, err = order.bind(self.items, types, shard_id)
  local ok = bound ~= nil
  if ok and cell.bound then
    ok, err = order.check_same(cell.bound, bound)
  end
  if not ok then
    return nil, err
  end
  cell.bound, cell.types = bound, types
  return true
end

function Extreme:consider(cell, value, key)
  if cell.key == nil or sortkey.compare(key, cell.key) == self.sign then
    cell.value, cell.key = value, key
  end
  return true
end

function Extreme:step(cell, row, types, shard_id)
  if cell.bound == nil or cell.types ~= types then
    local ok, err = self:bind(cell, types, shard_id)
    if not ok then
      return nil, err
    end
  end
  local value = row[self.column]
  if value == nil then
    return true
  end
  local keys, err = cell.bound:keys(row)
  if not keys then
    return nil, err
  end
  return self:consider(cell, value, keys[1])
end

function Extreme:merge(cell, other)
  if other.bound == nil then
    return true
  elseif cell.bound == nil then
    cell.bound, cell.types = other.bound, other.types
  else
    local ok, err = order.check_same(cell.bound, other.bound)
    if not ok then
      return nil, err
    end
  end
  return other.key == nil or self:consider(cell, other.value, other.key)
end

function Extreme.value(_, cell)
  return cell.value
end

function Extreme:type(cell)
  return cell.types and cell.types[self.column]
end

return fold
