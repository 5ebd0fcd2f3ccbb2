--- What shards add to the state of a job: changes that are yet to be applied, and fences.
-- @module lunashard.rebalancer.status

local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

local status = {}

local TIMEOUT = 2 -- seconds; what does not answer is left out

local FENCES = [[
  SELECT m.seq, extract(epoch FROM clock_timestamp() - m.fenced_at)::float8 AS seconds FROM lunashard.move m
   WHERE m.job = $1::bigint AND m.role = 'source' AND m.fenced_at IS NOT NULL AND m.step = 'fenced' ORDER BY m.seq]]

-- Keys that were written and not yet carried over lie in tables of the job (see `lunashard.rebalancer.names`).
local LISTS = [[
  SELECT c.oid::regclass::text AS name FROM pg_catalog.pg_class c
   WHERE c.relnamespace = to_regnamespace('lunashard_staging') AND c.relkind = 'r' AND c.relname ~ ('^d' || $1::bigint || '_')]]

local function ask_shard(pool, job, opts)
  local fences, err = pool:execute(FENCES, { job }, opts)
  local lists
  if fences then
    lists, err = pool:execute(LISTS, { job }, opts)
  end
  if not lists then
    return nil, err
  end
  local backlog = 0
  for _, list in ipairs(lists.rows) do
    local counted = pool:execute(("SELECT count(*) AS n FROM %s"):format(list.name), nil, opts)
    backlog = backlog + (counted and counted.rows[1].n or 0) -- it may have been dropped since
  end
  return { fences = fences.rows, backlog = backlog }
end

--- Ask the shards with moves that are under way. Yields.
-- @tparam Manager manager
-- @tparam table told from `job.describe`; gets `backlog` and `fences`
function status.of_shards(manager, told)
  local members, seen, closed = {}, {}, {}
  for _, move in ipairs(told.active) do
    closed[move.seq] = move.state ~= "flipped" -- the other shard has them then
    local member = manager.by_id[move.source]
    if member and not seen[move.source] then
      seen[move.source] = true
      members[#members + 1] = member
    end
  end
  local backlog, fences = 0, {}
  local deadline = task.now() + TIMEOUT
  local answers = parallel.each(members, function(member)
    return ask_shard(member.primary.pool, told.job_id, { deadline = deadline })
  end)
  for i, member in ipairs(members) do
    local answer = answers.results[i]
    for _, fence in ipairs(answer and answer.fences or {}) do
      if closed[fence.seq] then
        table.insert(fences, { shard_id = member.shard_id, seq = fence.seq, seconds = fence.seconds })
      end
    end
    backlog = backlog + (answer and answer.backlog or 0)
  end
  told.backlog, told.fences = backlog, fences -- a job that runs here may have been described anew meanwhile
end

return status
