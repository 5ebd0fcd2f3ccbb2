local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local replicas = require("spec.support.replicas")
local task = require("lunashard.task")

describe("reloading the options of a cluster at work", function()
  local servers, shard1, replica, path

  setup(function()
    servers = replicas.start(1)
    shard1, replica = servers.sandbox.shards[1], servers.sandbox.shards[1].replicas[1]
    path = servers.sandbox.dir .. "/reloaded.lua"
    servers:admin(servers.primary, "CREATE ROLE rotating LOGIN PASSWORD 'first'")
    servers:admin(servers.primary, "CREATE TABLE counted (id int8 PRIMARY KEY)")
    servers:admin(servers.primary, "GRANT ALL ON counted TO PUBLIC")
    servers:wait_for_replay()
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers:admin(servers.primary, "ALTER ROLE rotating PASSWORD 'first'")
    servers:wait_for_replay()
  end)

  after_each(function()
    cluster.close_all()
    os.remove(path)
  end)

  local function address(server)
    return { host = server.host, port = server.port }
  end

  -- Options for the one shard, as the role that this file may change.
  local function options(more, of_shard)
    local shard = {
      shard_id = "shard1",
      host = shard1.host,
      port = shard1.port,
      database = shard1.database,
      user = "rotating",
      password = "first",
    }
    for name, value in pairs(of_shard or {}) do
      shard[name] = value
    end
    local all = {
      shards = { shard },
      strategy = { "range", ranges = { shard1 = { nil, 999999 } }, allow_gaps = true, shard_key = "id" },
      tables = { counted = { shard_key = "id", type = "int8" } },
      health_check_interval = 0.2,
    }
    for name, value in pairs(more or {}) do
      all[name] = value
    end
    return all
  end

  local opened

  local function connect(given)
    opened = lunashard.manager(given or options())
    assert(opened:initialize())
    return opened, lunashard.router(opened)
  end

  after_each(function()
    if opened then
      opened:shutdown()
      opened = nil
    end
  end)

  local function sessions(where, condition)
    return servers:admin(where, "SELECT count(*) AS n FROM pg_stat_activity WHERE usename = 'rotating' AND "
      .. (condition or "true"))[1].n
  end

  -- Tasks that read and write until they are told to stop; nothing of it may fail.
  local function traffic(router, n)
    local state = { going = true, done = 0, tasks = {} }
    local id = 0
    servers:admin(servers.primary, "TRUNCATE counted")
    for w = 1, n do
      state.tasks[w] = task.spawn(function()
        while state.going do
          id = id + 1
          assert(router:execute("INSERT INTO counted VALUES ($1)", { id }, { routing_key = id }))
          assert(router:execute("SELECT count(*) AS n FROM counted WHERE id = $1", { id },
            { routing_key = id, read_only = true }))
          state.done = state.done + 1
        end
      end):watch()
    end
    function state.advance(by)
      local before = state.done
      cluster.wait_until("work goes on", function()
        for _, one in ipairs(state.tasks) do
          assert.is_true(one:status() == "waiting" or one:status() == "starting", one:status())
        end
        return state.done >= before + (by or 100)
      end, 20)
    end
    function state.stop()
      state.going = false
      for _, one in ipairs(state.tasks) do
        assert(one:join(10))
      end
      assert.equal(id, servers:admin(servers.primary, "SELECT count(*) AS n FROM counted")[1].n)
    end
    return state
  end

  it("adds a replica, which gets reads, and removes it while reads are under way", function()
    local manager, router = connect()
    local work = traffic(router, 10)
    work.advance()
    local long = task.spawn(function()
      return assert(router:execute("SELECT pg_sleep(1.5)", nil, { routing_key = 1 }))
    end)
    local changed = assert(manager:reload(options(nil, { replicas = { address(replica) } })))
    assert.equal(("shard1 (%s): replica added"):format(servers.replicas[1]), changed[1].message)
    assert.equal("endpoint_added", changed[1].what)
    assert.equal("healthy", manager:get_shard_status("shard1").endpoints[2].status)
    local function reads_go_to(where)
      cluster.wait_until("reads go to " .. where, function()
        return assert(router:execute("SELECT 1", nil, { routing_key = 1, read_only = true })).endpoint == where
      end)
    end
    reads_go_to(servers.replicas[1])
    work.advance()
    local reading = task.spawn(function()
      return assert(router:execute("SELECT pg_sleep(1.5)", nil, { routing_key = 1, read_only = true }))
    end)
    cluster.wait_until("the replica is asked", function()
      return sessions(servers.replicas[1], "state = 'active' AND query LIKE '%pg_sleep%'") == 1
    end)
    assert(manager:reload(options()))
    assert.equal(1, #manager:get_shard_status("shard1").endpoints)
    reads_go_to(servers.primary)
    work.advance()
    local ok, result = reading:join(10)
    assert.is_true(ok)
    assert.equal(servers.replicas[1], result.endpoint)
    assert.is_true((long:join(10)))
    cluster.wait_until("no connection to the replica is left", function()
      return sessions(servers.replicas[1]) == 0
    end, 10)
    work.stop()
    assert.equal(0, router:get_statistics().errors)
  end)

  it("uses a new password, while what works with the old one goes on", function()
    local manager, router = connect(options({ connection_pool_size = 4 }))
    local work = traffic(router, 6)
    work.advance()
    local tx = assert(router:begin({ routing_key = 1 }))
    servers:admin(servers.primary, "ALTER ROLE rotating PASSWORD 'second'")
    local changed = assert(manager:reload(options({ connection_pool_size = 8 }, { password = "second" })))
    assert.same({ "connection_pool_size: 4 -> 8", ("shard1 (%s): password changed"):format(servers.primary) },
      { changed[1].message, changed[2].message })
    local held = {}
    for i = 1, 4 do -- more than there were connections
      held[i] = assert(router:begin({ routing_key = 1 }))
    end
    assert(tx:execute("SELECT 1"))
    for _, one in ipairs(held) do
      assert(one:rollback())
    end
    assert(tx:commit())
    work.advance()
    work.stop()
    assert.equal(0, router:get_statistics().errors)
    cluster.wait_until("probes go on", function()
      return manager.shard_health.shard1.status == "healthy"
    end)
  end)

  it("waits for a new password to reach the replicas", function()
    local function with_replica(password)
      return options(nil, { password = password, replicas = { address(replica) } })
    end
    local manager, router = connect(with_replica("first"))
    servers:pause(servers.replicas[1])
    servers:admin(servers.primary, "ALTER ROLE rotating PASSWORD 'second'")
    local reloading = task.spawn(function()
      return assert(manager:reload(with_replica("second")))
    end)
    cluster.wait_until("it is under way", function()
      return manager.reloading
    end)
    servers:resume(servers.replicas[1])
    assert.is_true((reloading:join(10)))
    cluster.wait_until("it is read from", function()
      return assert(router:execute("SELECT 1", nil, { routing_key = 1, read_only = true })).endpoint == servers.replicas[1]
    end)
  end)

  it("refuses a password that the server does not take, and goes on with the old one", function()
    local manager, router = connect(options({ connection_pool_size = 4 }))
    local changed, err = manager:reload(options({ connection_pool_size = 8 }, { password = "wrong" }))
    assert.is_nil(changed)
    assert.equal("AUTH", err.code)
    assert.equal("shard1", err.shard_id)
    assert.matches("nothing was changed: .*password authentication failed", err.message)
    assert.is_nil(tostring(err):find("wrong", 1, true))
    assert.equal(4, manager:get_pool_stats("shard1").max_size)
    assert(router:execute("SELECT 1", nil, { routing_key = 1 }))
  end)

  it("changes limits under load, without killing what is in use", function()
    local manager, router = connect(options({ connection_pool_size = 12, pipeline = false }))
    local work = traffic(router, 20)
    work.advance()
    assert(manager:reload(options({ connection_pool_size = 3, max_waiters = 100, pipeline = false, query_timeout = 20 })))
    cluster.wait_until("the pool is small", function()
      return manager:get_pool_stats("shard1").size <= 3
    end)
    work.advance()
    assert.is_true(manager:get_pool_stats("shard1").size <= 3)
    assert(manager:reload(options({ connection_pool_size = 9, pipeline = false })))
    cluster.wait_until("the pool has grown", function()
      return manager:get_pool_stats("shard1").size > 3
    end)
    work.stop()
    assert.equal(0, router:get_statistics().errors)
    assert.equal(30, router.query_timeout)
  end)

  it("follows the primary to another address of the same server", function()
    local manager, router = connect()
    local work = traffic(router, 6)
    work.advance()
    local changed = assert(manager:reload(options(nil, { host = "localhost" })))
    assert.equal("primary", changed[2].what)
    local endpoint = "localhost:" .. shard1.port
    assert.equal(endpoint, assert(router:execute("SELECT 1", nil, { routing_key = 1 })).endpoint)
    assert.equal("localhost", manager.shards[1].host)
    work.advance()
    work.stop()
    assert.equal(1, #manager:get_shard_status("shard1").endpoints)
    cluster.wait_until("the old address is left", function()
      return sessions(servers.primary, "state = 'active' AND query LIKE 'INSERT%'") == 0
    end)
    assert.equal(0, router:get_statistics().errors)
  end)

  it("refuses a primary that is a standby, or of another cluster, or does not answer", function()
    local manager, router = connect()
    local _, err = manager:reload(options(nil, address(replica)))
    assert.equal("INVALID", err.code)
    assert.matches("it is a standby, so it cannot be the primary", err.message)
    _, err = manager:reload(options({ connection_timeout = 1 }, { port = 1 }))
    assert.equal("SHARD_DOWN", err.code)
    local other = require("spec.support.sandbox").shared().shards[1]
    _, err = manager:reload(options(nil, { host = other.host, port = other.port, user = other.user,
      password = other.password, database = shard1.database }))
    assert.is_truthy(err.code == "INVALID" and err.message:find("it is no copy of this shard", 1, true)
      or err.sqlstate == "3D000", tostring(err)) -- or that cluster has no database of this name
    assert.equal(servers.primary, assert(router:execute("SELECT 1", nil, { routing_key = 1 })).endpoint)
  end)

  it("knows the roles after a file was edited to say them the other way round", function()
    local manager, router = connect(options(nil, { replicas = { address(replica) } }))
    local given = options(nil, { replicas = { address(shard1) } })
    given.shards[1].host, given.shards[1].port = replica.host, replica.port
    assert(manager:reload(given))
    assert.equal(servers.primary, assert(router:execute("SELECT 1", nil, { routing_key = 1 })).endpoint)
    assert.equal("primary", manager:get_shard_status("shard1").endpoints[2].role)
    given.enable_auto_failover = false -- then the file decides, and what it says must be so
    local _, err = manager:reload(given)
    assert.matches("it is a standby", err.message)
  end)

  it("allows one reload at a time", function()
    local manager = connect()
    local reloads = {}
    for i = 1, 2 do
      reloads[i] = task.spawn(function()
        local changed, err = manager:reload(options(nil, { replicas = { address(replica) } }))
        return changed or false, err
      end)
    end
    local _, changed = reloads[1]:join(10)
    local _, refused, err = reloads[2]:join(10)
    assert.equal("endpoint_added", changed[1].what)
    assert.is_false(refused)
    assert.matches("another reload is under way", err.message)
    assert.equal(2, #manager:get_shard_status("shard1").endpoints)
    assert.same({}, assert(manager:reload(options(nil, { replicas = { address(replica) } }))))
  end)

  describe("from the cluster file", function()
    local function write(text)
      local file = assert(io.open(path, "w"))
      assert(file:write(text))
      file:close()
      assert(require("lunashard.core.system").chmod(path, 384))
    end

    local function text(more)
      return ([[return {
        shards = { { shard_id = "shard1", host = %q, port = %d, database = %q, user = "rotating", password = "first" %s } },
        strategy = { "range", shard_key = "id", ranges = { shard1 = { nil, 999 } }, allow_gaps = true },
      }]]):format(shard1.host, shard1.port, shard1.database, more or "")
    end

    it("takes what has changed in it", function()
      write(text())
      local opened_cluster = assert(lunashard.open(path))
      opened = opened_cluster.manager
      assert.same({}, assert(opened_cluster:reload()))
      write(text((", replicas = { { host = %q, port = %d } }"):format(replica.host, replica.port)))
      local changed = assert(opened_cluster:reload())
      assert.equal("endpoint_added", changed[1].what)
      assert.equal(1, #opened_cluster.manager.shards[1].replicas)
    end)

    it("changes nothing for a file that is wrong, and says why", function()
      write(text())
      local opened_cluster = assert(lunashard.open(path))
      opened = opened_cluster.manager
      for wrong, message in pairs({
        ["return {"] = "reloaded.lua:1:",
        ["error('no secret')"] = "no secret",
        ["return 7"] = "returns a number, not a table",
        [text(", pool_sise = 3")] = 'did you mean "pool_size"',
        [text(", replicas = { {} }")] = "host: missing",
      }) do
        write(wrong)
        local changed, err = opened_cluster:reload()
        assert.is_nil(changed)
        assert.equal("INVALID", err.code)
        assert.is_truthy(err.message:find(message, 1, true), err.message)
        assert.is_truthy(err.message:find(path, 1, true), err.message)
        assert(opened_cluster.router:execute("SELECT 1", nil, { routing_key = 1 }))
      end
      os.remove(path)
      assert.is_nil((opened_cluster:reload()))
      assert(opened_cluster.router:execute("SELECT 1", nil, { routing_key = 1 }))
    end)

    it("adds a shard where no key moves, and its keys are there", function()
      local other = require("spec.support.sandbox").shared().shards[1]
      write(text())
      local opened_cluster = assert(lunashard.open(path))
      opened = opened_cluster.manager
      local _, err = opened_cluster.router:execute("SELECT 1", nil, { routing_key = 1500 })
      assert.equal("NO_SHARD", err.code)
      write((text():gsub("ranges = { ", "ranges = { shard2 = { 1000, 1999 }, ", 1)
        :gsub("shards = { ", ("shards = { { shard_id = %q, host = %q, port = %d, database = %q, user = %q, password = %q }, ")
          :format("shard2", other.host, other.port, other.database, other.user, other.password), 1)))
      local changed = assert(opened_cluster:reload())
      assert.equal("shard_added", changed[1].what)
      assert.equal("shard2", assert(opened_cluster.router:execute("SELECT 1", nil, { routing_key = 1500 })).shard_id)
      assert.is_true(opened_cluster.manager.shard_health.shard2.is_healthy)
    end)
  end)
end)
