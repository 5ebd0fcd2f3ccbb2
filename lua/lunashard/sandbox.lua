--- The sandbox: throw-away local PostgreSQL servers, one for each shard, with replicas on wish,
-- and a cluster file for them. The embedded default for trying things and for specs.
--
-- Functions return `nil, err` (`INVALID`, `TIMEOUT`) when something fails, and all of them yield.
-- @module lunashard.sandbox

local errors = require("lunashard.errors")
local check_known = require("lunashard.options").check
local files = require("lunashard.sandbox.files")
local server = require("lunashard.sandbox.server")
local task = require("lunashard.task")
local tls = require("lunashard.sandbox.tls")

local sandbox = {}

local OPTIONS = {
  name = "string",
  dir = "string",
  shards = "count",
  replicas = "count",
  tls = "boolean",
  on_progress = "function",
}
local MAX_SHARDS, MAX_REPLICAS = 64, 8

local function failure(format, ...)
  return nil, errors.new("INVALID", { message = format:format(...) })
end

local function check_range(name, value, low, high)
  if value ~= nil and (value < low or value > high) then
    error(("sandbox: %s must be %d to %d, got %d"):format(name, low, high, value), 3)
  end
end

local function check_options(options)
  check_known(options, OPTIONS, "sandbox")
  check_range("shards", options.shards, 1, MAX_SHARDS)
  check_range("replicas", options.replicas, 0, MAX_REPLICAS)
  if options.name ~= nil and not options.name:find("^[%w_-]+$") then
    error(("sandbox: a name has letters, digits, _ and -, got %q"):format(options.name), 3)
  end
end

-- What the functions below work with: where the sandbox is, and who runs its servers.
local function context(options)
  local user, err = server.find_user()
  if err then
    return nil, err
  end
  local ctx = { user = user, name = options.name or "sandbox", progress = options.on_progress or function() end }
  if options.dir then
    ctx.dir, err = files.absolute(options.dir)
  else
    local base
    base, err = files.base(user)
    ctx.dir = base and base .. "/" .. ctx.name
  end
  if not ctx.dir then
    return nil, err
  end
  ctx.bindir, err = server.find_bindir()
  if not ctx.bindir then
    return nil, err
  end
  return ctx
end

-- Run `fn(node)` for all nodes at the same time; the first failure is the result.
local function for_each(nodes, fn)
  local fns, err = {}, nil
  for i, node in ipairs(nodes) do
    fns[i] = function()
      local ok, reason = fn(node)
      err = err or not ok and reason or nil
    end
  end
  local done, raised = task.gather(fns)
  if not done or err then
    return nil, err or raised
  end
  return true
end

