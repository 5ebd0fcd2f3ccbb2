--- Percentile of a column over all rows: `percentile { column = "latency", p = 0.95 }`.
-- Exact, from the values themselves, which are all gathered. The result is the server's
-- percentile_cont (a number between two values), or with `discrete = true` its percentile_disc
-- (one of the values). It is called like the column unless `as` says otherwise.
-- @module lunashard.aggregates.percentile

local errors = require("lunashard.errors")
local options = require("lunashard.options")
local order = require("lunashard.order")
local sortkey = require("lunashard.order.sortkey")

local plugin = { api = 1, kind = "aggregate", name = "percentile", returns = "row" }

local OPTIONS = {
  column = "string", p = "number", as = "string", discrete = "boolean", collate = "string", type = "string",
}

function plugin.new(spec)
  local how = options.check(spec, OPTIONS, "percentile")
  if how.column == nil or how.p == nil or not (how.p >= 0 and how.p <= 1) then
    error("percentile: needs column, and p between 0 and 1", 3)
  end
  return {
    column = how.column,
    p = how.p,
    as = how.as or how.column,
    discrete = how.discrete or false,
    items = { { column = how.column, collate = how.collate, type = how.type } },
  }
end

function plugin.init(made)
  return { made = made, values = {}, n = 0 }
end

local INTERPOLATED = { integer = true, numeric = true, float = true, untyped = true }

local function refuse(made, shard_id, what)
  return nil, errors.new("NOT_MERGEABLE", {
    message = ("column %q: %s cannot be interpolated: use discrete = true"):format(made.column, what),
    shard_id = shard_id,
  })
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
  if not acc.made.discrete and not INTERPOLATED[bound.family[1]] then
    return refuse(acc.made, shard_id, "values of type " .. bound.family[1])
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
  local value = row[acc.made.column]
  if value == nil then
    return acc
  end
  local keys, err = acc.bound:keys(row)
  if not keys then
    return nil, err
  end
  local kept = { key = keys[1], value = value }
  if not acc.made.discrete then
    kept = tonumber(value) -- percentile_cont works on double precision, whatever the column
    if kept == nil then
      return refuse(acc.made, shard_id, options.describe(value))
    end
  end
  acc.n = acc.n + 1
  acc.values[acc.n] = kept
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
  for i = 1, b.n do
    a.values[a.n + i] = b.values[i]
  end
  a.n = a.n + b.n
  return a
end

local function interpolate(values, n, p)
  table.sort(values, function(a, b)
    return sortkey.compare(a, b) < 0
  end)
  local at = p * (n - 1)
  local low, high = values[math.floor(at) + 1], values[math.ceil(at) + 1]
  if math.floor(at) == math.ceil(at) then
    return low
  end
  return low + (at - math.floor(at)) * (high - low)
end

local function pick(values, n, p)
  table.sort(values, function(a, b)
    return sortkey.compare(a.key, b.key) < 0
  end)
  return values[math.max(math.ceil(p * n), 1)].value
end

function plugin.finish(acc)
  local made, row = acc.made, {}
  if acc.n > 0 then
    row[made.as] = (made.discrete and pick or interpolate)(acc.values, acc.n, made.p)
  end
  return row
end

function plugin.types(acc)
  local made = acc.made
  return { [made.as] = made.discrete and acc.types and acc.types[made.column] or "float8" }
end

return plugin
