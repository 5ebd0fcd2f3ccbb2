--- The servers of a chaos run, and what may happen to one of them.
-- @module spec.chaos.servers

local cli = require("spec.support.cli")
local lunashard = require("lunashard")
local process = require("lunashard.process")
local sandbox = require("lunashard.sandbox")
local signals = require("spec.support.signals")
local support = require("spec.support.faults")
local system = require("lunashard.core.system")

local servers = {}

local PATIENCE = 60 -- seconds
local DISK = { shard = 2, size = "192m" }

local function entry_of(shard, name)
  for _, replica in ipairs(shard.replicas) do
    if replica.name == name then
      return replica
    end
  end
  assert(shard.name == name, "a server of the shard")
  return shard
end

local function wait_until(what, is_so)
  local deadline = lunashard.now() + PATIENCE
  while not is_so() do
    assert(lunashard.now() < deadline, what .. ": not within a minute")
    lunashard.sleep(0.05)
  end
end

--- The server of a shard that takes writes, and a standby of it. Yields while there is none.
-- @tparam Run run
-- @int number of the shard
-- @treturn table
-- @treturn ?table
function servers.primary(run, number)
  local shard, primary, standby = run.servers.shards[number], nil, nil
  wait_until(shard.shard_id .. " has a primary", function()
    for _, server in ipairs(assert(sandbox.status(run.servers.place)).servers) do
      if server.shard_id == shard.shard_id then
        local entry = entry_of(shard, server.name)
        if server.role == "replica" then
          standby = entry
        elseif not primary or server.state == "running" then
          primary = entry
        end
      end
    end
    return primary
  end)
  return primary, standby
end

local function must(server, sql)
  return assert(support.ask(server, sql)).rows
end

-- ---- synchronous replicas ----------------------------------------------------------------

local STREAMS = "SELECT count(*) AS n FROM pg_stat_replication WHERE state = 'streaming' AND application_name = '%s'"

