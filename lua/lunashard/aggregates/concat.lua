--- The rows of every shard as they come, in the order of the shards: nothing is merged.
-- What a scatter does with statements whose rows need no merging; given as `aggregation_func`, it keeps the statement
-- from being looked at: `SELECT count(*)` then gives one row for each shard.
-- @module lunashard.aggregates.concat

local plugin = { api = 1, kind = "aggregate", name = "concat", returns = "rows" }

function plugin.new()
  return {}
end

function plugin.aggregate(_, results)
  local rows = {}
  for _, result in ipairs(results) do
    for _, row in ipairs(result.success and result.rows or {}) do
      rows[#rows + 1] = row
    end
  end
  return rows
end

return plugin
