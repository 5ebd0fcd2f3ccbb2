--- Count: `count()` counts the rows that came, `count "count"` adds up the shards' counts.
-- Unlike a sum it is 0 where there is nothing.
-- @module lunashard.aggregates.count

local columns = require("lunashard.aggregate.columns")
local fold = require("lunashard.aggregate.fold")

-- Rows themselves, in a column called count.
local Rows = {}
Rows.__index = Rows

function Rows.init()
  return { n = 0 }
end

function Rows.step(_, cell)
  cell.n = cell.n + 1
  return true
end

function Rows.merge(_, cell, other)
  cell.n = cell.n + other.n
  return true
end

function Rows.value(_, cell)
  return cell.n
end

function Rows.type()
  return "numeric"
end

local adding = columns.simple_plugin("count", fold.count)

return columns.plugin("count", function(...)
  if select("#", ...) == 0 then
    return { { name = "count", fold = setmetatable({}, Rows) } }
  end
  local folds = adding.new(...)
  return folds
end)
