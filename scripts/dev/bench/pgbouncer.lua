--- pgbouncer in front of the shards, as long as a measurement takes.
local process = require("lunashard.process")
local psql = require("psql")
local server = require("lunashard.sandbox.server")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local pgbouncer = {}

local START_TIMEOUT = 10

local SETTINGS = [[
[databases]
%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
]]

local function settings(ctx, port, pool_size)
  local databases = {}
  for i, shard in ipairs(ctx.servers) do
    databases[i] = ("%s = host=%s port=%d dbname=%s user=app password=%s"):format(shard.database, shard.host, shard.port,
      shard.database, ctx.password)
  end
  return SETTINGS:format(table.concat(databases, "\n"), port, pool_size)
end

local function wait_until_ready(ctx, child, where)
  local deadline = task.now() + START_TIMEOUT
  repeat
    local answered, reason = psql.run(ctx, where, "SELECT 1")
    if answered then
      return true
    elseif not child:is_running() then
      local _, stderr = child:output()
      return nil, "pgbouncer ended: " .. (stderr:match("([^\n]+)%s*$") or "it gave no reason")
    elseif task.now() > deadline then
      return nil, "pgbouncer does not answer: " .. reason
    end
    task.sleep(0.05)
  until false
end

--- Run a function while pgbouncer runs. Yields.
-- @tparam table ctx
-- @number pool_size server connections for each shard
-- @tparam func fn gets the servers as they are seen through pgbouncer; its results are ours
-- @treturn[2] nil
-- @treturn[2] string why it does not run
function pgbouncer.with(ctx, pool_size, fn)
  local port = assert(system.free_port())
  local user = server.find_user() -- like the servers, it refuses to be root
  local path = ctx.sandbox_dir .. "/data/pgbouncer.ini"
  assert(server.write_private({ user = user }, path, settings(ctx, port, pool_size)))
  local child, err = process.spawn({ argv = { ctx.peers.pgbouncer, "-q", path }, user = user, cwd = "/" })
  if not child then
    return nil, err.message
  end
  local seen = {}
  for i, shard in ipairs(ctx.servers) do
    seen[i] = { host = "127.0.0.1", port = port, database = shard.database }
  end
  local function run()
    local ready, reason = wait_until_ready(ctx, child, seen[1])
    if not ready then
      return nil, reason
    end
    return fn(seen)
  end
  local ok, figures, reason = pcall(run)
  child:close()
  if not ok then
    error(figures, 0)
  end
  return figures, reason
end

return pgbouncer
