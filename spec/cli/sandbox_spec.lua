local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local process = require("lunashard.process")
local system = require("lunashard.core.system")

local base = ("spec-cli-%d"):format(system.getpid())
local PLACE = { "--name", base }

-- `sandbox ACTION [arguments] --name ...`
local function sandbox(action, arguments, options)
  local argv = { "sandbox", action }
  for _, list in ipairs({ arguments or {}, (options or {}).place or PLACE }) do
    for _, argument in ipairs(list) do
      table.insert(argv, argument)
    end
  end
  local passed = {}
  for name, value in pairs(options or {}) do
    passed[name] = name ~= "place" and value or nil
  end
  return cli.run(argv, passed)
end

local function ok(result)
  assert.equal(0, result.code, result.stderr)
  return result
end

local function servers(options)
  return assert(cjson.decode(ok(sandbox("status", { "--json" }, options)).stdout)).servers
end

local function start(arguments, options)
  return ok(sandbox("start", arguments, options)).stdout:match("^(.*)/cluster%.lua\n$")
end

-- psql as the application's role.
local function query(dir, node, sql, connection)
  local uri = ("host=127.0.0.1 port=%d user=app dbname=%s connect_timeout=5 "):format(node.port, node.database)
  uri = uri .. (connection or "")
  local result = assert(process.run({
    argv = { "psql", "-XAtqw", uri },
    stdin = sql,
    env = { PGPASSFILE = dir .. "/passfile" },
    timeout = 20,
  }))
  return result.code == 0 and result.stdout:gsub("\n$", "") or nil, result.stderr
end

local function is_root()
  if system.getuid() == 0 then
    return true
  end
  pending("takes root")
  return false
end

