--- Groups that span shards, put together again:
--
--     SELECT country, count(*) AS n, sum(amount) AS total, min(created_at) AS first,
--            sum(price) AS price_sum, count(price) AS price_count FROM orders GROUP BY country
--     group_by {
--       keys = { "country" },
--       n = "count", total = "sum", first = "min",
--       price = { avg = { sum = "price_sum", count = "price_count" } },
--       having = function(row) return row.n > 10 end,
--     }
--
-- Every other name is a column of the result: the aggregate of the column of that name, or
-- `{ sum = "another column" }`. `collate = "C"` is for min and max of text. Groups come in the
-- order in which they were first seen.
-- @module lunashard.aggregates.group_by

local errors = require("lunashard.errors")
local fold = require("lunashard.aggregate.fold")
local identity = require("lunashard.aggregate.identity")
local options = require("lunashard.options")

local plugin = { api = 1, kind = "aggregate", name = "group_by", returns = "rows" }

local FOLDS = {
  sum = fold.sum,
  count = fold.count,
  min = fold.min,
  max = fold.max,
  avg = function(parts)
    return fold.avg(parts.sum, parts.count)
  end,
}

local function bad_output(name, what, level)
  error(('group_by: %s = %s: expected "sum", "count", "min" or "max", or { sum = "column" }, '
    .. 'or { avg = { sum = "column", count = "column" } }'):format(name, options.describe(what)), level + 1)
end

local function output_of(name, what, collate, level)
  local kind, source = what, name
  if type(what) == "table" then
    kind, source = next(what)
    if next(what, kind) ~= nil then
      bad_output(name, what, level + 1)
    end
  end
  local make = FOLDS[kind]
  if make == nil then
    local near = errors.nearest(kind, FOLDS)
    if near then
      error(("group_by: %s: unknown aggregate %q; did you mean %q?"):format(name, kind, near), level + 1)
    end
    bad_output(name, what, level + 1)
  end
  local is_avg = kind == "avg"
  local fits = is_avg and type(source) == "table" and type(source.sum) == "string" and type(source.count) == "string"
  if not fits and (is_avg or type(source) ~= "string") then
    bad_output(name, what, level + 1)
  end
  return { name = name, fold = make(source, { collate = collate }) }
end

function plugin.new(spec)
  if type(spec) ~= "table" or spec.keys == nil then
    error('group_by: needs keys, as in group_by { keys = { "country" }, total = "sum" }', 3)
  end
  local keys = type(spec.keys) == "string" and { spec.keys } or spec.keys
  if type(keys) ~= "table" or #keys == 0 then
    error("group_by: keys is a list of column names, got " .. options.describe(keys), 3)
  elseif spec.having ~= nil and type(spec.having) ~= "function" then
    error("group_by: having is a function of a row, got " .. options.describe(spec.having), 3)
  end
  local made = { keys = keys, having = spec.having, outputs = {} }
  for name, what in pairs(spec) do
    if type(name) ~= "string" then
      error("group_by: the keys go into keys = {...}, got " .. options.describe(what), 3)
    elseif name ~= "keys" and name ~= "having" and name ~= "collate" then
      made.outputs[#made.outputs + 1] = output_of(name, what, spec.collate, 3)
    end
  end
  return made
end

function plugin.init(made)
  return { made = made, identity = identity.new(made.keys), groups = {}, by_text = {} }
end

local function new_group(acc, text, row)
  local group = { text = text, row = row, cells = {} }
  for i, output in ipairs(acc.made.outputs) do
    group.cells[i] = output.fold:init()
  end
  acc.by_text[text] = group
  acc.groups[#acc.groups + 1] = group
  return group
end

function plugin.step(acc, row, shard_id, types)
  local text, err = acc.identity:of(row, types, shard_id)
  if text == nil then
    return nil, err
  end
  acc.types = acc.types or types
  local group = acc.by_text[text] or new_group(acc, text, row)
  for i, output in ipairs(acc.made.outputs) do
    local ok
    ok, err = output.fold:step(group.cells[i], row, types, shard_id)
    if not ok then
      return nil, err
    end
  end
  return acc
end

function plugin.merge(a, b)
  local same, problem = a.identity:merge(b.identity)
  if not same then
    return nil, problem
  end
  a.types = a.types or b.types
  for _, theirs in ipairs(b.groups) do
    local group = a.by_text[theirs.text] or new_group(a, theirs.text, theirs.row)
    for i, output in ipairs(a.made.outputs) do
      local ok, err = output.fold:merge(group.cells[i], theirs.cells[i])
      if not ok then
        return nil, err
      end
    end
  end
  return a
end

function plugin.finish(acc)
  local rows = {}
  for _, group in ipairs(acc.groups) do
    local row = {}
    for _, key in ipairs(acc.made.keys) do
      row[key] = group.row[key]
    end
    for i, output in ipairs(acc.made.outputs) do
      row[output.name] = output.fold:value(group.cells[i])
    end
    if acc.made.having == nil or acc.made.having(row) then
      rows[#rows + 1] = row
    end
  end
  return rows
end

function plugin.types(acc)
  local group = acc.groups[1]
  if acc.types == nil or group == nil then
    return nil
  end
  local types = {}
  for _, key in ipairs(acc.made.keys) do
    types[key] = acc.types[key]
  end
  for i, output in ipairs(acc.made.outputs) do
    types[output.name] = output.fold:type(group.cells[i]) or "unknown"
  end
  return types
end

return plugin
