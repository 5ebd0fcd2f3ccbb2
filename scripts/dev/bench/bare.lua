--- What the servers give to anybody: the client in bare.c, which does nothing but send and receive.
local worker = require("worker")

local bare = {}

local function run(ctx, ...)
  local argv = { worker.BINARY:match("^(.*)/") .. "/bench/bare", ... }
  for _, server in ipairs(ctx.servers) do
    table.insert(argv, ("host=%s port=%d dbname=%s user=app sslmode=disable"):format(server.host, server.port, server.database))
  end
  return worker.figures(argv, { PGPASSFILE = ctx.passfile })
end

--- Point reads of the rows that every shard has. Yields.
-- @tparam table ctx
-- @int in_flight reads under way, evenly on all shards
-- @tparam ?boolean own_syncs
-- @treturn[1] table `rate`
-- @treturn[2] nil
-- @treturn[2] string reason
function bare.reads(ctx, in_flight, own_syncs)
  return run(ctx, own_syncs and "syncs" or "reads", tostring(ctx.seconds), tostring(in_flight), tostring(ctx.local_keys))
end

--- All rows of a query on each shard, in no order between them. Yields.
-- @tparam table ctx
-- @string sql
-- @int expected rows
-- @treturn[1] table `rate`
-- @treturn[2] nil
-- @treturn[2] string reason
function bare.rows(ctx, sql, expected)
  local figures, reason = run(ctx, "rows", sql)
  if figures and figures.rows ~= expected then
    return nil, ("%.0f rows came where there are %.0f"):format(figures.rows, expected)
  end
  return figures, reason
end

return bare
