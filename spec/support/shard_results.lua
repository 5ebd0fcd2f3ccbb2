--- Shard results by hand, for specs of what combines them.
-- @module spec.support.shard_results

local order = require("lunashard.order")

local shard_results = {}

--- The result of one shard.
-- @string shard_id
-- @tparam ?table types column name -> SQL type; nil for a result that does not say
-- @tparam {table,...} rows
-- @treturn table
function shard_results.of(shard_id, types, rows)
  local result = { success = true, shard_id = shard_id, rows = rows, row_count = #rows }
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

--- Results of several shards of the same types.
-- @tparam ?table types
-- @tparam {table,...} lists one list of rows for each shard
-- @treturn {table,...}
function shard_results.all(types, lists)
  local results = {}
  for i, rows in ipairs(lists) do
    results[i] = shard_results.of("shard" .. i, types, rows)
  end
  return results
end

--- Spread rows at random over k shards, some of which may stay empty.
-- @tparam table types
-- @tparam {table,...} rows
-- @number k
-- @treturn {table,...} results
function shard_results.split(types, rows, k)
  local lists = {}
  for i = 1, k do
    lists[i] = {}
  end
  for _, row in ipairs(rows) do
    local list = lists[math.random(k)]
    list[#list + 1] = row
  end
  return shard_results.all(types, lists)
end

--- Feed results to a reducer as a streaming router does: an accumulator for each shard,
-- merged in the shards' order.
-- @tparam table agg
-- @tparam {table,...} results
-- @return what `finish` gave
function shard_results.reduce(agg, results)
  local total
  for _, result in ipairs(results) do
    local acc = agg:init()
    local types = order.types(result)
    local err
    for _, row in ipairs(result.rows) do
      acc, err = agg:step(acc, row, result.shard_id, types)
      if acc == nil then
        return nil, err
      end
    end
    if total == nil then
      total = acc
    else
      total, err = agg:merge(total, acc)
      if total == nil then
        return nil, err
      end
    end
  end
  return agg:finish(total or agg:init())
end

--- How often to repeat a property: less often when every allocation collects garbage.
-- @number n
-- @treturn number
function shard_results.rounds(n)
  return os.getenv("LUNASHARD_GCSTRESS") and math.ceil(n / 20) or n
end

--- Start the random numbers of a property spec and say how to repeat it.
-- @treturn number
function shard_results.seed()
  local seed = tonumber(os.getenv("SEED")) or os.time()
  print(("seed %d (repeat with SEED=%d)"):format(seed, seed))
  math.randomseed(seed)
  return seed
end

return shard_results
