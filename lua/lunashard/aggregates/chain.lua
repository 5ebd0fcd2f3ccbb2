--- The rows of one aggregate fed into the next:
-- `chain { group_by {...}, top_n { n = 10, by = "total desc" } }`.
-- @module lunashard.aggregates.chain

local options = require("lunashard.options")

local plugin = { api = 1, kind = "aggregate", name = "chain" }

function plugin.new(...)
  local stages = { ... }
  if #stages == 1 and type(stages[1]) == "table" and stages[1].plugin == nil then
    stages = stages[1]
  end
  if #stages == 0 then
    error("chain: expected aggregates", 3)
  end
  for _, stage in ipairs(stages) do
    if type(stage) ~= "table" or type(stage.plugin) ~= "table" then
      error("chain: expected aggregates, got " .. options.describe(stage), 3)
    end
  end
  if stages[1].plugin.aggregate then
    error(("chain: %s is no reducer, so it cannot come first"):format(stages[1].name), 3)
  end
  return { stages = stages }
end

function plugin.returns(made)
  return made.stages[#made.stages].returns
end

-- A limit reaches the shards only when what stands before it keeps each shard's rows and order.
function plugin.push_down(made)
  for _, stage in ipairs(made.stages) do
    if stage.push_down then
      return stage.push_down
    elseif stage.name ~= "merge_sort" then
      return nil
    end
  end
end

function plugin.init(made)
  return { stages = made.stages, first = made.stages[1]:init() }
end

function plugin.step(acc, row, shard_id, types)
  local first, err = acc.stages[1]:step(acc.first, row, shard_id, types)
  if first == nil then
    return nil, err
  end
  acc.first = first
  return acc
end

function plugin.keeps(made)
  local first = made.stages[1].plugin
  return first.keeps ~= nil and first.keeps(made.stages[1].options)
end

function plugin.keep(acc, kept)
  acc.first = acc.stages[1].plugin.keep(acc.first, kept)
  return acc
end

function plugin.merge(a, b)
  local first, err = a.stages[1]:merge(a.first, b.first)
  if first == nil then
    return nil, err
  end
  a.first = first
  return a
end

-- What a stage gave, as the result of one shard for the next.
local function result_of(rows, types)
  local result = { success = true, rows = rows, row_count = #rows }
  if types then
    result.columns, result.column_types = {}, {}
    for name in pairs(types) do
      result.columns[#result.columns + 1] = name
    end
    table.sort(result.columns)
    for i, name in ipairs(result.columns) do
      result.column_types[i] = types[name]
    end
  end
  return result
end

function plugin.finish(acc)
  local aggregate = require("lunashard.aggregate") -- it requires this file in its turn
  local stage = acc.stages[1]
  local value, err = stage:finish(acc.first)
  local types = stage:types(acc.first)
  for i = 2, #acc.stages do
    if value == nil then
      return nil, err
    end
    local results = { result_of(aggregate.rows(stage, value), types) }
    stage = acc.stages[i]
    if stage.plugin.aggregate then
      value, err = stage(results)
      types = nil
    else
      local collected
      collected, err = stage:collect(results)
      if collected == nil then
        return nil, err
      end
      value, err = stage:finish(collected)
      types = stage:types(collected)
    end
  end
  acc.types = types
  return value, err
end

function plugin.types(acc)
  return acc.types
end

return plugin
