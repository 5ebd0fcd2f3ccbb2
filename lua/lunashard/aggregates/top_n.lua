--- The first n rows of an order: `top_n { n = 10, by = "total desc" }`.
-- Shards may send their rows in any order; about 2n rows are held. A row must be complete on
-- its shard: groups that span shards are put together first, `chain { group_by {...}, top_n {...} }`.
-- Nothing is pushed down by itself; put ORDER BY and LIMIT n into the statement to send less.
-- @module lunashard.aggregates.top_n

local options = require("lunashard.options")
local order = require("lunashard.order")

local plugin = { api = 1, kind = "aggregate", name = "top_n", returns = "rows" }

function plugin.new(spec)
  local how = options.check(spec, { n = "count", by = "any", collate = "string" }, "top_n")
  if how.n == nil or how.by == nil then
    error('top_n: needs n and by, as in top_n { n = 10, by = "total desc" }', 3)
  end
  return { n = how.n, items = order.parse(how.by, how.collate, 3) }
end

function plugin.init(made)
  return { made = made, kept = {}, arrived = 0 }
end

-- Sort and forget all but the first n. Rows that are equal keep the order in which they came.
local function trim(acc)
  local items = acc.made.items
  table.sort(acc.kept, function(a, b)
    local by = order.compare(items, a.keys, b.keys)
    return by < 0 or (by == 0 and a.arrived < b.arrived)
  end)
  for i = #acc.kept, acc.made.n + 1, -1 do
    acc.kept[i] = nil
  end
end

local function keep(acc, row, keys)
  acc.arrived = acc.arrived + 1
  acc.kept[#acc.kept + 1] = { row = row, keys = keys, arrived = acc.arrived }
  if #acc.kept >= 2 * acc.made.n + 16 then
    trim(acc)
  end
end

local function bind(acc, types, shard_id)
  local bound, err = order.bind(acc.made.items, types, shard_id)
  local ok = bound ~= nil
  if ok and acc.bound then
    ok, err = order.check_same(acc.bound, bound)
  end
  if not ok then
    return nil, err
  end
  acc.bound, acc.types = bound, types
  return true
end

function plugin.step(acc, row, shard_id, types)
  if acc.bound == nil or acc.types ~= types then
    local ok, err = bind(acc, types, shard_id)
    if not ok then
      return nil, err
    end
  end
  local keys, err = acc.bound:keys(row)
  if not keys then
    return nil, err
  end
  keep(acc, row, keys)
  return acc
end

function plugin.merge(a, b)
  if a.bound and b.bound then
    local ok, err = order.check_same(a.bound, b.bound)
    if not ok then
      return nil, err
    end
  end
  a.bound, a.types = a.bound or b.bound, a.types or b.types
  trim(b)
  for _, kept in ipairs(b.kept) do
    keep(a, kept.row, kept.keys)
  end
  return a
end

function plugin.finish(acc)
  trim(acc)
  local rows = {}
  for i, kept in ipairs(acc.kept) do
    rows[i] = kept.row
  end
  return rows
end

function plugin.types(acc)
  return acc.types
end

return plugin
