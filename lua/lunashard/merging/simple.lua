--- Aggregates over all rows that need no server to be put together: those of integers and decimals.
-- @module lunashard.merging.simple

local fold = require("lunashard.aggregate.fold")
local order = require("lunashard.order")

local simple = {}

local FOLDS = {
  count = fold.count, sum = fold.sum, min = fold.min, max = fold.max,
  avg = function(column, count)
    return fold.avg(column, count)
  end,
}

local EXACT = { int2 = true, int4 = true, int8 = true, numeric = true }

local TYPES = { count = "int8", avg = "numeric" }

local function column(i)
  return "c" .. i
end

-- Can all of them be added up here?
local function is_exact(list, types)
  for _, one in ipairs(list) do
    if not FOLDS[one.kind] or not EXACT[types[one.part]] then
      return false
    end
  end
  return true
end

-- nil when it is better left to the server.
local function fold_one(one, results)
  local made = FOLDS[one.kind](column(one.part), one.kind == "avg" and column(one.count) or nil)
  local cell = made:init()
  for _, result in ipairs(results) do
    local types = order.types(result)
    for _, row in ipairs(result.rows) do
      if not made:step(cell, row, types, result.shard_id) then
        return nil, true
      end
    end
  end
  return made:value(cell)
end

--- Put the parts together.
-- @tparam {table,...} list `{ name =, kind =, part =, count = }`, one for each column of the result
-- @tparam {table,...} results of the shards, of one row each
-- @treturn ?table `rows`, `columns`, `column_types`, `command`; nil when a server has to do it
function simple.row(list, results)
  for _, result in ipairs(results) do
    if not is_exact(list, result.column_types) then
      return nil
    end
  end
  local row, columns, column_types = {}, {}, {}
  for i, one in ipairs(list) do
    local value, failed = fold_one(one, results)
    local sql_type = TYPES[one.kind] or results[1].column_types[one.part]
    if failed or sql_type ~= "numeric" and type(value) == "string" then -- out of the type's range
      return nil
    end
    row[one.name], columns[i], column_types[i] = value, one.name, sql_type
  end
  return { rows = { row }, columns = columns, column_types = column_types, command = results[1].command }
end

return simple
