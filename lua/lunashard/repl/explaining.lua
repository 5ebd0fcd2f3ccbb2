--- EXPLAIN of a statement that is for several shards: the plan of what each of them is really asked.
-- @module lunashard.repl.explaining

local scan = require("lunashard.sql.scan")
local task = require("lunashard.task")

local explaining = {}

local WORDS = { ANALYZE = true, ANALYSE = true, VERBOSE = true }
local OPTIONS = { ANALYZE = true, ANALYSE = true, VERBOSE = true, COSTS = true, SETTINGS = true, BUFFERS = true, WAL = true,
  TIMING = true, SUMMARY = true, FORMAT = true, GENERIC_PLAN = true, MEMORY = true, SERIALIZE = true }

-- The words up to the statement that is explained, and that statement.
local function split(sql)
  local _, after = scan.next(sql, 1)
  local token, pos = scan.next(sql, after)
  if token == "(" and OPTIONS[(scan.next(sql, pos))] then
    repeat
      token, pos = scan.next(sql, pos)
    until not token or token == ")"
    after = pos
  end
  while token and WORDS[token] do
    after = pos
    token, pos = scan.next(sql, pos)
  end
  return sql:sub(1, after - 1), sql:sub(after)
end

--- Explain a statement on each of its shards. Yields.
-- @tparam Router router
-- @string sql EXPLAIN, with a statement that does not write or is not run
-- @treturn[1] table as a router's result; its rows have `shard_id`
-- @treturn[2] nil
-- @treturn[2] ?lunashard.error nil: the statement is not for several shards
function explaining.run(router, sql)
  local words, inner = split(sql)
  local explained = router:explain(inner)
  if not explained or explained.any or #explained.shards < 2 or not explained.statements then
    return nil
  end
  local calls = {}
  for i, shard_id in ipairs(explained.shards) do
    local sent = explained.statements[shard_id]
    calls[i] = function()
      return assert(router:execute(words .. " " .. sent.sql, sent.params, { shard_id = shard_id }))
    end
  end
  local answers, err = task.gather(calls)
  if not answers then
    return nil, err
  end
  local result = { rows = {}, columns = { "shard_id" }, shard_results = {} }
  for i, shard_id in ipairs(explained.shards) do
    local answer = answers[i]
    result.columns[2] = answer.columns[1]
    result.shard_results[shard_id] = answer
    for _, row in ipairs(answer.rows) do
      row.shard_id = shard_id
      table.insert(result.rows, row)
    end
  end
  return result
end

return explaining
