--- One throw-away PostgreSQL server: made, started, stopped, killed, promoted.
-- Servers refuse to run as root, so as root everything here that touches a data
-- directory runs as another user. All functions that start programs yield.
-- @module lunashard.sandbox.server

local errors = require("lunashard.errors")
local process = require("lunashard.process")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local server = {}

local INIT_TIMEOUT, START_TIMEOUT, STOP_TIMEOUT = 120, 60, 30
local ORPHANS_TIMEOUT = 10 -- what backends of a killed server get to notice that they are orphans

local function exists(path)
  return system.stat(path) ~= nil
end

local function major_version(bindir)
  return tonumber(bindir:match("(%d+)/bin$")) or 0
end

--- The directory of the server programs: what `pg_config` names, else the newest installed one.
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function server.find_bindir()
  local result = process.run({ argv = { "pg_config", "--bindir" }, timeout = 10 })
  local candidates = { result and result.stdout:match("^[^\n]+") }
  for _, version in ipairs(system.listdir("/usr/lib/postgresql") or {}) do
    candidates[#candidates + 1] = "/usr/lib/postgresql/" .. version .. "/bin"
  end
  table.sort(candidates, function(a, b)
    return major_version(a) > major_version(b)
  end)
  for _, bindir in ipairs(candidates) do
    if exists(bindir .. "/initdb") and exists(bindir .. "/postgres") then
      return bindir
    end
  end
  return nil, errors.new("INVALID", { message = "no PostgreSQL server programs found; run: apt-get install -y postgresql" })
end

--- The user that servers run as: nil (ourselves) unless we are root.
-- @treturn[1] ?string
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function server.find_user()
  if system.getuid() ~= 0 then
    return nil
  end
  for _, name in ipairs({ "postgres", "nobody" }) do
    local user = system.user(name)
    if user and user.uid ~= 0 then
      return name
    end
  end
  return nil, errors.new("INVALID", { message = "PostgreSQL does not run as root, and there is no user postgres or nobody" })
end

-- The line that says what went wrong, out of all that a program printed.
local function reason_of(text)
  local last, fatal
  for line in text:gmatch("[^\r\n]+") do
    line = line:gsub("^%S+ %S+ %S+ %[%d+%] ", "")
    if line:find("No space left on device", 1, true) then
      return line
    end
    if line:find("FATAL:", 1, true) or line:find("error:", 1, true) then
      fatal = fatal or line
    end
    last = line:find("%S") and line or last
  end
  return fatal or last or "it gave no reason"
end

--- Run a server program as the server's user and take a non-zero exit for a failure. Yields.
-- @tparam table ctx `user`, `bindir`
-- @tparam {string,...} argv
-- @tparam[opt] table options `stdin`, `env`, `timeout`, `as_ourselves`, `log` (a file that has the reason)
-- @treturn[1] string stdout
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` or `TIMEOUT`
function server.execute(ctx, argv, options)
  options = options or {}
  local program = argv[1]
  local result, err = process.run({
    argv = argv,
    user = not options.as_ourselves and ctx.user or nil,
    cwd = "/",
    env = options.env,
    stdin = options.stdin,
    timeout = options.timeout or STOP_TIMEOUT,
  })
  if not result then
    return nil, err
  elseif result.code == 0 then
    return result.stdout
  end
  local text = result.stderr .. result.stdout
  local log = options.log and io.open(options.log)
  if log then
    text = log:read("*a")
    log:close()
  end
  return nil, errors.new("INVALID", { message = ("%s failed: %s"):format(program:match("[^/]+$"), reason_of(text)) })
end

--- Write a file as the server's user, mode 0600. Yields.
-- @tparam table ctx
-- @string path
-- @string content
function server.write_private(ctx, path, content)
  return server.execute(ctx, { "/bin/sh", "-c", 'umask 077; cat > "$1"', "sh", path }, { stdin = content })
end

local function data_of(ctx, node)
  return ctx.dir .. "/data/" .. node.name
end

local function log_of(ctx, node)
  return data_of(ctx, node) .. ".log"
end

local function conf_of(ctx, node)
  return ("%s/conf/%s.conf"):format(ctx.dir, node.name)
end

--- The process id of a running server, which is surely this one: a server's working directory
-- is its data directory, so a stale pid file and a reused pid do not deceive.
-- @tparam table ctx
-- @tparam table node
-- @treturn ?number
function server.pid(ctx, node)
  local data = system.realpath(data_of(ctx, node))
  local file = data and io.open(data .. "/postmaster.pid")
  if not file then
    return nil
  end
  local pid = file:read("*n")
  file:close()
  if pid and pid >= 2 and system.realpath(("/proc/%d/cwd"):format(pid)) == data then
    return pid
  end
  return nil
end

--- The servers whose data directories are there, of a sandbox that was never completed.
-- @tparam table ctx
-- @treturn {table,...}
function server.list(ctx)
  local nodes = {}
  for _, name in ipairs(system.listdir(ctx.dir .. "/data") or {}) do
    if exists(("%s/data/%s/PG_VERSION"):format(ctx.dir, name)) then
      nodes[#nodes + 1] = { name = name }
    end
  end
  return nodes
end

--- `primary` or `replica`, as it will be or is running.
-- @tparam table ctx
-- @tparam table node
-- @treturn string
function server.role(ctx, node)
  return exists(data_of(ctx, node) .. "/standby.signal") and "replica" or "primary"
end

--- Make the data directory of a primary. Yields.
-- @tparam table ctx
-- @tparam table node
function server.init(ctx, node)
  return server.execute(ctx, {
    ctx.bindir .. "/initdb",
    "--pgdata=" .. data_of(ctx, node),
    "--username=postgres",
    "--pwfile=" .. ctx.dir .. "/data/superuser",
    "--auth-host=scram-sha-256",
    "--auth-local=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--no-sync",
    "--no-instructions",
  }, { timeout = INIT_TIMEOUT })
end

--- Copy a running primary for a replica. Yields.
-- @tparam table ctx
-- @tparam table node whose data directory, if there is one, is removed
-- @tparam table primary
function server.clone(ctx, node, primary)
  local removed, reason = server.execute(ctx, { "rm", "-rf", "--one-file-system", "--", data_of(ctx, node) })
  if not removed then
    return nil, reason
  end
  local ok, err = server.execute(ctx, {
    ctx.bindir .. "/pg_basebackup",
    "--pgdata=" .. data_of(ctx, node),
    "--host=127.0.0.1",
    "--port=" .. primary.port,
    "--username=postgres",
    "--wal-method=stream",
    "--checkpoint=fast",
    "--no-sync",
    "--no-password",
  }, { env = { PGPASSFILE = ctx.dir .. "/data/passfile" }, timeout = INIT_TIMEOUT })
  if not ok then
    return nil, err
  end
  return server.make_standby(ctx, node)
end

--- Make a server that does not run a standby from its next start on. Yields.
-- @tparam table ctx
-- @tparam table node
function server.make_standby(ctx, node)
  return server.write_private(ctx, data_of(ctx, node) .. "/standby.signal", "")
end

--- Bring the data of a former primary, which does not run, to where a running primary is. Yields.
-- @tparam table ctx
-- @tparam table node
-- @tparam table primary
function server.rewind(ctx, node, primary)
  local source = ("host=127.0.0.1 port=%d user=postgres dbname=postgres"):format(primary.port)
  local env = { PGPASSFILE = ctx.dir .. "/data/passfile" }
  -- pg_rewind of PostgreSQL 15 takes the timeline from the last checkpoint, which after a promotion is an old one.
  local ok, err = server.execute(ctx, {
    ctx.bindir .. "/psql", "--no-psqlrc", "--quiet", "--no-password", "--command=CHECKPOINT", source,
  }, { env = env, timeout = START_TIMEOUT })
  if not ok then
    return nil, err
  end
  return server.execute(ctx, {
    ctx.bindir .. "/pg_rewind",
    "--target-pgdata=" .. data_of(ctx, node),
    "--source-server=" .. source,
    "--no-sync",
  }, { env = env, timeout = INIT_TIMEOUT })
end

-- Throw-away: nothing survives a crash of the machine, everything one of a server.
local SETTINGS = [[
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
shared_buffers = 16MB
fsync = off
full_page_writes = off
wal_level = logical
max_wal_senders = 10
max_replication_slots = 10
max_prepared_transactions = 20
min_wal_size = 32MB
max_wal_size = 256MB
wal_keep_size = 128MB
hot_standby = on
lc_messages = 'C'
log_line_prefix = '%m [%p] '
]]

-- What pg_rewind asks for.
local REWINDABLE = [[
full_page_writes = on
wal_log_hints = on
]]

-- Our own settings file leaves what initdb and ALTER SYSTEM wrote in the data directory alone.
local function write_conf(ctx, node, primary)
  local conf = SETTINGS .. ("port = %d\n"):format(node.port)
  if ctx.replicated then
    conf = conf .. REWINDABLE
  end
  if primary then
    conf = conf
      .. ("primary_conninfo = 'host=127.0.0.1 port=%d user=postgres passfile=%s application_name=%s'\n"):format(
        primary.port,
        ctx.dir .. "/data/passfile",
        node.name
      )
  end
  if ctx.tls then
    local tls = ctx.dir .. "/data/"
    conf = conf .. ("ssl = on\nssl_cert_file = '%sserver.crt'\nssl_key_file = '%sserver.key'\n"):format(tls, tls)
  end
  local ok, reason = system.write_file(conf_of(ctx, node), conf, 420) -- 0644: the server's user reads it
  if not ok then
    return nil, errors.new("INVALID", { message = reason })
  end
  return true
end

local function read_log_from(path, offset)
  local file = io.open(path)
  if not file then
    return ""
  end
  file:seek("set", offset)
  local text = file:read("*a")
  file:close()
  return text
end

local function start_once(ctx, node, primary)
  local ok, err = write_conf(ctx, node, primary)
  if not ok then
    return nil, err
  end
  local data, log = data_of(ctx, node), log_of(ctx, node)
  local before = system.stat(log)
  ok, err = server.execute(ctx, {
    ctx.bindir .. "/pg_ctl",
    "--pgdata=" .. data,
    "--log=" .. log,
    "--wait",
    "--silent",
    "--timeout=" .. START_TIMEOUT,
    "--options=-c config_file='" .. conf_of(ctx, node) .. "'",
    "start",
  }, { timeout = START_TIMEOUT + 5 })
  if ok then
    return true
  end
  local text = read_log_from(log, before and before.size or 0)
  if text ~= "" then
    err.message = ("%s does not start: %s"):format(node.name, reason_of(text))
  end
  return nil, err, text
end

--- Start a server that does not run. Yields until it accepts connections.
-- When its port was taken meanwhile it gets another one, in `node.port`.
-- @tparam table ctx
-- @tparam table node
-- @tparam ?table primary of a replica
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function server.start(ctx, node, primary)
  local deadline = task.now() + ORPHANS_TIMEOUT
  while true do
    node.port = system.free_port(node.port) or assert(system.free_port())
    -- A stale pid file whose pid is somebody else's now would make the server refuse.
    system.unlink(data_of(ctx, node) .. "/postmaster.pid")
    local ok, err, log = start_once(ctx, node, primary)
    if ok then
      return true
    end
    local may_pass = log and (log:find("Address already in use", 1, true) or log:find("shared memory block", 1, true))
    if not may_pass or task.now() > deadline then
      return nil, err
    end
    task.sleep(0.1)
  end
end

--- Stop a running server: fast, and by force when that takes too long. Yields.
-- @tparam table ctx
-- @tparam table node
-- @string[opt="fast"] mode
function server.stop(ctx, node, mode)
  local stop = { ctx.bindir .. "/pg_ctl", "--pgdata=" .. data_of(ctx, node), "--wait", "--silent" }
  for _, argument in ipairs({ "--timeout=" .. STOP_TIMEOUT - 5, "--mode=" .. (mode or "fast"), "stop" }) do
    stop[#stop + 1] = argument
  end
  local ok, err = server.execute(ctx, stop)
  if ok or server.pid(ctx, node) == nil then
    return true
  elseif mode == "immediate" then
    return nil, err
  end
  return server.stop(ctx, node, "immediate")
end

--- Kill a server with SIGKILL, when it runs. Does not wait.
-- @tparam table ctx
-- @tparam table node
-- @treturn ?number its pid
function server.kill_now(ctx, node)
  local pid = server.pid(ctx, node)
  if pid then
    system.kill(pid, process.signals.KILL)
  end
  return pid
end

--- Kill a running server, as a crash would. Yields until it is gone.
-- @tparam table ctx
-- @tparam table node
function server.kill(ctx, node)
  local pid = server.kill_now(ctx, node)
  if not pid then
    return nil, errors.new("INVALID", { message = node.name .. " is not running" })
  end
  local deadline = task.now() + ORPHANS_TIMEOUT
  while process.is_alive(pid) and task.now() < deadline do
    task.sleep(0.01)
  end
  return true
end

--- Make a replica a primary. Yields until it is one.
-- @tparam table ctx
-- @tparam table node
function server.promote(ctx, node)
  return server.execute(ctx, {
    ctx.bindir .. "/pg_ctl",
    "--pgdata=" .. data_of(ctx, node),
    "--wait",
    "--silent",
    "promote",
  })
end

return server