describe("lunashard sandbox", function()
  describe("that runs", function()
    local dir

    setup(function()
      dir = start({ "--shards", "2" })
    end)

    teardown(function()
      sandbox("destroy")
    end)

    it("starts servers that take connections, and prints the cluster file's path alone on stdout", function()
      local result = ok(sandbox("start"))
      assert.equal(dir .. "/cluster.lua\n", result.stdout)
      assert.matches("lunashard run %-c " .. (dir .. "/cluster.lua"):gsub("%p", "%%%0"), result.stderr)
      local nodes = servers()
      assert.equal(2, #nodes)
      for i, node in ipairs(nodes) do
        assert.equal("shard" .. i, node.shard_id)
        assert.equal("app_shard" .. i, query(dir, node, "SELECT current_database()"))
        assert.equal("off", query(dir, node, "SELECT current_setting('is_superuser')"))
        assert.equal("t", query(dir, node, "CREATE TABLE t (id int8); INSERT INTO t VALUES (1); SELECT true"))
        assert.equal("logical", query(dir, node, "SHOW wal_level"))
      end
      assert.are_not.equal(nodes[1].port, nodes[2].port)
    end)

    it("asks for a password, and keeps it from others", function()
      local node = servers()[1]
      local _, reason = query("/nonexistent", node, "SELECT 1")
      assert.matches("no password supplied", reason)
      for _, name in ipairs({ "passfile", "cluster.lua", "state.json" }) do
        assert.equal(384, assert(system.stat(dir .. "/" .. name)).mode)
      end
      local file = assert(io.open(dir .. "/passfile"))
      local password = file:read("*l"):match("([^:]*)$")
      file:close()
      assert.is_true(#password >= 16)
      local status = sandbox("status", { "--json" })
      assert.is_nil(status.stdout:find(password, 1, true))
      local command_lines = assert(process.run({ argv = { "/bin/sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null" } }))
      assert.is_nil(command_lines.stdout:find(password, 1, true))
    end)

    it("is idempotent: a second start changes nothing", function()
      local before = servers()
      local result = ok(sandbox("start"))
      assert.same(before, servers())
      assert.is_nil(result.stderr:find("making", 1, true))
    end)

    it("refuses to change the number of shards of a sandbox that is there", function()
      local result = sandbox("start", { "--shards", "5" })
      assert.equal(1, result.code)
      assert.equal("", result.stdout)
      assert.matches("was made with shards = 2; destroy it first", result.stderr)
    end)

    it("keeps data through stop and start", function()
      assert.equal("t", query(dir, servers()[2], "CREATE TABLE kept (x int); SELECT true"))
      ok(sandbox("stop"))
      for _, node in ipairs(servers()) do
        assert.equal("down", node.state)
        assert.is_nil(node.pid)
      end
      ok(sandbox("stop")) -- stopping what is stopped is fine
      ok(sandbox("start"))
      assert.equal("0", query(dir, servers()[2], "SELECT count(*) FROM kept"))
    end)

    it("kills one server as a crash would, and start brings it back with its data", function()
      query(dir, servers()[2], "CREATE TABLE survives (x int)")
      local before = servers()
      ok(sandbox("kill", { "shard2" }))
      assert.is_false(process.is_alive(before[2].pid))
      local after = servers()
      assert.same({ "running", "down" }, { after[1].state, after[2].state })
      ok(sandbox("start"))
      after = servers()
      assert.equal(before[1].pid, after[1].pid)
      assert.equal("running", after[2].state)
      assert.equal("0", query(dir, after[2], "SELECT count(*) FROM survives"))
    end)

    it("names the nearest server for one that does not exist", function()
      local result = sandbox("kill", { "shrad2" })
      assert.equal(1, result.code)
      assert.matches("no server named shrad2; did you mean shard2%?", result.stderr)
    end)

    it("recovers from a pid file whose pid is another process's now, and never signals that one", function()
      if not is_root() then
        return
      end
      ok(sandbox("kill", { "shard1" }))
      local bystander = assert(process.spawn({ argv = { "sleep", "60" }, user = "postgres" }))
      local file = assert(io.open(dir .. "/data/shard1/postmaster.pid", "w"))
      file:write(bystander.pid, "\n", dir, "/data/shard1\n")
      file:close()
      assert.equal("down", servers()[1].state)
      ok(sandbox("stop"))
      assert.is_true(bystander:is_running())
      ok(sandbox("start"))
      assert.equal("running", servers()[1].state)
      assert.is_true(bystander:is_running())
      bystander:close()
    end)
  end)

  describe("of its own for each test", function()
    after_each(function()
      sandbox("destroy")
      cli.remove_all()
    end)

    it("leaves nothing when it is destroyed", function()
      local dir = start({ "--shards", "1" })
      local nodes = servers()
      ok(sandbox("destroy"))
      assert.is_nil((system.stat(dir)))
      for _, node in ipairs(nodes) do
        assert.is_false(process.is_alive(node.pid))
      end
      local result = sandbox("destroy")
      assert.equal(1, result.code)
      assert.matches("there is no sandbox in", result.stderr)
    end)

    it("has replicas that stream, can be promoted, and refuses to promote without one", function()
      local dir = start({ "--shards", "1", "--replicas", "1" })
      local nodes = servers()
      assert.same({ "primary", "replica" }, { nodes[1].role, nodes[2].role })
      assert.equal("t", query(dir, nodes[2], "SELECT pg_is_in_recovery()"))
      query(dir, nodes[1], "CREATE TABLE t (x int); INSERT INTO t VALUES (7)")
      cli.wait_until("the row is on the replica", function()
        return query(dir, nodes[2], "SELECT x FROM t") == "7"
      end)
      ok(sandbox("kill", { "shard1" }))
      ok(sandbox("promote", { "shard1" }))
      nodes = servers()
      assert.same({ "down", "primary" }, { nodes[1].state, nodes[2].role })
      assert.equal("f", query(dir, nodes[2], "SELECT pg_is_in_recovery()"))
      local result = sandbox("promote", { "shard1" })
      assert.equal(1, result.code)
      assert.matches("shard1 has no running replica", result.stderr)
    end)

    it("takes a former primary back as a replica, without what it wrote after its time", function()
      local dir = start({ "--shards", "1", "--replicas", "1" })
      local nodes = servers()
      local result = sandbox("rejoin", { "shard1" })
      assert.equal(1, result.code)
      assert.matches("no other running primary in shard1", result.stderr)
      assert.equal("t", query(dir, nodes[1], "CREATE TABLE t (id int8); INSERT INTO t VALUES (1); SELECT true"))
      ok(sandbox("kill", { "shard1" }))
      ok(sandbox("promote", { "shard1" }))
      start({})
      assert.equal("t", query(dir, nodes[1], "INSERT INTO t VALUES (2); SELECT true"))
      assert.equal("t", query(dir, nodes[2], "INSERT INTO t VALUES (3); SELECT true"))
      ok(sandbox("rejoin", { "shard1" }))
      nodes = servers()
      assert.same({ "replica", "primary" }, { nodes[1].role, nodes[2].role })
      cli.wait_until("the rows are the primary's", function()
        return query(dir, nodes[1], "SELECT array_agg(id ORDER BY id) FROM t") == "{1,3}"
      end)
    end)

    it("demotes a primary and promotes its replica without losing a row", function()
      local dir = start({ "--shards", "1", "--replicas", "1" })
      local nodes = servers()
      assert.equal("t", query(dir, nodes[1], "CREATE TABLE t (id int8); INSERT INTO t VALUES (1); SELECT true"))
      ok(sandbox("demote", { "shard1" }))
      for _, node in ipairs(servers()) do
        assert.equal("t", query(dir, node, "SELECT pg_is_in_recovery()"))
      end
      local result = sandbox("demote", { "shard1" })
      assert.equal(1, result.code)
      assert.matches("shard1 is no running primary", result.stderr)
      ok(sandbox("promote", { "shard1_replica1" }))
      assert.equal("1", query(dir, nodes[2], "INSERT INTO t VALUES (2); SELECT min(id) FROM t"))
      cli.wait_until("the old primary follows", function()
        return query(dir, nodes[1], "SELECT max(id) FROM t") == "2"
      end)
    end)

    it("offers TLS with a certificate that verify-full accepts by its own authority only", function()
      local dir = start({ "--shards", "1", "--tls" })
      local node = servers()[1]
      local sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
      assert.equal("t", query(dir, node, sql, "sslmode=verify-full sslrootcert=" .. dir .. "/ca.crt"))
      local _, reason = query(dir, node, sql, "sslmode=verify-full sslrootcert=/etc/ssl/certs/ca-certificates.crt")
      assert.is_truthy(reason:find("certificate"), reason)
    end)

    it("recovers from a start that was killed half-way", function()
      local dir = ("%s/lunashard-sandbox-%d/%s"):format(os.getenv("TMPDIR") or "/tmp", system.getuid(), base)
      local child = cli.spawn({ "sandbox", "start", "--name", base })
      cli.wait_until("a data directory is being made", function()
        return system.stat(dir .. "/data/shard1") ~= nil
      end)
      child:kill()
      assert(child:wait(10))
      child:close()
      assert.is_nil((system.stat(dir .. "/state.json")))
      local result = sandbox("status")
      assert.equal(1, result.code)
      assert.equal(dir, start({ "--shards", "1" }))
      assert.equal("1", query(dir, servers()[1], "SELECT 1"))
    end)

    it("refuses a second start while the first is at work", function()
      local first = cli.spawn({ "sandbox", "start", "--shards", "1", "--name", base })
      cli.wait_until("it says what it makes", function()
        return select(2, first:output()):find("making", 1, true) ~= nil
      end)
      local second = sandbox("start")
      assert.equal(0, assert(first:wait(60)).code)
      first:close()
      if second.code ~= 0 then
        assert.matches("another `sandbox start` %(pid %d+%) is at work on", second.stderr)
      end
      for _, node in ipairs(servers()) do
        assert.equal("running", node.state)
      end
    end)

    it("leaves a directory alone that is no sandbox", function()
      local dir = cli.directory(493)
      cli.write(dir, "precious", "data")
      for _, action in ipairs({ "start", "stop", "destroy" }) do
        local result = sandbox(action, {}, { place = { "--dir", dir } })
        assert.equal(1, result.code)
        assert.matches("^lunashard: sandbox: [^\n]+\n$", result.stderr)
      end
      assert.same({ "precious" }, system.listdir(dir))
    end)

    it("takes a directory that is named, also an empty one", function()
      local dir = cli.directory(493)
      local place = { place = { "--dir", dir } }
      local result = sandbox("start", { "--shards", "1" }, place)
      local status = servers(place)
      sandbox("destroy", {}, place)
      ok(result)
      assert.equal(dir .. "/cluster.lua\n", result.stdout)
      assert.equal("running", status[1].state)
    end)

    it("says which directory the servers' user cannot enter, and leaves nothing", function()
      if not is_root() then
        return
      end
      local dir = cli.directory(448)
      local result = sandbox("start", {}, { place = { "--dir", dir .. "/inner" } })
      assert.equal(1, result.code)
      assert.matches("servers' user %w+ cannot enter [^\n]*inner; choose a %-%-dir", result.stderr)
      assert.same({}, system.listdir(dir))
    end)

    it("works from a working directory that only we may enter", function()
      local dir = cli.directory(448)
      ok(sandbox("start", { "--shards", "1" }, { cwd = dir, env = { TMPDIR = dir } }))
      local status = cjson.decode(ok(sandbox("status", { "--json" }, { cwd = dir, env = { TMPDIR = dir } })).stdout)
      ok(sandbox("destroy", {}, { cwd = dir, env = { TMPDIR = dir } }))
      assert.equal("running", status.servers[1].state)
    end)

    it("works for an ordinary user", function()
      if not is_root() then
        return
      end
      -- The checkout may lie where that user cannot go.
      local dir = cli.directory(493)
      assert(process.run({ argv = { "cp", cli.binary, dir .. "/lunashard" } }))
      local function as_nobody(...)
        return assert(process.run({ argv = { dir .. "/lunashard", "sandbox", ... }, user = "nobody", timeout = 60 }))
      end
      local started = as_nobody("start", "--shards", "1", unpack(PLACE))
      local status = as_nobody("status", "--json", unpack(PLACE))
      local destroyed = as_nobody("destroy", unpack(PLACE))
      assert.equal(0, started.code, started.stderr)
      assert.equal("running", cjson.decode(status.stdout).servers[1].state)
      assert.equal(0, destroyed.code, destroyed.stderr)
    end)

    it("says in one line that the disk is full and leaves nothing half-done", function()
      if not is_root() then
        return
      end
      local dir = cli.directory(493)
      local mounted = process.run({ argv = { "mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", dir } })
      if not mounted or mounted.code ~= 0 then
        pending("takes the right to mount")
        return
      end
      local result = sandbox("start", { "--shards", "1" }, { place = { "--dir", dir .. "/inner" } })
      local left = system.listdir(dir)
      assert(process.run({ argv = { "umount", dir } }))
      assert.equal(1, result.code)
      assert.equal("", result.stdout)
      assert.matches("\nlunashard: sandbox: [^\n]*No space left on device[^\n]*\n$", result.stderr)
      assert.same({}, left)
    end)

    it("gives JSON on stdout for failures too", function()
      local result = sandbox("status", { "--json" })
      assert.equal(1, result.code)
      local decoded = assert(cjson.decode(result.stdout))
      assert.equal("INVALID", decoded.error.code)
      assert.matches("there is no sandbox in", decoded.error.message)
    end)

    it("cleans up when it is interrupted, or lets the next start do so", function()
      local child = cli.spawn({ "sandbox", "start", "--name", base })
      cli.wait_until("it says what it makes", function()
        return select(2, child:output()):find("making", 1, true) ~= nil
      end)
      child:signal("INT")
      local result = assert(child:wait(10))
      child:close()
      assert.equal(130, result.code)
      start({ "--shards", "1" })
      assert.equal("running", servers()[1].state)
    end)
  end)
end)
