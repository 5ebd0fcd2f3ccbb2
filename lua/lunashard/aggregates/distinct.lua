--- Every different row once: `distinct { "country" }` as SELECT DISTINCT country, `distinct()`
-- over all columns. Rows come in the order in which they were first seen.
-- @module lunashard.aggregates.distinct

local identity = require("lunashard.aggregate.identity")
local options = require("lunashard.options")

local plugin = { api = 1, kind = "aggregate", name = "distinct", returns = "rows" }

function plugin.new(columns)
  if type(columns) == "string" then
    columns = { columns }
  elseif columns ~= nil and type(columns) ~= "table" then
    error("distinct: expected column names, got " .. options.describe(columns), 3)
  end
  for _, column in ipairs(columns or {}) do
    if type(column) ~= "string" then
      error("distinct: expected a column name, got " .. options.describe(column), 3)
    end
  end
  return { columns = columns and columns[1] and columns }
end

function plugin.init(made)
  return { made = made, identity = made.columns and identity.new(made.columns), rows = {}, seen = {} }
end

-- All columns, in a fixed order. Without types only the fields of the row tell.
local function columns_of(row, types)
  local columns = {}
  for name in pairs(types or row) do
    columns[#columns + 1] = name
  end
  table.sort(columns)
  return columns
end

local function project(columns, row)
  local part = {}
  for _, column in ipairs(columns) do
    part[column] = row[column]
  end
  return part
end

function plugin.step(acc, row, shard_id, types)
  if acc.identity == nil and types ~= nil then
    acc.identity = identity.new(columns_of(row, types))
  end
  acc.types = acc.types or types
  local by = acc.identity or identity.new(columns_of(row))
  local text, err = by:of(row, types, shard_id)
  if text == nil then
    return nil, err
  elseif acc.identity == nil then
    text = table.concat(by.columns, "\0") .. "\0" .. text
  end
  if not acc.seen[text] then
    acc.seen[text] = true
    acc.rows[#acc.rows + 1] = { text = text, row = acc.made.columns and project(acc.made.columns, row) or row }
  end
  return acc
end

function plugin.merge(a, b)
  if a.identity and b.identity then
    local same, err = a.identity:merge(b.identity)
    if not same then
      return nil, err
    end
  end
  a.types, a.identity = a.types or b.types, a.identity or b.identity
  for _, kept in ipairs(b.rows) do
    if not a.seen[kept.text] then
      a.seen[kept.text] = true
      a.rows[#a.rows + 1] = kept
    end
  end
  return a
end

function plugin.finish(acc)
  local rows = {}
  for i, kept in ipairs(acc.rows) do
    rows[i] = kept.row
  end
  return rows
end

function plugin.types(acc)
  return acc.made.columns and acc.types and project(acc.made.columns, acc.types) or acc.types
end

return plugin
