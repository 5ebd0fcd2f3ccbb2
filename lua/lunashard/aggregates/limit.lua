--- The first rows: `limit(10)`, `limit { n = 10, offset = 20 }`.
-- Rows come in the order of the shards; after `merge_sort` in a `chain`, in that order. Each
-- shard needs to send offset + n rows at the most, which `push_down.limit` says.
-- @module lunashard.aggregates.limit

local options = require("lunashard.options")

local MOST = 2 ^ 53 -- more would not be a LIMIT that the server takes

local plugin = { api = 1, kind = "aggregate", name = "limit", returns = "rows" }

function plugin.new(spec)
  local how = type(spec) == "number" and { n = spec } or spec
  how = options.check(how, { n = "count", offset = "count" }, "limit")
  if type(how.n) ~= "number" or how.n < 0 or how.n % 1 ~= 0 then
    error("limit: n must be a whole number, 0 or more", 3)
  end
  local offset = how.offset or 0
  if how.n > MOST - offset then
    error("limit: n and offset must not be beyond 2^53 together", 3)
  end
  return { n = how.n, offset = offset }
end

function plugin.push_down(made)
  return { limit = made.n + made.offset }
end

function plugin.init(made)
  return { made = made, rows = {} }
end

function plugin.step(acc, row, _, types)
  acc.types = acc.types or types
  if #acc.rows < acc.made.n + acc.made.offset then
    acc.rows[#acc.rows + 1] = row
  end
  return acc
end

function plugin.merge(a, b)
  for _, row in ipairs(b.rows) do
    plugin.step(a, row, nil, b.types)
  end
  return a
end

function plugin.finish(acc)
  local rows = {}
  for i = acc.made.offset + 1, #acc.rows do
    rows[#rows + 1] = acc.rows[i]
  end
  return rows
end

function plugin.types(acc)
  return acc.types
end

return plugin
