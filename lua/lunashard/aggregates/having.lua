--- The rows that a function accepts: `having(function(row) return row.total > 10 end)`.
-- @module lunashard.aggregates.having

local options = require("lunashard.options")

local plugin = { api = 1, kind = "aggregate", name = "having", returns = "rows" }

function plugin.new(accept)
  if type(accept) ~= "function" then
    error("having: expected a function of a row, got " .. options.describe(accept), 3)
  end
  return { accept = accept }
end

function plugin.init(made)
  return { accept = made.accept, rows = {} }
end

function plugin.step(acc, row, _, types)
  acc.types = acc.types or types
  if acc.accept(row) then
    acc.rows[#acc.rows + 1] = row
  end
  return acc
end

function plugin.merge(a, b)
  a.types = a.types or b.types
  for _, row in ipairs(b.rows) do
    a.rows[#a.rows + 1] = row
  end
  return a
end

function plugin.finish(acc)
  return acc.rows
end

function plugin.types(acc)
  return acc.types
end

return plugin
