--- The answers of several shards as one list of rows.
-- @module lunashard.router.gather

local aggregate = require("lunashard.aggregate")
local errors = require("lunashard.errors")
local reducing = require("lunashard.router.reducing")

local gather = {}

--- Can this value be called?
-- @param value anything
-- @treturn boolean
function gather.is_callable(value)
  if type(value) == "function" then
    return true
  end
  local meta = getmetatable(value)
  return type(meta) == "table" and meta.__call ~= nil
end

local function concatenate(results)
  local rows, n, first = {}, 0, nil
  for _, result in ipairs(results) do
    if result.success then
      first = first or result
      for _, row in ipairs(result.rows) do
        n = n + 1
        rows[n] = row
      end
    end
  end
  local affected = 0
  for _, result in ipairs(results) do
    affected = affected + (result.row_count or 0)
  end
  return {
    rows = rows,
    -- Writes have no rows, but a count of those that they touched.
    row_count = n > 0 and n or affected,
    columns = first and first.columns,
    column_types = first and first.column_types,
    command = first and first.command,
  }
end

local traced = errors.tracer("the aggregation function")

-- A row is a table of columns; a list of rows is a table of tables, or empty.
local function as_rows(func, value)
  local rows = type(value) == "table" and aggregate.rows(func, value)
  if not rows or (rows[1] ~= nil and type(rows[1]) ~= "table") or (rows[1] == value and value[1] ~= nil) then
    return nil, errors.new("PLUGIN_FAILED", {
      message = ("the aggregation function must return a row or a list of rows, it returned %s"):format(
        value == nil and "nothing" or type(value) == "table" and "a list of other things" or "a " .. type(value)),
    })
  end
  return { rows = rows, row_count = #rows }
end

--- Combine shard results.
-- @tparam {table,...} results in the shards' order, failed ones included
-- @tparam ?func|table func aggregation function or object; nil concatenates
-- @treturn[1] table with `rows` and `row_count`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `PLUGIN_FAILED`, or what the function returned
function gather.combine(results, func)
  if func == nil then
    return concatenate(results)
  end
  local ok, value, err
  if reducing.is_reducer(func) then
    ok, value, err = xpcall(reducing.finish, traced, func, results)
  else
    ok, value, err = xpcall(func, traced, results)
  end
  if not ok then
    return nil, value
  elseif value == nil and err ~= nil then
    return nil, errors.is(err) and err or traced(err)
  end
  return as_rows(func, value)
end

return gather
