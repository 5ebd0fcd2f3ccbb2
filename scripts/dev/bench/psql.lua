--- psql on the benchmark's servers.
local task = require("lunashard.task")
local worker = require("worker")

local psql = {}

local function argv(ctx, where, more)
  local list = { ctx.peers.psql, "--no-psqlrc", "-q", "-A", "-t", "--no-password", "--set=ON_ERROR_STOP=1",
    "--host=" .. where.host, "--port=" .. where.port, "--username=" .. (where.user or "app"),
    "--dbname=" .. where.database }
  for _, argument in ipairs(more) do
    list[#list + 1] = argument
  end
  return list
end

--- Run a script. Yields.
-- @tparam table ctx
-- @tparam table where `host`, `port`, `database`, `user` ["app"]
-- @string sql
-- @treturn[1] string what it printed
-- @treturn[2] nil
-- @treturn[2] string reason
function psql.run(ctx, where, sql)
  local result, reason = worker.run({ argv = argv(ctx, where, { "--file=-" }), stdin = sql,
    env = { PGPASSFILE = ctx.passfile } })
  if not result then
    return nil, reason
  end
  return result.stdout
end

--- The same as a superuser.
function psql.as_superuser(ctx, where, sql)
  return psql.run(ctx, { host = where.host, port = where.port, database = where.database, user = "postgres" }, sql)
end

--- Run a script on every shard at the same time; `sql` may be a function of the shard's index from 0. Yields.
-- @tparam table ctx
-- @tparam string|func sql
-- @tparam[opt] func run `psql.run` or `psql.as_superuser`
function psql.everywhere(ctx, sql, run)
  local fns = {}
  for i, server in ipairs(ctx.servers) do
    fns[i] = function()
      local text = type(sql) == "function" and sql(i - 1) or sql
      local done, reason = (run or psql.run)(ctx, server, text)
      return done or error(reason, 0)
    end
  end
  return assert(task.gather(fns))
end

--- How long the server and psql take for one command, connecting not included; rows go to /dev/null. Yields.
-- @treturn[1] number seconds
-- @treturn[2] nil
-- @treturn[2] string reason
function psql.time(ctx, where, command)
  local result, reason = worker.run({
    argv = argv(ctx, where, { "--output=/dev/null", "--command=\\timing on", "--command=" .. command }),
    env = { PGPASSFILE = ctx.passfile },
  })
  if not result then
    return nil, reason
  end
  local ms = result.stdout:match("Time: ([%d.]+) ms")
  if not ms then
    return nil, "psql printed no time"
  end
  return tonumber(ms) / 1e3
end

return psql