-- From here on what is acknowledged is on the standby, too.
local function synchronize(primary, standby)
  wait_until(standby.name .. " follows", function()
    local found = support.ask(primary, STREAMS:format(standby.name))
    return found and found.rows[1].n == 1
  end)
  must(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
  must(primary, "SELECT pg_reload_conf()")
  wait_until(primary.name .. " waits for its standby", function()
    local found = support.ask(primary, "SELECT sync_state FROM pg_stat_replication")
    return found and found.rows[1] and found.rows[1].sync_state == "sync"
  end)
end

-- Who has no standby any more must not wait for it.
local function go_alone(server)
  wait_until(server.name .. " answers", function()
    return (support.ask(server, "ALTER SYSTEM RESET synchronous_standby_names"))
  end)
  must(server, "SELECT pg_reload_conf()")
end

-- A commit that comes back from the standby: all before it is there, too.
local function settle(primary)
  wait_until(primary.name .. " and its standby are one", function()
    local found = support.ask(primary, "SELECT pg_logical_emit_message(true, 'chaos', 'here') IS NOT NULL AS done, "
      .. "sync_state FROM pg_stat_replication")
    return found and found.rows[1] and found.rows[1].sync_state == "sync"
  end)
end

local function prepare_disk(run)
  local shard = run.servers.shards[DISK.shard]
  local owner = assert(system.stat(run.servers.dir .. "/data")).uid
  local dir = cli.directory(493) -- 0755
  local mounted = process.run({ argv = { "mount", "-t", "tmpfs", "-o", ("size=%s,mode=0700,uid=%d"):format(DISK.size, owner),
    "tmpfs", dir } })
  assert(mounted and mounted.code == 0, "a small disk takes root: " .. (mounted and mounted.stderr or ""))
  run.disk = dir
  must(shard, ("CREATE TABLESPACE small OWNER %s LOCATION '%s'"):format(shard.user, dir))
  for _, name in ipairs({ "tokens", "extras" }) do
    must(shard, ("ALTER TABLE %s SET TABLESPACE small"):format(name))
  end
  must(shard, ("ALTER DATABASE %s SET default_tablespace = 'small'"):format(shard.database))
end

--- Make them what the run's shape wants. Yields.
-- @tparam Run run
function servers.prepare(run)
  if run.options.shape == "disk" then
    prepare_disk(run)
  elseif run.options.shape == "replicas" then
    for i = 1, #run.servers.shards do
      local primary, standby = servers.primary(run, i)
      synchronize(primary, standby)
    end
  end
end

--- When the servers are gone. Yields.
-- @tparam Run run
function servers.remove(run)
  if run.disk then
    assert(process.run({ argv = { "umount", run.disk } }).code == 0)
    run.disk = nil
  end
end

-- ---- what may happen ------------------------------------------------------------------------

local function any(run, dice)
  return dice:int(2, #run.servers.shards)
end

-- The first shard's.
local function catalog()
  return 1
end

-- A server crashes, and is started again.
local function crash(which)
  return function(run, dice)
    local number, pause = which(run, dice), dice:real() * 2
    return ("shard%d is killed for %.1f s"):format(number, pause), function()
      run.servers:kill(servers.primary(run, number).name)
      lunashard.sleep(pause)
      run.servers:start()
    end
  end
end

-- A server stands still.
local function freeze(which)
  return function(run, dice)
    local number, pause = which(run, dice), dice:pick({ 0.5, 2, 4, 7 })
    return ("shard%d stands still for %.1f s"):format(number, pause), function()
      local name = servers.primary(run, number).name
      signals.freeze(run.servers, name)
      lunashard.sleep(pause)
      signals.thaw(run.servers, name)
    end
  end
end

-- The standby of a server that crashed takes its place, and the server becomes its standby.
local function fail_over(run, dice)
  local number = dice:int(1, #run.servers.shards)
  return ("shard%d fails over"):format(number), function()
    local primary, standby = servers.primary(run, number)
    settle(primary)
    run.servers:kill(primary.name)
    run.servers:promote(standby.name)
    go_alone(standby)
    run.servers:rejoin(primary.name)
    synchronize(standby, primary)
  end
end

-- The same, planned.
local function switch_over(run, dice)
  local number = dice:int(1, #run.servers.shards)
  return ("shard%d is switched over"):format(number), function()
    local primary, standby = servers.primary(run, number)
    settle(primary)
    run.servers:demote(primary.name)
    run.servers:promote(standby.name)
    go_alone(standby)
    synchronize(standby, primary)
  end
end

local FILL = "INSERT INTO filler SELECT repeat('x', 8000) FROM generate_series(1, %d)"

-- No room for rows any more, nor for copies of them.
local function fill_disk(run, dice)
  local pause = dice:between(0.5, 5)
  return ("shard%d's disk is full for %.1f s"):format(DISK.shard, pause), function()
    local server = servers.primary(run, DISK.shard)
    must(server, "CREATE UNLOGGED TABLE filler (t text) TABLESPACE small; ALTER TABLE filler ALTER t SET STORAGE PLAIN")
    for _, size in ipairs({ 1000, 100, 1 }) do
      local full
      repeat
        local _, err = support.ask(server, FILL:format(size))
        full = err
      until full
      assert(full.sqlstate == "53100", tostring(full))
    end
    lunashard.sleep(pause)
    must(server, "DROP TABLE filler")
  end
end

--- What may happen, by name: `plan(run, dice)` gives a text, and a function that does it and yields until all is well again.
servers.FAULTS = {
  server = { plan = crash(any), weight = 3 },
  catalog = { plan = crash(catalog) },
  frozen_server = { plan = freeze(any), weight = 3 },
  frozen_catalog = { plan = freeze(catalog) },
  fail_over = { plan = fail_over, needs = "replicas", weight = 3 },
  switch_over = { plan = switch_over, needs = "replicas", weight = 2 },
  full_disk = { plan = fill_disk, needs = "disk", weight = 3 },
}

return servers
