--- The key by the columns that the tables are declared with: `WHERE user_id = $1`, `IN (...)`, `BETWEEN`, the columns of
-- an INSERT, joins on the shard key, WITH, UNION.
-- @module lunashard.extractors.by_column

local assertion = require("lunashard.extraction.assertion")
local columns = require("lunashard.extraction.columns")

local plugin = { api = 1, kind = "extractor", name = "by_column" }

function plugin.new(...)
  if select("#", ...) > 0 and (...) ~= nil then
    error("by_column takes no options: the columns are those that tables declare", 3)
  end
  return {}
end

function plugin.plan(_, statement)
  if not statement.parsed then
    return assertion.none(statement, "by_column", statement.unparsed
      .. "; for many rows use execute_many or copy_in, else pass routing_key")
  end
  return columns.plan(statement, statement.declared)
end

-- For those who ask without a plan: only a single key has an answer.
function plugin.extract(statement, params)
  if not statement.parsed then
    return nil, "the statement was not parsed"
  end
  local plan = columns.plan(statement, statement.declared)
  if plan.kind ~= "key" then
    return nil, plan.reason
  end
  local keys, err = require("lunashard.extraction").keys(plan, params)
  if not keys or keys[1] == nil then
    return nil, err and err.message or plan.reason .. ", which is NULL"
  end
  return keys[1]
end

return plugin
