--- Rebalancing: rows that move while others are at work.
local psql = require("psql")
local servers = require("servers")
local target = require("target")
local task = require("lunashard.task")
local worker = require("worker")

local function options(ctx, more)
  local all = { databases = { ctx.moves[1].database, ctx.moves[2].database } }
  for name, value in pairs(more or {}) do
    all[name] = value
  end
  return all
end

-- Both sides begin as they are when nothing has happened for a while: no autovacuum runs here.
local function measure(ctx, more)
  for _, own in ipairs(ctx.moves) do
    local done, reason = psql.as_superuser(ctx, own, "VACUUM ANALYZE moved; CHECKPOINT;")
    if not done then
      return nil, reason
    end
  end
  return worker.ours(ctx, "moves", options(ctx, more))
end

local function ours(ctx)
  return measure(ctx)
end

-- A tenth of the rows: they take as long as all of them without a throttle.
local THROTTLE = { throttle_ms = 200, batch_size = 1000, max_parallel_tasks = 1 }
local THROTTLED = "--throttle-ms 200 --batch-size 1000 --parallel 1"

local function throttled(ctx)
  return measure(ctx, { tasks = 16, keys = servers.MOVED, rebalancer = THROTTLE, share = 10,
    manager = { connection_pool_size = 20 } })
end

local PIPE = [[psql -X -q -h %s -p %d -U app -d %s -c 'COPY move_peer TO STDOUT' |
  psql -X -q -v ON_ERROR_STOP=1 -h %s -p %d -U app -d %s -c 'COPY move_peer FROM STDIN']]

-- Into the same kind of table, on the same servers.
local function by_psql(ctx)
  local from, to = ctx.moves[1], ctx.moves[2]
  local emptied, reason = psql.as_superuser(ctx, to, "TRUNCATE move_peer; CHECKPOINT;")
  if not emptied then
    return nil, reason
  end
  local began = task.now()
  local result
  result, reason = worker.run({ argv = { "sh", "-c", PIPE:format(from.host, from.port, from.database, to.host, to.port,
    to.database) }, env = { PGPASSFILE = ctx.passfile } })
  if not result then
    return nil, reason
  end
  return { rate = servers.MOVED / (task.now() - began) }
end

local MOVE = ("%d rows with a primary key and an index move to another shard, compared before they change hands"):format(
  servers.MOVED)

return {
  {
    name = "moves",
    needs = { "moves" },
    measures = { { "ours", ours }, { "psql", by_psql, "psql" }, { "throttled", throttled } },
    rows = {
      {
        name = "move_rows", work = MOVE, unit = "per_second", against = "psql COPY | psql COPY of the same rows",
        ours = { "ours", "rate" }, peer = { "psql", "rate" }, target = target.at_least(0.4),
      },
      {
        name = "move_pause", work = "99th percentile of the pauses of statements when up to 10000 rows change hands",
        unit = "seconds", ours = { "throttled", "p99" }, target = target.below(0.1, "<= 100 ms"),
      },
      {
        name = "move_traffic", work = "reads and writes of 16 tasks while rows move, " .. THROTTLED,
        against = "the same before", unit = "per_second", ours = { "throttled", "during" }, peer = { "throttled", "before" },
        target = target.at_least(0.8),
      },
    },
  },
}
