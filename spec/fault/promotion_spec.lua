local cluster = require("spec.support.cluster")
local new_pool = require("lunashard.pool").new
local sandbox = require("spec.support.sandbox")
local signals = require("spec.support.signals")
local task = require("lunashard.task")

describe("a shard whose primary changes", function()
  local servers, router, manager, events, writer

  local function superuser()
    local shard = servers.shards[1]
    return new_pool({ host = shard.host, port = shard.port, database = shard.database, user = "postgres",
      password = shard.superuser_password })
  end

  local function as_superuser(sql)
    local pool = superuser()
    assert(pool:execute(sql, nil, { deadline = task.now() + 5 }))
    pool:close()
  end

  -- A fresh shard, and a manager that looks at it often.
  local function open(replicas, options, ...)
    servers = sandbox.start({ shards = 1, replicas = replicas })
    for _, sql in ipairs({ ... }) do
      as_superuser(sql)
    end
    events = {}
    local given = {
      cluster_file = servers.cluster_file,
      health_check_interval = 0.2,
      health_check_timeout = 2,
      on_health = function(event)
        events[#events + 1] = event
      end,
    }
    for name, value in pairs(options or {}) do
      given[name] = value
    end
    router, manager = cluster.connect(given)
    assert(router:execute_on_all_shards("CREATE TABLE writes (id bigint PRIMARY KEY, who text)"))
    for _, endpoint in ipairs(manager.by_id.shard1.replicas) do
      cluster.wait_until("it is replicated", function()
        return assert(endpoint.pool:execute("SELECT to_regclass('writes') AS found")).rows[1].found
      end)
    end
  end

  after_each(function()
    if writer then
      writer:cancel()
      writer = nil
    end
    cluster.close_all()
    if servers then
      servers:destroy()
      servers = nil
    end
  end)

  local function name_of(server)
    local shard = servers.shards[1]
    for _, entry in ipairs({ shard, unpack(shard.replicas) }) do
      if entry.name == server then
        return entry.host .. ":" .. entry.port
      end
    end
  end

  local function primary()
    local info = manager:get_shard_for_write(1)
    return info.host .. ":" .. info.port
  end

  local function seen(kind, endpoint)
    for _, event in ipairs(events) do
      if event.kind == kind and (not endpoint or event.endpoint == endpoint) then
        return event
      end
    end
  end

  local function quietly(fn)
    return cluster.warnings(fn)
  end

  local function wait_for_primary(server)
    cluster.wait_until(server .. " is the primary", function()
      return primary() == name_of(server)
    end, 15)
  end

  local function endpoint_status(server)
    for _, status in ipairs(manager:get_shard_status("shard1").endpoints) do
      if status.endpoint == name_of(server) then
        return status
      end
    end
  end

  -- Everything that a server holds, asked of it alone.
  local function rows_of(server)
    local shard = servers:refresh().shards[1]
    for _, entry in ipairs({ shard, unpack(shard.replicas) }) do
      if entry.name == server then
        local pool = new_pool({ host = entry.host, port = entry.port, database = entry.database, user = "postgres",
          password = entry.superuser_password })
        local result, err = pool:execute("SELECT id FROM writes", nil, { deadline = task.now() + 5 })
        pool:close()
        assert(result, err)
        local ids = {}
        for _, row in ipairs(result.rows) do
          ids[row.id] = true
        end
        return ids
      end
    end
  end

  -- A task that writes one row after the other and keeps what it was told of each.
  local function start_writer()
    local told = { n = 0, done = 0 }
    writer = task.spawn(function()
      while not told.stopped do
        told.n = told.n + 1
        local id = told.n
        local result, err = router:execute("INSERT INTO writes VALUES ($1)", { id }, { routing_key = id, timeout = 2 })
        told[id] = result and "done" or err.code
        told.done = told.done + (result and 1 or 0)
        task.sleep(0.005)
      end
    end)
    return told
  end

  local function stop_writer(told)
    told.stopped = true
    assert(writer:join(10))
    writer = nil
  end

  local function check(told, ids)
    for id = 1, told.n do
      if told[id] == "done" then
        assert.is_true(ids[id], id .. " was acknowledged and is lost")
      elseif told[id] ~= "UNKNOWN_OUTCOME" then
        assert.is_nil(ids[id], ("%d is there, though %s said that it was not done"):format(id, told[id]))
      end
    end
  end

  local function write_until_more(told, more)
    local enough = told.done + more
    cluster.wait_until(more .. " more writes succeed", function()
      return told.done >= enough
    end, 15)
  end

  it("finds the replica that somebody promotes after a crash, and fences the old one until it is a replica", function()
    open(2)
    quietly(function()
      assert(router:execute("INSERT INTO writes VALUES (-1)", nil, { routing_key = 1 }))
      servers:kill("shard1")
      servers:promote("shard1_replica1")
      wait_for_primary("shard1_replica1")
      assert(router:execute("INSERT INTO writes VALUES (-2)", nil, { routing_key = 1 }))
      assert.is_true(manager.shard_health.shard1.is_healthy)
      assert.equal(name_of("shard1_replica1"), manager:get_shard_status("shard1").endpoints[2].endpoint)
      assert.equal("primary", endpoint_status("shard1_replica1").role)
      local event = seen("failover")
      assert.equal(name_of("shard1"), event.from)
      assert.equal(name_of("shard1_replica1"), event.to)
      assert.is_nil(seen("fenced"))

      servers:start() -- the old primary accepts writes, and so does its own child
      cluster.wait_until("an alert", function()
        return seen("fenced", name_of("shard1"))
      end)
      assert.is_truthy(seen("fenced").message:find("timeline 1", 1, true), seen("fenced").message)
      assert.is_truthy(endpoint_status("shard1").fenced)
      for id = 1, 20 do
        local result = assert(router:execute("INSERT INTO writes VALUES ($1)", { id }, { routing_key = id }))
        assert.equal(name_of("shard1_replica1"), result.endpoint)
        result = assert(router:execute("SELECT 1", nil, { routing_key = id, read_only = true }))
        assert.not_equal(name_of("shard1"), result.endpoint)
      end
      assert.same({ [-1] = true }, rows_of("shard1"))

      -- Also alone it is an old primary: what it holds is not what was written since.
      servers:stop("shard1_replica1")
      servers:stop("shard1_replica2")
      for _, read_only in ipairs({ true, false }) do
        cluster.failure("SHARD_DOWN", router:execute("SELECT 1", nil, { routing_key = 1, read_only = read_only,
          timeout = 1 }))
      end
      cluster.wait_until("it is known that nobody is left", function()
        return endpoint_status("shard1_replica2").consecutive_failures >= 3
      end)
      cluster.failure("SHARD_DOWN", router:execute("SELECT 1", nil, { routing_key = 1, read_only = true, timeout = 1 }))
      assert.equal(name_of("shard1_replica1"), primary())
      servers:start()
      cluster.wait_until("the new one is back", function()
        return router:execute("SELECT 1", nil, { routing_key = 1, timeout = 1 })
      end, 15)

      servers:rejoin("shard1")
      cluster.wait_until("it is a replica again", function()
        return seen("restored", name_of("shard1"))
      end)
      assert.is_nil(endpoint_status("shard1").fenced)
      assert.equal("replica", endpoint_status("shard1").role)
      assert.equal(name_of("shard1_replica1"), primary())
    end)
  end)

  it("goes through demote, promote and rewind as Patroni does them, and back, while writes go on #long", function()
    open(1)
    quietly(function()
      local told = start_writer()
      write_until_more(told, 20)
      servers:demote("shard1")
      cluster.wait_until("it is said that there is no primary", function()
        return seen("no_primary")
      end)
      local err = cluster.failure("SHARD_DOWN", router:execute("INSERT INTO writes VALUES (-1)", nil,
        { routing_key = 1, timeout = 1 }))
      assert.is_truthy(err.message:find("there is no primary", 1, true), err.message)
      assert(router:execute("SELECT 1", nil, { routing_key = 1, read_only = true }))
      servers:promote("shard1_replica1")
      wait_for_primary("shard1_replica1")
      write_until_more(told, 20)

      servers:stop("shard1_replica1") -- which hands over all that it has acknowledged
      servers:promote("shard1")
      wait_for_primary("shard1")
      servers:start() -- it goes a way of its own, which is undone
      servers:rejoin("shard1_replica1")
      cluster.wait_until("the rewound one is a replica", function()
        return not endpoint_status("shard1_replica1").fenced
      end)
      write_until_more(told, 20)
      stop_writer(told)
      check(told, rows_of("shard1"))
    end)
  end)

  it("asks at once where the primary is when a write is refused as read only", function()
    open(1, { health_check_interval = 600 })
    quietly(function()
      servers:demote("shard1")
      servers:promote("shard1_replica1")
      local result = assert(router:execute("INSERT INTO writes VALUES (1)", nil, { routing_key = 1, timeout = 5 }))
      assert.equal(name_of("shard1_replica1"), result.endpoint)
      assert.equal(name_of("shard1_replica1"), primary())
      assert.is_true(rows_of("shard1_replica1")[1])
    end)
  end)

  it("runs a transaction again on the new primary when that is allowed, and says where it is otherwise #long", function()
    open(1, { health_check_interval = 600 })
    quietly(function()
      servers:demote("shard1")
      servers:promote("shard1_replica1")
      local function insert(tx)
        return tx:execute("INSERT INTO writes VALUES (1)")
      end
      -- What is left of the old connections may fail first.
      assert(router:execute("SELECT 1", nil, { routing_key = 1, read_only = true }))
      local err = cluster.failure("READ_ONLY", router:transaction({ routing_key = 1 }, insert))
      assert.equal("25006", err.sqlstate)
      assert.is_true(err.retryable)
      assert.is_truthy(err.message:find(name_of("shard1_replica1"), 1, true), err.message)
      assert(router:transaction({ routing_key = 1, retries = 1 }, insert))
      assert.is_true(rows_of("shard1_replica1")[1])
    end)
  end)

  it("does not take a read-only transaction's failure for a change of the primary #long", function()
    open(1, { health_check_interval = 600 })
    local warnings = quietly(function()
      local err = cluster.failure("SQL", router:transaction({ routing_key = 1, read_only = true }, function(tx)
        return tx:execute("INSERT INTO writes VALUES (1)")
      end))
      assert.equal("25006", err.sqlstate)
      err = cluster.failure("SQL", router:transaction({ routing_key = 1, retries = 3 }, function(tx)
        assert(tx:execute("SET LOCAL transaction_read_only = on"))
        return tx:execute("INSERT INTO writes VALUES (1)")
      end))
      assert.equal("25006", err.sqlstate)
      assert.equal(1, err.attempts)
    end)
    assert.same({}, warnings)
    assert.equal(name_of("shard1"), primary())
    assert(router:execute("INSERT INTO writes VALUES (1)", nil, { routing_key = 1 }))
  end)

  it("fails a transaction that is open on the old primary, which may not commit it", function()
    open(1)
    quietly(function()
      local err = cluster.failure("SHARD_DOWN", router:transaction({ routing_key = 1 }, function(tx)
        assert(tx:execute("INSERT INTO writes VALUES (1)"))
        servers:promote("shard1_replica1")
        wait_for_primary("shard1_replica1")
        return true
      end))
      assert.is_truthy(err.message:find("not the primary any more", 1, true), err.message)
      local tx = assert(router:begin({ routing_key = 1 }))
      assert(tx:execute("INSERT INTO writes VALUES (2)"))
      assert(tx:commit())
      assert.same({ [2] = true }, rows_of("shard1_replica1"))
      assert.same({}, rows_of("shard1"))
    end)
  end)

  it("sends nothing to the old primary that was waiting for a connection when it was fenced #long", function()
    open(1, { connection_pool_size = 1, pipeline = false })
    quietly(function()
      local held = assert(router:begin({ routing_key = 1 }))
      assert(held:execute("INSERT INTO writes VALUES (0)"))
      local waiting = task.spawn(function()
        return router:execute("INSERT INTO writes VALUES (1)", nil, { routing_key = 1, timeout = 10 })
      end):watch()
      cluster.wait_until("it waits", function()
        return manager:get_pool_stats("shard1").waiting == 1
      end)
      servers:promote("shard1_replica1")
      wait_for_primary("shard1_replica1")
      cluster.failure("SHARD_DOWN", held:commit())
      local _, result, err = waiting:join(10)
      assert(result, err)
      assert.equal(name_of("shard1_replica1"), result.endpoint)
      assert.same({ [1] = true }, rows_of("shard1_replica1"))
      assert.same({}, rows_of("shard1"))
    end)
  end)

  it("does not call a write done that the old primary acknowledged after its time", function()
    open(1)
    local pool = superuser()
    finally(function()
      pool:close()
    end)
    quietly(function()
      assert(pool:acquire():execute("SELECT pg_advisory_lock(7)"))
      local late = task.spawn(function()
        return router:execute("INSERT INTO writes SELECT 1 FROM pg_advisory_xact_lock(7)", nil, { routing_key = 1 })
      end):watch()
      cluster.wait_until("it is under way", function()
        return #assert(pool:execute("SELECT 1 FROM pg_locks WHERE NOT granted")).rows == 1
      end)
      servers:promote("shard1_replica1")
      wait_for_primary("shard1_replica1")
      pool:close() -- and with it the lock
      local _, result, err = late:join(10)
      cluster.failure("UNKNOWN_OUTCOME", result, err)
      assert.is_truthy(err.message:find("when " .. name_of("shard1_replica1") .. " was the primary", 1, true), err.message)
      assert.same({ [1] = true }, rows_of("shard1"))
      assert.same({}, rows_of("shard1_replica1"))
    end)
  end)

  it("takes no writes while two accept them on one timeline, and names both", function()
    open(1)
    quietly(function()
      assert(router:execute("INSERT INTO writes VALUES (1)", nil, { routing_key = 1 }))
      servers:stop("shard1_replica1")
      assert(os.remove(servers.dir .. "/data/shard1_replica1/standby.signal"))
      servers:start()
      cluster.wait_until("the alarm", function()
        return seen("split_brain")
      end)
      local err = cluster.failure("SHARD_DOWN", router:execute("INSERT INTO writes VALUES (2)", nil,
        { routing_key = 1, timeout = 1 }))
      assert.is_truthy(err.message:find(name_of("shard1"), 1, true), err.message)
      assert.is_truthy(err.message:find(name_of("shard1_replica1"), 1, true), err.message)
      cluster.failure("SHARD_DOWN", router:transaction({ routing_key = 1, timeout = 1 }, function(tx)
        return tx:execute("INSERT INTO writes VALUES (2)")
      end))
      assert.equal(0, manager:get_cluster_status().healthy_shards)
      assert.is_truthy(manager:get_shard_status("shard1").write_refusal)
      -- The one that was no primary before goes away; the other never stopped being it.
      servers:stop("shard1_replica1")
      cluster.wait_until("writes are accepted again", function()
        return seen("writes")
      end)
      assert(router:execute("INSERT INTO writes VALUES (3)", nil, { routing_key = 1 }))
      assert.same({ [1] = true, [3] = true }, rows_of("shard1"))
    end)
  end)

  it("is one server when the cluster file knows it by two names #long", function()
    open(0)
    local shard = servers.shards[1]
    local twice = cluster.manager({
      cluster_file = servers.cluster_file,
      health_check_interval = 0.1,
      shards = { { shard_id = "shard1", host = "localhost", port = shard.port, database = shard.database, user = "app",
        password = shard.password, replicas = { { host = "127.0.0.1" , port = shard.port } } } },
    })
    quietly(function()
      assert(twice:initialize())
      for _ = 1, 5 do
        task.sleep(0.1)
        assert.is_nil(twice.by_id.shard1.write_refusal)
        assert.equal("localhost", twice:get_shard_for_write(1).host)
      end
    end)
  end)

  describe("with a choose_primary", function()
    it("keeps its primary when that is vetoed", function()
      local asked = {}
      open(1, {
        choose_primary = function(candidates, shard)
          task.sleep(0.01)
          asked = { candidate = candidates[1], shard_id = shard.shard_id }
          return false
        end,
      })
      quietly(function()
        servers:promote("shard1_replica1")
        cluster.wait_until("an alert", function()
          return seen("fenced", name_of("shard1_replica1"))
        end)
        assert.equal("shard1", asked.shard_id)
        assert.equal(name_of("shard1_replica1"), asked.candidate.endpoint)
        assert.equal("promoted", asked.candidate.reason)
        assert.equal(name_of("shard1"), asked.candidate.primary)
        local result = assert(router:execute("INSERT INTO writes VALUES (1)", nil, { routing_key = 1 }))
        assert.equal(name_of("shard1"), result.endpoint)
        result = assert(router:execute("SELECT 1", nil, { routing_key = 1, read_only = true }))
        assert.equal(name_of("shard1"), result.endpoint)
      end)
    end)

    it("goes on without one that raises, takes too long or answers nonsense, and says so #long", function()
      local way = 0
      open(1, {
        health_check_timeout = 0.5,
        choose_primary = function()
          way = way + 1
          if way == 1 then
            error("cannot page anybody")
          elseif way == 2 then
            return "elsewhere:5432"
          end
          task.sleep(60)
        end,
        on_health = function()
          error("no more")
        end,
      })
      local warnings = table.concat(quietly(function()
        servers:kill("shard1")
        servers:promote("shard1_replica1")
        wait_for_primary("shard1_replica1")
        servers:rejoin("shard1")
        cluster.wait_until("it is a replica", function()
          return not endpoint_status("shard1").fenced
        end)
        for _, step in ipairs({ { "shard1_replica1", "shard1" }, { "shard1", "shard1_replica1" } }) do
          servers:demote(step[1])
          servers:promote(step[2])
          wait_for_primary(step[2])
        end
      end), "\n")
      assert.equal(3, way)
      for _, text in ipairs({ "cannot page anybody", 'gave "elsewhere:5432"', "took longer than 0.5s", "no more" }) do
        assert.is_truthy(warnings:find(text, 1, true), text .. " is not in\n" .. warnings)
      end
    end)
  end)

  it("is only reported with enable_auto_failover = false #long", function()
    open(1, { enable_auto_failover = false })
    quietly(function()
      servers:kill("shard1")
      servers:promote("shard1_replica1")
      cluster.wait_until("it is reported", function()
        return seen("failover", name_of("shard1_replica1"))
      end)
      assert.is_truthy(seen("failover").message:find("enable_auto_failover is off", 1, true), seen("failover").message)
      assert.equal(name_of("shard1"), primary())
      local _, err = router:execute("INSERT INTO writes VALUES (1)", nil, { routing_key = 1, timeout = 1 })
      assert.equal("SHARD_DOWN", err.code)
    end)
  end)

  describe("with promote = true", function()
    local GRANT = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO app"

    it("promotes a replica after kill -9 of the primary, and keeps what was acknowledged and received", function()
      open(2, { promote = true }, GRANT, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'",
        "SELECT pg_reload_conf()")
      quietly(function()
        local told = start_writer()
        write_until_more(told, 50)
        servers:kill("shard1")
        cluster.wait_until("a replica is the primary", function()
          return primary() ~= name_of("shard1")
        end, 20)
        local chosen = primary() == name_of("shard1_replica1") and "shard1_replica1" or "shard1_replica2"
        stop_writer(told)
        check(told, rows_of(chosen))
        assert.equal(name_of(chosen), seen("promotion").endpoint)
        servers:start()
        cluster.wait_until("the old primary is fenced", function()
          return seen("fenced", name_of("shard1"))
        end)
        assert.equal(name_of(chosen), primary())
      end)
    end)

    it("promotes nobody while a replica does not answer, and says why once", function()
      open(2, { promote = true }, GRANT)
      quietly(function()
        servers:kill("shard1_replica2")
        servers:kill("shard1")
        cluster.wait_until("it is said", function()
          return seen("promotion")
        end)
        task.sleep(1)
      end)
      assert.is_truthy(seen("promotion").message:find(name_of("shard1_replica2"), 1, true), seen("promotion").message)
      local n = 0
      for _, event in ipairs(events) do
        n = n + (event.kind == "promotion" and 1 or 0)
      end
      assert.equal(1, n)
      assert.equal(name_of("shard1"), primary())
      quietly(function()
        servers:start()
        cluster.wait_until("the primary is back", function()
          return router:execute("INSERT INTO writes VALUES (1)", nil, { routing_key = 1, timeout = 1 })
        end, 10)
      end)
      assert.equal(name_of("shard1"), primary())
    end)

    it("replaces no primary that is there and has no connection left #long", function()
      open(1, { promote = true }, GRANT)
      quietly(function()
        as_superuser("ALTER ROLE app CONNECTION LIMIT 0")
        as_superuser("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        local record, looks, last = manager.shard_health.shard1, 0, nil
        cluster.wait_until("the primary was looked at often enough", function()
          if record.last_error and record.last_error.sqlstate == "53300" and record.last_probe ~= last then
            looks, last = looks + 1, record.last_probe
          end
          return looks >= 8
        end, 15)
      end)
      assert.is_nil(seen("promotion"))
      assert.equal(name_of("shard1"), primary())
    end)

    it("replaces no primary that is silent to us while a replica is connected to it #long", function()
      open(1, { promote = true, health_check_timeout = 0.3 }, GRANT)
      quietly(function()
        signals.freeze(servers, "shard1")
        finally(function()
          pcall(signals.thaw, servers, "shard1")
        end)
        cluster.wait_until("it is said", function()
          return seen("promotion")
        end, 15)
        signals.thaw(servers, "shard1")
        cluster.wait_until("it is back", function()
          return manager.shard_health.shard1.is_healthy
        end, 15)
      end)
      assert.is_truthy(seen("promotion").message:find("still receives WAL", 1, true), seen("promotion").message)
      assert.equal(name_of("shard1"), primary())
    end)

    it("says what is missing when it may not, before it is needed #long", function()
      open(1, { promote = true })
      cluster.wait_until("it is said", function()
        return seen("promotion")
      end)
      assert.is_truthy(seen("promotion").message:find("GRANT EXECUTE", 1, true), seen("promotion").message)
    end)

    it("promotes nobody whom choose_primary does not want #long", function()
      open(1, { promote = true, choose_primary = function(candidates)
        return candidates[1].reason ~= "most_advanced"
      end }, GRANT)
      quietly(function()
        servers:kill("shard1")
        cluster.wait_until("it is said", function()
          return seen("promotion")
        end)
      end)
      assert.is_truthy(seen("promotion").message:find("choose_primary", 1, true), seen("promotion").message)
      assert.equal(name_of("shard1"), primary())
    end)
  end)
end)