local function select_nodes(state, want)
  local nodes = {}
  for _, node in ipairs(state.nodes) do
    if want(node) then
      nodes[#nodes + 1] = node
    end
  end
  return nodes
end

local function find_node(state, name)
  local names = {}
  for _, node in ipairs(state.nodes) do
    if node.name == name then
      return node
    end
    names[#names + 1] = node.name
  end
  local near = errors.nearest(name, names)
  local hint = near and "; did you mean " .. near .. "?" or "; there are " .. table.concat(names, ", ")
  return failure("no server named %s%s", tostring(name), hint)
end

local function is_primary(node)
  return node.replica_of == nil
end

local function is_replicated(state)
  return #select_nodes(state, is_primary) < #state.nodes
end

-- What the servers' settings depend on.
local function adopt(ctx, state)
  ctx.tls, ctx.replicated = state.tls, is_replicated(state)
end

-- Whom a server follows when it is a standby.
local function source_of(state, node)
  local name = node.follows or node.replica_of
  return name and assert(find_node(state, name))
end

local function new_state(ctx, options)
  local state = {
    version = 1,
    name = ctx.name,
    dir = ctx.dir,
    tls = options.tls or false,
    password = files.password(),
    superuser_password = files.password(),
    nodes = {},
  }
  for i = 1, options.shards or 3 do
    local shard_id = "shard" .. i
    local primary = { name = shard_id, shard_id = shard_id, port = 0, database = "app_" .. shard_id }
    table.insert(state.nodes, primary)
    for j = 1, options.replicas or 0 do
      local name = ("%s_replica%d"):format(shard_id, j)
      table.insert(
        state.nodes,
        { name = name, shard_id = shard_id, port = 0, database = primary.database, replica_of = shard_id }
      )
    end
  end
  return state
end

-- The application's role owns its database, is no superuser, and may see how replication is doing.
local SETUP = [[
CREATE ROLE app LOGIN PASSWORD '%s' IN ROLE pg_monitor;
CREATE DATABASE %s OWNER app;
]]

local function set_up(ctx, state, node)
  local psql = { ctx.bindir .. "/psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1" }
  for _, argument in ipairs({ "--host=127.0.0.1", "--port=" .. node.port, "--username=postgres", "--dbname=postgres" }) do
    psql[#psql + 1] = argument
  end
  return server.execute(ctx, psql, {
    stdin = SETUP:format(state.password, node.database),
    env = { PGPASSFILE = ctx.dir .. "/passfile" },
    as_ourselves = true,
    timeout = 60,
  })
end

local function start_servers(ctx, nodes, state)
  return for_each(nodes, function(node)
    if server.pid(ctx, node) then
      return true
    end
    return server.start(ctx, node, source_of(state, node))
  end)
end

local function stop_servers(ctx, state, mode)
  return for_each(state.nodes, function(node)
    if not server.pid(ctx, node) then
      return true
    end
    return server.stop(ctx, node, mode)
  end)
end

local function create_servers(ctx, state)
  local primaries = select_nodes(state, is_primary)
  local replicas = select_nodes(state, function(node)
    return not is_primary(node)
  end)
  ctx.progress(("making %d server%s in %s"):format(#primaries, #primaries == 1 and "" or "s", ctx.dir))
  local ok, err = server.write_private(ctx, ctx.dir .. "/data/superuser", state.superuser_password .. "\n")
  if ok and ctx.tls then
    ok, err = tls.create(ctx)
  end
  if ok then
    ok, err = server.write_private(ctx, ctx.dir .. "/data/passfile", "*:*:*:postgres:" .. state.superuser_password .. "\n")
  end
  ok = ok and for_each(primaries, function(node)
    local made, reason = server.init(ctx, node)
    err = err or reason
    return made, reason
  end)
  if ok then
    ok, err = start_servers(ctx, primaries, state)
  end
  if ok then
    ok, err = files.write_passfile(state)
  end
  if ok then
    ok, err = for_each(primaries, function(node)
      return set_up(ctx, state, node)
    end)
  end
  if ok and #replicas > 0 then
    ctx.progress(("making %d replica%s"):format(#replicas, #replicas == 1 and "" or "s"))
    ok, err = for_each(replicas, function(node)
      return server.clone(ctx, node, assert(find_node(state, node.replica_of)))
    end)
    if ok then
      ok, err = start_servers(ctx, replicas, state)
    end
  end
  if ok then
    ok, err = files.save(state)
  end
  return ok, err
end

-- All or nothing. A cancelled task cannot wait for the end of servers or of `rm`, so that it only kills: the
-- directory stays marked as half-made, and the next start or destroy removes it.
local function create(ctx, options)
  local ok, err = files.check_usable(ctx.dir)
  if not ok then
    return nil, err
  end
  local half_made = { nodes = server.list(ctx) }
  ok, err = stop_servers(ctx, half_made, "immediate")
  if ok then
    ok, err = files.prepare(ctx.dir, ctx.user)
  end
  if not ok then
    return nil, err
  end
  local state = new_state(ctx, options)
  adopt(ctx, state)
  local finished
  finished, ok, err = pcall(create_servers, ctx, state)
  if not finished then
    for _, node in ipairs(state.nodes) do
      server.kill_now(ctx, node)
    end
    error(ok, 0)
  elseif not ok then
    stop_servers(ctx, state, "immediate")
    files.remove(ctx.dir)
    return nil, err
  end
  return state
end

-- An existing sandbox keeps its shape: what was asked for must not contradict it.
local function check_shape(state, options)
  local shards = #select_nodes(state, is_primary)
  local replicas = (#state.nodes - shards) / shards
  local asked = {
    { "shards", options.shards, shards },
    { "replicas", options.replicas, replicas },
    { "tls", options.tls, state.tls },
  }
  for _, entry in ipairs(asked) do
    if entry[2] ~= nil and entry[2] ~= entry[3] then
      local text = "the sandbox in %s was made with %s = %s; destroy it first, or choose another --name"
      return failure(text, state.dir, entry[1], tostring(entry[3]))
    end
  end
  return true
end

local function restart(ctx, state, options)
  local ok, err = check_shape(state, options)
  if not ok then
    return nil, err
  end
  local down = select_nodes(state, function(node)
    return server.pid(ctx, node) == nil
  end)
  if #down == 0 then
    return state
  end
  ctx.progress(("starting %d of %d servers in %s"):format(#down, #state.nodes, ctx.dir))
  -- Primaries first: a replica's settings name the primary's port, which may be a new one.
  for _, role in ipairs({ "primary", "replica" }) do
    local nodes = select_nodes(state, function(node)
      return server.role(ctx, node) == role
    end)
    ok, err = start_servers(ctx, nodes, state)
    if not ok then
      return nil, err
    end
  end
  ok, err = files.save(state)
  if not ok then
    return nil, err
  end
  return state
end

local function describe_node(ctx, node)
  local pid = server.pid(ctx, node)
  return {
    name = node.name,
    shard_id = node.shard_id,
    role = server.role(ctx, node),
    state = pid and "running" or "down",
    host = "127.0.0.1",
    port = node.port,
    database = node.database,
    pid = pid,
  }
end

local function describe(ctx, state)
  local description = {
    name = state.name,
    dir = ctx.dir,
    cluster_file = ctx.dir .. "/cluster.lua",
    passfile = ctx.dir .. "/passfile",
    ca_file = state.tls and ctx.dir .. "/ca.crt" or nil,
    servers = {},
  }
  for i, node in ipairs(state.nodes) do
    description.servers[i] = describe_node(ctx, node)
  end
  return description
end

-- The context and state of a complete sandbox.
local function existing(options)
  check_options(options)
  local ctx, err = context(options)
  if not ctx then
    return nil, err
  end
  local state = files.load(ctx.dir)
  if not state then
    return failure("there is no sandbox in %s; start one with: lunashard sandbox start", ctx.dir)
  end
  adopt(ctx, state)
  return ctx, state
end

--- Start a sandbox: make it, or start those of its servers that are down.
-- @tparam[opt] table options `name` ["sandbox"], or `dir`; `shards` [3], `replicas` per shard [0], `tls` [false];
-- `on_progress`, called with a line of text now and then
-- @treturn[1] table description, as `status` gives it
-- @treturn[2] nil
-- @treturn[2] lunashard.error nothing half-made is left
function sandbox.start(options)
  options = options or {}
  check_options(options)
  local ctx, err = context(options)
  if not ctx then
    return nil, err
  end
  local state = files.load(ctx.dir)
  if state then
    adopt(ctx, state)
    state, err = restart(ctx, state, options)
  else
    state, err = create(ctx, options)
  end
  if not state then
    return nil, err
  end
  return describe(ctx, state)
end

--- What a sandbox is made of.
-- @tparam[opt] table options `name` or `dir`
-- @treturn[1] table `name`, `dir`, `cluster_file`, `passfile`, `ca_file`, and `servers`, a list of `name`, `shard_id`, `role`,
-- `state`, `host`, `port`, `database`, `pid`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function sandbox.status(options)
  local ctx, state = existing(options or {})
  if not ctx then
    return nil, state
  end
  return describe(ctx, state)
end

--- The passwords, for specs: `user`, `password`, `superuser`, `superuser_password`.
-- @tparam[opt] table options `name` or `dir`
function sandbox.credentials(options)
  local ctx, state = existing(options or {})
  if not ctx then
    return nil, state
  end
  return {
    user = "app",
    password = state.password,
    superuser = "postgres",
    superuser_password = state.superuser_password,
  }
end

--- Stop the servers, or one of them, and keep their data.
-- @tparam[opt] table options `name` or `dir`
-- @string[opt] which such as `shard2` or `shard2_replica1`
function sandbox.stop(options, which)
  local ctx, state = existing(options or {})
  if not ctx then
    return nil, state
  end
  local node, ok, err
  if which then
    node, err = find_node(state, which)
    if not node then
      return nil, err
    end
  end
  ok, err = stop_servers(ctx, node and { nodes = { node } } or state, "fast")
  if not ok then
    return nil, err
  end
  return describe(ctx, state)
end

--- Stop the servers and remove everything. Also removes what a broken-off start left.
-- @tparam[opt] table options `name` or `dir`
-- @treturn[1] string the directory that was removed
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function sandbox.destroy(options)
  options = options or {}
  check_options(options)
  local ctx, err = context(options)
  if not ctx then
    return nil, err
  elseif not files.is_sandbox(ctx.dir) then
    return failure("there is no sandbox in %s", ctx.dir)
  end
  local state = files.load(ctx.dir) or { nodes = server.list(ctx) }
  local ok
  ok, err = stop_servers(ctx, state, "immediate")
  if not ok then
    return nil, err
  end
  files.remove(ctx.dir)
  if not options.dir then
    files.remove_base(ctx.dir)
  end
  return ctx.dir
end

-- Do something to one server: `act(ctx, state, node)` gives true, or nil and an error.
local function on_server(options, which, act)
  local ctx, state = existing(options)
  if not ctx then
    return nil, state
  end
  local node, err = find_node(state, which)
  if not node then
    return nil, err
  end
  local ok
  ok, err = act(ctx, state, node)
  if not ok then
    return nil, err
  end
  return describe(ctx, state)
end

--- Kill a server, as a crash would (SIGKILL).
-- @tparam table options `name` or `dir`
-- @string which such as `shard2` or `shard2_replica1`
function sandbox.kill(options, which)
  return on_server(options, which, function(ctx, _, node)
    return server.kill(ctx, node)
  end)
end

--- Make a shard's replica a primary. The old primary is left as it is: kill it first for a fail-over,
-- or do not, for two primaries.
-- @tparam table options `name` or `dir`
-- @string which a shard, whose first running replica is meant, or a replica
function sandbox.promote(options, which)
  return on_server(options, which, function(ctx, state, node)
    local candidates = select_nodes(state, function(other)
      local is_meant = other == node or other.replica_of == node.name
      return is_meant and server.pid(ctx, other) and server.role(ctx, other) == "replica"
    end)
    if not candidates[1] then
      return failure("%s has no running replica to promote", which)
    end
    return server.promote(ctx, candidates[1])
  end)
end

-- Start a server that does not run as a standby of another one.
local function start_standby(ctx, state, node, source)
  node.follows = source.name
  local ok, err = server.make_standby(ctx, node)
  if ok then
    ok, err = server.start(ctx, node, source)
  end
  if ok then
    ok, err = files.save(state)
  end
  return ok, err
end

-- Running servers of a node's shard, besides it, in a role.
local function others(ctx, state, node, role)
  return select_nodes(state, function(other)
    return other ~= node and other.shard_id == node.shard_id and server.pid(ctx, other) and server.role(ctx, other) == role
  end)
end

--- Make a primary a standby, as the first step of a switch-over: it is stopped cleanly and started again behind a
-- replica, which is to be promoted next. Until then nobody accepts writes.
-- @tparam table options `name` or `dir`
-- @string which such as `shard2`
function sandbox.demote(options, which)
  return on_server(options, which, function(ctx, state, node)
    if not server.pid(ctx, node) or server.role(ctx, node) ~= "primary" then
      return failure("%s is no running primary", which)
    end
    local source = others(ctx, state, node, "replica")[1]
    if not source then
      return failure("%s has no running replica to take its place", which)
    end
    local ok, err = server.stop(ctx, node, "fast")
    if not ok then
      return nil, err
    end
    return start_standby(ctx, state, node, source)
  end)
end

--- Make a server a standby of its shard's running primary: a former primary is rewound (`pg_rewind`), and copied
-- anew when that is not possible; a replica follows the primary that it is given.
-- @tparam table options `name` or `dir`
-- @string which such as `shard2` or `shard2_replica1`
function sandbox.rejoin(options, which)
  return on_server(options, which, function(ctx, state, node)
    local primary = others(ctx, state, node, "primary")[1]
    if not primary then
      return failure("there is no other running primary in %s; promote a replica first", node.shard_id)
    end
    local ok, err = true, nil
    if server.pid(ctx, node) then
      ok, err = server.stop(ctx, node, "fast")
    end
    if ok and server.role(ctx, node) == "primary" then
      ok, err = server.rewind(ctx, node, primary)
      if not ok then
        ctx.progress(("%s cannot be rewound, so it is copied: %s"):format(which, err.message))
        ok, err = server.clone(ctx, node, primary)
      end
    end
    if not ok then
      return nil, err
    end
    return start_standby(ctx, state, node, primary)
  end)
end

return sandbox
