local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")
local sockets = require("spec.support.sockets")
local task = require("lunashard.task")

local failure = cluster.failure

describe("manager:initialize", function()
  local made = {}

  after_each(function()
    for _, manager in ipairs(made) do
      manager:shutdown()
    end
    made = {}
    cluster.close_all()
  end)

  teardown(cluster.release)

  -- A manager with options changed by `change`; its warnings and what initialize returned.
  local function start(change, overrides)
    local options = cluster.options(overrides)
    if change then
      change(options)
    end
    local manager = lunashard.manager(options)
    made[#made + 1] = manager
    local warnings, ok, err = cluster.warnings(function()
      return manager:initialize()
    end)
    return manager, warnings, ok, err
  end

  it("probes every shard and says nothing when all is well", function()
    local manager, warnings, ok = start()
    assert.is_true(ok)
    assert.same({}, warnings)
    local status = manager:get_cluster_status()
    assert.equal(3, status.healthy_shards)
    assert.equal(3, status.total_shards)
    assert.equal(0, status.error_rate)
    for _, one in pairs(status.shards) do
      assert.equal("healthy", one.health.status)
      assert.is_true(one.health.average_latency_ms > 0)
      assert.is_number(one.health.last_check)
    end
  end)

  -- How many statements of this call's have shared a connection, by shard.
  local function shared_by(manager, run)
    local before, after = {}, {}
    for _, info in ipairs(manager.shards) do
      before[info.shard_id] = manager:get_pool_stats(info.shard_id).shared
    end
    run(lunashard.router(manager))
    for _, info in ipairs(manager.shards) do
      after[info.shard_id] = manager:get_pool_stats(info.shard_id).shared - before[info.shard_id]
    end
    return after
  end

  local READ = "SELECT relname FROM pg_class WHERE oid = $1"

  local function read_everywhere(opts)
    return function(router)
      for _ = 1, 20 do
        assert(router:scatter_gather(READ, { 1259 }, opts))
      end
    end
  end

  it("makes pools that share connections unless cluster, shard or call say otherwise", function()
    local manager = start(function(options)
      options.shards[2].pipeline = false
    end)
    shared_by(manager, read_everywhere()) -- the first ones are looked at
    local shared = shared_by(manager, read_everywhere())
    assert.equal(20, shared.shard1)
    assert.equal(0, shared.shard2)
    assert.equal(20, shared.shard3)
    assert.same({ shard1 = 0, shard2 = 0, shard3 = 0 }, shared_by(manager, read_everywhere({ pipeline = false })))
    assert.same({ shard1 = 0, shard2 = 0, shard3 = 0 }, shared_by(manager, function(router)
      for i = 1, 20 do
        local opts = { routing_key = i, read_only = true, pipeline = false }
        assert(router:explain(READ, { 1259 }, opts)) -- takes what execute takes
        assert(router:execute(READ, { 1259 }, opts))
      end
    end))
    manager = start(nil, { pipeline = false })
    shared_by(manager, read_everywhere())
    assert.same({ shard1 = 0, shard2 = 0, shard3 = 0 }, shared_by(manager, read_everywhere()))
  end)

  it("lets a shard say how soon a silent network is noticed", function()
    local manager = start(function(options)
      options.shards[1].sslmode, options.shards[1].keepalives_idle = "disable", 600
    end)
    local pool, port = manager:member("shard1").primary.pool, manager.shards[1].port
    local own = assert(pool:execute("SELECT inet_client_port() AS port")).rows[1].port
    local file = assert(io.open("/proc/self/net/tcp"))
    -- the kernel's keepalive timer of that connection, in hundredths of a second
    local left = file:read("*a"):match(("%%x+:%04X %%x+:%04X 01 %%x+:%%x+ 02:(%%x+)"):format(own, port))
    file:close()
    assert.is_true(left ~= nil and tonumber(left, 16) > 50000, left)
  end)

  it("may be called again", function()
    local manager = start()
    assert.is_true(manager:initialize())
  end)

  it("goes on with a shard down, says so, and reports it unhealthy", function()
    local manager, warnings, ok = start(function(options)
      options.shards[2].port = sockets.closed_port()
    end)
    assert.is_true(ok)
    assert.equal(1, #warnings)
    assert.is_truthy(warnings[1]:find("shard2", 1, true), warnings[1])
    assert.is_truthy(warnings[1]:find("refused", 1, true), warnings[1])
    assert.equal(2, manager:get_cluster_status().healthy_shards)
    local health = manager.shard_health.shard2
    assert.is_false(health.is_healthy)
    assert.equal("unhealthy", health.status)
    assert.is_true(health.consecutive_failures >= 1) -- it is looked at again before long
    assert.equal("SHARD_DOWN", health.last_error.code)
    assert.is_true(health.error_rate > 0)
  end)

  it("names the owner of a key whatever its health", function()
    local manager = start(function(options)
      options.shards[2].port = sockets.closed_port()
    end)
    local key = cluster.key_on(manager, 2)
    assert.equal("shard2", manager:get_shard_for_write(key).shard_id)
    assert.equal("shard2", (manager:get_shard_for_read(key)).shard_id)
  end)

  it("fails with require_all and names every shard that is down", function()
    local _, _, ok, err = start(function(options)
      options.shards[1].port = sockets.closed_port()
      options.shards[3].port = sockets.closed_port()
    end, { require_all = true })
    failure("SHARDS_FAILED", ok, err)
    local names = {}
    for i, one in ipairs(err.failed) do
      names[i] = one.shard_id
      assert.equal("SHARD_DOWN", one.error.code)
    end
    assert.same({ "shard1", "shard3" }, names)
    assert.equal(3, err.total)
  end)

  it("reports a wrong password as AUTH and never shows it", function()
    local manager, warnings, ok = start(function(options)
      options.shards[1].passfile = nil
      options.shards[1].password = "sesame-0815"
    end)
    assert.is_true(ok)
    assert.equal("AUTH", manager.shard_health.shard1.last_error.code)
    assert.is_truthy(warnings[1]:find("AUTH", 1, true), warnings[1])
    assert.is_nil((warnings[1] .. tostring(manager.shard_health.shard1.last_error)):find("sesame", 1, true))
  end)

  it("does not wait longer than connection_timeout for a server that accepts and never answers", function()
    local silent = sockets.silent_server()
    local started = task.now()
    local manager, warnings, ok = start(function(options)
      options.shards[3].port = silent.port
    end, { connection_timeout = 0.5 })
    assert.is_true(task.now() - started < 2)
    assert.is_true(ok)
    assert.equal(1, #warnings)
    assert.is_false(manager.shard_health.shard3.is_healthy)
    silent.close()
  end)

  it("finds out that a shard is back when it is used", function()
    local own = sandbox.start({ shards = 1 })
    local port = own.shards[1].port
    local options = cluster.options({ cluster_file = own.cluster_file, retries = 0 })
    own:stop()
    local manager
    local warnings = cluster.warnings(function()
      manager = lunashard.manager(options)
      made[#made + 1] = manager
      assert(manager:initialize())
    end)
    assert.equal(1, #warnings)
    local router = lunashard.router(manager)
    failure("SHARD_DOWN", router:execute("SELECT 1", nil, { routing_key = 1 }))
    own:start()
    assert.equal(port, own.shards[1].port)
    cluster.wait_until("it answers", function()
      return router:execute("SELECT 1", nil, { routing_key = 1 }) ~= nil
    end)
    cluster.wait_until("it is healthy again", function()
      return manager.shard_health.shard1.is_healthy
    end)
    assert.equal(0, manager.shard_health.shard1.consecutive_failures)
    manager:shutdown()
    own:destroy()
  end)

  describe("with text keys", function()
    local admin

    -- A database of the sandbox's first server, made for the test.
    local function database(sql_options)
      local info = sandbox.shared().shards[1]
      admin = require("lunashard.pool").new({
        shard_id = "admin", host = info.host, port = info.port, database = "postgres",
        user = info.superuser, password = info.superuser_password,
      })
      assert(admin:execute("DROP DATABASE IF EXISTS e_manager"))
      assert(admin:execute("CREATE DATABASE e_manager OWNER app TEMPLATE template0 " .. sql_options))
    end

    after_each(function()
      for _, manager in ipairs(made) do
        manager:shutdown()
      end
      if admin then
        assert(admin:execute("DROP DATABASE IF EXISTS e_manager WITH (FORCE)"))
        admin:close()
        admin = nil
      end
    end)

    local TEXT = { tables = { docs = { shard_key = "slug", type = "text" } } }

    local function use_it(options)
      options.shards = { options.shards[1] }
      options.shards[1].database = "e_manager"
      options.shards[1].passfile = nil
      options.shards[1].password = sandbox.shared().shards[1].password
      options.strategy = { "hash", shard_key = "slug" }
    end

    it("refuses a database that is not in UTF8, where they would hash differently", function()
      database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
      local _, _, ok, err = start(use_it, TEXT)
      failure("INVALID", ok, err)
      assert.is_truthy(err.message:find("LATIN1", 1, true), err.message)
      assert.equal("shard1", err.shard_id)
    end)

    it("accepts such a database for other keys", function()
      database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
      local _, _, ok = start(use_it, { tables = { docs = { shard_key = "id", type = "int8" } } })
      assert.is_true(ok)
    end)

    it("refuses a key column under whose collation different texts are equal", function()
      database("ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
      local manager, _, ok = start(use_it, TEXT)
      assert.is_true(ok)
      assert(lunashard.router(manager):execute_on_all_shards([[
        CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE TABLE docs (slug text COLLATE loose)]]))
      local _, _, again, err = start(use_it, TEXT)
      failure("INVALID", again, err)
      assert.is_truthy(err.message:find("loose", 1, true), err.message)
    end)
  end)

  it("counts a shard's failures and successes as they happen", function()
    local manager = start()
    local router = lunashard.router({ shard_manager = manager, retries = 0 })
    local record = manager.shard_health.shard1
    router:execute("SELECT nope", nil, { shard_id = "shard1" })
    assert.equal(0, record.consecutive_failures)
    assert.is_true(record.is_healthy)
    for _ = 1, 3 do
      failure("TIMEOUT", router:execute("SELECT pg_sleep(5)", nil, { shard_id = "shard1", timeout = 0.1, read_only = true }))
    end
    cluster.wait_until("it is known to have failed of late", function()
      return record.status == "degraded"
    end)
    assert.equal("closed", record.circuit) -- probes find it alive
    assert.is_true(manager:get_cluster_status().error_rate > 0)
    assert(router:execute("SELECT 1", nil, { shard_id = "shard1" }))
    assert.equal(0, record.consecutive_failures)
    assert.is_true(record.is_healthy)
  end)

  it("shows pools and connections while they are used", function()
    local manager = start()
    local router = lunashard.router(manager)
    local before = manager:get_pool_stats("shard2")
    assert.equal(20, before.max_size)
    local running = task.spawn(function()
      return assert(router:execute("SELECT pg_sleep(0.5)", nil, { shard_id = "shard2" }))
    end)
    cluster.wait_until("it is in use", function()
      return manager:get_pool_stats("shard2").used == 1
    end)
    assert.is_true(manager.shard_health.shard2.connection_count >= 1)
    assert.is_true(manager:get_shard_status("shard2").health.connection_count >= 1)
    assert(running:join())
    assert.equal(0, manager:get_pool_stats("shard2").used)
  end)

  it("adds a shard while running, probed and ready, and closes one that is removed", function()
    local manager = start(function(options)
      options.strategy = { "range", shard_key = "id", ranges = { shard1 = { nil, 10 }, shard2 = { 11, 20 } } }
      options.tables = nil
    end)
    local third = manager.shards[3]
    assert.is_true(manager:remove_shard("shard3"))
    local router = lunashard.router(manager)
    failure("NO_SHARD", router:execute("SELECT 1", nil, { shard_id = "shard3" }))
    assert.is_true(manager:add_shard({
      shard_id = "shard3", host = third.host, port = third.port, database = third.database, user = third.user,
      password = sandbox.shared().shards[3].password,
    }, {
      strategy = { "range", shard_key = "id", ranges = { shard1 = { nil, 10 }, shard2 = { 11, 20 }, shard3 = { 21 } } },
    }))
    assert.equal("healthy", manager.shard_health.shard3.status)
    assert.equal("shard3", assert(router:execute("SELECT 1", nil, { routing_key = 25 })).shard_id)
  end)

  it("ends what runs with CLOSED at shutdown, and everything after it", function()
    local manager = start()
    local router = lunashard.router(manager)
    local running = task.spawn(function()
      return router:execute("SELECT pg_sleep(20)", nil, { shard_id = "shard1", read_only = true })
    end):watch()
    cluster.wait_until("it runs", function()
      return manager:get_pool_stats("shard1").used == 1
    end)
    assert.is_true(manager:shutdown())
    local ok, result, err = running:join(5)
    assert.is_true(ok)
    failure("CLOSED", result, err)
    failure("CLOSED", router:execute("SELECT 1", nil, { shard_id = "shard1" }))
  end)
end)

describe("lunashard.open", function()
  teardown(cluster.release)

  it("gives a manager and a router that work, and closes them", function()
    local path = sandbox.shared().cluster_file
    local opened = assert(lunashard.open(path))
    assert.equal(path, opened.path)
    assert.equal(3, #opened.manager.shards)
    assert.equal(1, assert(opened.router:execute("SELECT 1 AS one", nil, { routing_key = 1 })).rows[1].one)
    assert.is_truthy(tostring(opened):find("3 shards", 1, true))
    opened:close()
    opened:close()
    failure("CLOSED", opened.router:execute("SELECT 1", nil, { routing_key = 1 }))
  end)

  it("returns INVALID for a file that is not there", function()
    failure("INVALID", lunashard.open("/nonexistent/cluster.lua"))
  end)
end)

describe("a directory in a table", function()
  teardown(cluster.release)

  it("is asked through the manager's own connections, once for keys that are cached", function()
    local router, manager = cluster.connect({
      strategy = {
        "directory", shard_key = "tenant", key_type = "text", table = "e_directory", on = "shard2",
        key_column = "tenant", shard_column = "shard_id",
      },
      tables = { tenants = { shard_key = "tenant", type = "text" } },
    })
    assert(router:execute_on_all_shards(
      "DROP TABLE IF EXISTS e_directory; CREATE TABLE e_directory (tenant text PRIMARY KEY, shard_id text NOT NULL); "
        .. "INSERT INTO e_directory VALUES ('acme', 'shard3'), ('globex', 'shard1')", { shard_ids = { "shard2" } }))
    for _ = 1, 5 do
      assert.equal("shard3", assert(router:execute("SELECT 1", nil, { routing_key = "acme" })).shard_id)
      assert.equal("shard1", assert(router:execute("SELECT 1", nil, { routing_key = "globex" })).shard_id)
    end
    failure("NO_SHARD", router:execute("SELECT 1", nil, { routing_key = "initech" }))
    local asked = manager:get_pool_stats("shard2").queries
    assert.equal("shard3", (manager:get_shard_for_write("acme")).shard_id)
    assert.equal(asked, manager:get_pool_stats("shard2").queries)
    assert(router:execute_on_all_shards("DROP TABLE e_directory", { shard_ids = { "shard2" } }))
    manager:shutdown()
  end)
end)
