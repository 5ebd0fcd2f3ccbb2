local cjson = require("cjson.safe")
local cluster = require("spec.support.cluster")
local events = require("lunashard.events")
local faults = require("spec.support.faults")
local lunashard = require("lunashard")
local monitor = require("lunashard.manager.monitor")
local sandbox = require("spec.support.sandbox")
local signals = require("spec.support.signals")
local task = require("lunashard.task")

local failure, wait_until = cluster.failure, cluster.wait_until

describe("the health monitor", function()
  local servers, primary, replica, warn_before

  setup(function()
    servers = sandbox.start({ shards = 1, replicas = 1 })
    primary = servers.shards[1]
    replica = primary.replicas[1]
    assert(faults.ask(primary, "CREATE TABLE hm (id int8); GRANT ALL ON hm TO " .. primary.user))
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    warn_before = lunashard.set_warn(function() end)
  end)

  after_each(function()
    cluster.close_all()
    lunashard.set_warn(warn_before)
  end)

  -- A manager that looks often; its router, and a function that gives an endpoint's status.
  local function connect(overrides)
    local given = {
      cluster_file = servers.cluster_file,
      health_check_interval = 0.2,
      health_check_timeout = 0.5,
      retries = 0,
    }
    for name, value in pairs(overrides or {}) do
      given[name] = value
    end
    local router, manager = cluster.connect(given)
    return manager, router, function(i)
      return manager:get_shard_status("shard1").endpoints[i]
    end
  end

  local function wait_for_status(status_of, i, status)
    wait_until(("endpoint %d is %s"):format(i, status), function()
      return status_of(i).status == status
    end)
  end

  -- Wait for looks that begin from now on.
  local function wait_for_looks(manager, n)
    for _ = 1, n do
      assert.is_true(monitor.check_now(manager, manager.by_id.shard1))
    end
  end

  it("knows after initialize what every endpoint is, by an ordinary user's rights", function()
    local manager, _, status_of = connect()
    local one, other = status_of(1), status_of(2)
    assert.same({ "primary", "primary", false, 1, "healthy", "closed" },
      { one.role, one.configured_role, one.in_recovery, one.timeline, one.status, one.circuit })
    assert.same({ "replica", "replica", true, 1, "healthy", "closed" },
      { other.role, other.configured_role, other.in_recovery, other.timeline, other.status, other.circuit })
    assert.is_truthy(one.system_identifier:find("^%d+$"))
    assert.equal(one.system_identifier, other.system_identifier)
    assert.is_true(one.lsn > 0 and one.average_latency_ms > 0)
    assert.is_nil(one.lag_bytes)
    assert.is_number(one.last_check)
    wait_until("the replica has caught up", function()
      return status_of(2).lag_seconds == 0 and status_of(2).lag_bytes == 0
    end)
    assert.same({}, manager:get_cluster_status().alerts)
    assert.is_string(cjson.encode(manager:get_cluster_status()))
  end)

  it("takes nothing that was not looked at for healthy", function()
    local manager = cluster.manager({ cluster_file = servers.cluster_file })
    local status = manager:get_cluster_status()
    assert.equal(0, status.healthy_shards)
    assert.same({ "unchecked", false }, { status.shards.shard1.health.status, status.shards.shard1.health.is_healthy })
    assert.same({}, status.alerts)
  end)

  it("looks again and again, on a connection that no statement uses", function()
    local manager, router = connect({ connection_pool_size = 1 })
    local record = manager.shard_health.shard1
    local busy = task.spawn(function()
      return assert(router:execute("SELECT pg_sleep(1.5)", nil, { shard_id = "shard1" }))
    end)
    wait_until("the pool is used up", function()
      return manager:get_pool_stats("shard1").used == 1
    end)
    local before, looks = record.last_probe, 0
    wait_until("it was looked at three times", function()
      if record.last_probe ~= before then
        before, looks = record.last_probe, looks + 1
      end
      return looks == 3
    end, 1.4)
    assert.equal(1, record.connection_count)
    assert.equal("waiting", busy:status())
    assert(busy:join())
  end)

  it("sees a replica fall behind and catch up again", function()
    local manager, router, status_of = connect({ max_replica_lag = 0.3 })
    assert(faults.ask(replica, "SELECT pg_wal_replay_pause()"))
    local ok, err = pcall(function()
      assert(router:execute("INSERT INTO hm VALUES (1)", nil, { shard_id = "shard1" }))
      wait_until("it is behind by half a second", function()
        local status = status_of(2)
        return status.lag_bytes > 0 and (status.lag_seconds or 0) > 0.5
      end)
      local alert = manager:get_cluster_status().alerts[1]
      assert.same({ "lag", "shard1", status_of(2).endpoint }, { alert.kind, alert.shard_id, alert.endpoint })
      assert.is_truthy(alert.message:find("is behind by", 1, true), alert.message)
      assert.equal("healthy", status_of(2).status)
    end)
    assert(faults.ask(replica, "SELECT pg_wal_replay_resume()"))
    assert(ok, err)
    wait_until("it has caught up", function()
      return status_of(2).lag_bytes == 0 and status_of(2).lag_seconds == 0
    end)
    assert.same({}, manager:get_cluster_status().alerts)
  end)

  it("does not take a primary without work for a replica that is behind", function()
    local manager, _, status_of = connect()
    wait_for_looks(manager, 2)
    local lsn = status_of(1).lsn
    wait_for_looks(manager, 5)
    if status_of(1).lsn == lsn then -- unless the server wrote something of its own meanwhile
      assert.equal(0, status_of(2).lag_seconds)
      assert.equal(0, status_of(2).lag_bytes)
    end
  end)

  it("finds a server that hangs by its deadline, refuses writes there at once, and uses it again soon", function()
    local manager, router, status_of = connect({ connection_timeout = 1 })
    local member = manager.by_id.shard1
    signals.freeze(servers, "shard1")
    local ok, err = pcall(function()
      wait_for_status(status_of, 1, "unhealthy")
      wait_until("its writes are refused", function()
        return member.write_refusal ~= nil
      end)
      local status = status_of(1)
      assert.is_true(status.circuit == "open" or status.circuit == "half_open")
      assert.is_true(status.consecutive_failures >= 3)
      assert.is_truthy(status.last_error:find("in time", 1, true), status.last_error)
      assert.equal(0, manager:get_cluster_status().healthy_shards)
      local alert = manager:get_cluster_status().alerts[1]
      assert.same({ "writes", "shard1" }, { alert.kind, alert.shard_id })
      local busy = manager:get_pool_stats("shard1").queries
      local refused = failure("SHARD_DOWN", router:execute("INSERT INTO hm VALUES (2)", nil, { shard_id = "shard1" }))
      assert.is_true(refused.retryable)
      assert.is_truthy(refused.message:find("writes are refused", 1, true), refused.message)
      assert.equal(busy, manager:get_pool_stats("shard1").queries)
      assert.equal("healthy", status_of(2).status)
    end)
    signals.thaw(servers, "shard1")
    assert(ok, err)
    wait_until("writes are taken again", function()
      return member.write_refusal == nil
    end)
    assert(router:execute("INSERT INTO hm VALUES (3)", nil, { shard_id = "shard1" }))
    wait_for_status(status_of, 1, "healthy")
    assert.equal("closed", status_of(1).circuit)
    assert.equal(0, status_of(1).consecutive_failures)
    assert.is_nil(status_of(1).failing_for)
  end)

  it("tells of a replica that is killed and of its return, each once", function()
    local told = {}
    local stop = events.subscribe(function(event)
      if event.kind == "health" then
        told[#told + 1] = ("%s>%s"):format(event.from, event.to)
      end
    end)
    local _, router, status_of = connect()
    servers:kill("shard1_replica1")
    wait_for_status(status_of, 2, "unhealthy")
    assert.is_false(assert(router:execute("SELECT pg_is_in_recovery() AS standby", nil, {
      shard_id = "shard1",
      read_only = true,
    })).rows[1].standby)
    servers:start()
    wait_for_status(status_of, 2, "healthy")
    wait_until("all was told", function()
      return told[#told] == "recovering>healthy"
    end)
    stop()
    assert.same({ "healthy>degraded", "degraded>unhealthy", "unhealthy>recovering", "recovering>healthy" }, told)
  end)

  it("is not misled when every session is terminated, its own among them", function()
    local manager, router, status_of = connect()
    for _ = 1, 3 do
      assert(router:execute("SELECT 1", nil, { shard_id = "shard1" }))
      assert(faults.ask(primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
        { primary.user }))
      wait_for_looks(manager, 1)
      assert.equal("healthy", status_of(1).status)
      assert.equal(0, status_of(1).consecutive_failures)
    end
  end)

  it("connects anew from time to time, so that it notices when nobody can any more", function()
    local manager, router, status_of = connect({ max_lifetime = 0.5 })
    assert(router:execute("SELECT 1", nil, { shard_id = "shard1" }))
    local role = ('ALTER ROLE "%s" CONNECTION LIMIT %%d'):format(primary.user)
    assert(faults.ask(primary, role:format(0)))
    local ok, err = pcall(wait_for_status, status_of, 1, "degraded")
    assert(faults.ask(primary, role:format(-1)))
    assert(ok, err)
    assert.is_true(manager.shard_health.shard1.is_healthy)
    wait_for_status(status_of, 1, "healthy")
  end)

  it("takes a server that has no room for connections for a live one", function()
    local manager, _, status_of = connect()
    local role = ('ALTER ROLE "%s" CONNECTION LIMIT %%d'):format(primary.user)
    assert(faults.ask(primary, role:format(0)))
    assert(faults.ask(primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
      { primary.user }))
    local ok, err = pcall(function()
      wait_for_looks(manager, 5)
      assert.same({ "degraded", "closed" }, { status_of(1).status, status_of(1).circuit })
      assert.is_truthy(status_of(1).last_error:find("too many connections", 1, true))
      assert.is_nil(manager.by_id.shard1.write_refusal)
    end)
    assert(faults.ask(primary, role:format(-1)))
    assert(ok, err)
    wait_for_status(status_of, 1, "healthy")
  end)

  it("does with less when the user may not ask for everything", function()
    local revoke = "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC"
    assert(faults.ask(primary, revoke))
    local ok, err = pcall(function()
      local manager, router, status_of = connect()
      assert.same({ "healthy", false }, { status_of(1).status, status_of(1).in_recovery })
      assert.is_nil(status_of(1).timeline)
      assert.is_nil(status_of(1).lsn)
      wait_for_looks(manager, 2)
      assert(router:execute("INSERT INTO hm VALUES (4)", nil, { shard_id = "shard1" }))
    end)
    assert(faults.ask(primary, (revoke:gsub("REVOKE", "GRANT"):gsub("FROM", "TO"))))
    assert(ok, err)
  end)

  it("answers many who ask at the same time with few looks", function()
    local manager = connect({ health_check_interval = 30 })
    local record = manager.shard_health.shard1
    local seen, n = {}, 0
    local fns = {}
    for i = 1, 50 do
      fns[i] = function()
        local asked = task.now()
        assert.is_true(monitor.check_now(manager, manager.by_id.shard1))
        assert.is_true(record.last_probe >= asked)
        if not seen[record.last_probe] then
          seen[record.last_probe], n = true, n + 1
        end
        return true
      end
    end
    assert(task.gather(fns))
    assert.is_true(n <= 2, n)
  end)

  local function sessions()
    return assert(faults.ask(primary, "SELECT count(*)::int4 AS n FROM pg_stat_activity WHERE usename = $1",
      { primary.user })).rows[1].n
  end

  it("ends with its manager", function()
    local manager = connect()
    assert.is_true(sessions() >= 1)
    manager:shutdown()
    assert.is_false(monitor.check_now(manager, manager.by_id.shard1))
    wait_until("its sessions have ended", function()
      return sessions() == 0
    end)
  end)

  it("does not keep a manager alive that nobody has any more", function()
    do
      local manager = lunashard.manager(cluster.options({
        cluster_file = servers.cluster_file,
        health_check_interval = 0.2,
      }))
      assert(manager:initialize())
    end
    wait_until("its sessions have ended", function()
      collectgarbage()
      return sessions() == 0
    end)
  end)
end)
