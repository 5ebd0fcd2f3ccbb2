--- Mean over all shards, weighted rightly: each shard gives its sum and its count.
--
--     SELECT sum(price) AS price_sum, count(price) AS price_count FROM orders
--     avg { price = { sum = "price_sum", count = "price_count" } }
--     avg("price", { sum = "price_sum", count = "price_count" })
--
-- A mean of the shards' means is not the mean, and is refused.
-- @module lunashard.aggregates.avg

local columns = require("lunashard.aggregate.columns")
local errors = require("lunashard.errors")
local fold = require("lunashard.aggregate.fold")
local options = require("lunashard.options")

local PARTS = { sum = "string", count = "string" }

local function parts_of(name, parts, level)
  if type(parts) ~= "table" then
    error(("avg: %q needs { sum = \"column\", count = \"column\" }, got %s"):format(name, options.describe(parts)),
      level)
  end
  for part in pairs(parts) do
    if not PARTS[part] then
      error(errors.unknown_option("avg of " .. name, part, PARTS), level)
    end
  end
  if type(parts.sum) ~= "string" or type(parts.count) ~= "string" then
    error(("avg: %q needs both sum and count, each a column name"):format(name), level)
  end
  return { name = name, fold = fold.avg(parts.sum, parts.count) }
end

local plugin = columns.plugin("avg", function(spec, parts)
  if type(spec) == "string" and parts ~= nil then
    return { parts_of(spec, parts, 4) }
  end
  local folds = columns.parse("avg", spec, 3)
  for i, part in ipairs(folds) do
    if part.name == part.source then
      return { refused = part.name }
    end
    folds[i] = parts_of(part.name, part.source, 4)
  end
  return folds
end)

local finish = plugin.finish

local function refusal(column)
  local text = "column \"@\": the mean of the shards' means is not the mean: select sum(x) AS @_sum, "
    .. "count(x) AS @_count and use avg { @ = { sum = \"@_sum\", count = \"@_count\" } }"
  return errors.new("NOT_MERGEABLE", { message = (text:gsub("@", (column:gsub("%%", "%%%%")))) })
end

function plugin.finish(acc)
  if acc.folds.refused then
    return nil, refusal(acc.folds.refused)
  end
  return finish(acc)
end

return plugin
