local cluster = require("spec.support.cluster")
local replicas = require("spec.support.replicas")
local task = require("lunashard.task")

describe("reads from replicas", function()
  local servers, router, manager, first, second

  setup(function()
    servers = replicas.start(2)
    first, second = servers.replicas[1], servers.replicas[2]
    servers:admin(servers.primary, "CREATE TABLE lagging AS SELECT 0 AS n")
    servers:admin(servers.primary, "GRANT ALL ON lagging TO PUBLIC")
    servers:wait_for_replay()
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    router, manager = cluster.connect({
      cluster_file = servers.sandbox.cluster_file,
      health_check_interval = 0.2,
    })
  end)

  after_each(function()
    servers:resume(first)
    servers:resume(second)
    cluster.close_all()
  end)

  -- How many of n reads each endpoint answers.
  local function answered(n, opts, concurrently)
    local counts, fns = {}, {}
    opts = opts or {}
    opts.routing_key, opts.read_only = 1, true
    for i = 1, n do
      fns[i] = function()
        local result = assert(router:execute(concurrently and "SELECT pg_sleep(0.05)" or "SELECT 1", nil, opts))
        counts[result.endpoint] = (counts[result.endpoint] or 0) + 1
      end
      if not concurrently then
        fns[i]()
      end
    end
    if concurrently then
      assert(task.gather(fns))
    end
    return counts
  end

  -- Reads come there, sooner or later: for a moment it may have more to do than others.
  local function uses(where, opts)
    cluster.wait_until("reads go to " .. where, function()
      return answered(1, opts)[where]
    end)
  end

  local function status_of(where)
    for _, endpoint in ipairs(manager:get_shard_status("shard1").endpoints) do
      if endpoint.endpoint == where then
        return endpoint
      end
    end
  end

  -- Hold a replica and write, until it is seen to be behind.
  local function hold(where)
    servers:pause(where)
    cluster.wait_until(where .. " lags", function()
      assert(router:execute("UPDATE lagging SET n = n + 1", nil, { routing_key = 1 }))
      local status = status_of(where)
      return (status.lag_seconds or 0) > 0.3 and (status.lag_bytes or 0) > 0
    end, 15)
  end

  it("are spread over all that are well, and leave the primary alone", function()
    answered(20)
    cluster.wait_until("nobody looks at the statement any more", function()
      local list = manager:member("shard1").replicas
      return list[1].pool.looking + list[2].pool.looking + list[1].pool:load() + list[2].pool:load() == 0
    end)
    local counts = answered(20)
    assert.equal(20, counts[first] + counts[second])
    assert.is_true(counts[first] >= 6 and counts[second] >= 6, counts[first] .. " and " .. counts[second])
  end)

  it("go to the one with the least to do", function()
    local counts = answered(20, nil, true)
    assert.same({ [first] = 10, [second] = 10 }, counts)
    cluster.wait_until("both are idle", function()
      local list = manager:member("shard1").replicas
      return list[1].pool:load() + list[2].pool:load() == 0
    end)
    -- The first has three statements more to do than the second.
    local pool = manager:member("shard1").replicas[1].pool
    local leases = {}
    for i = 1, 3 do
      leases[i] = assert(pool:acquire(task.now() + 5))
    end
    assert.same({ [second] = 5 }, answered(5))
    counts = answered(11, nil, true)
    assert.same({ [first] = 4, [second] = 7 }, counts)
    for _, lease in ipairs(leases) do
      lease:release()
    end
  end)

  it("avoid a replica that is too far behind, until it has caught up", function()
    local limit = { max_replica_lag = 0.3 }
    hold(first)
    assert.same({ [second] = 6 }, answered(6, limit))
    assert.same({ [second] = 6 }, answered(6, { max_replica_lag = { bytes = 0 } }))
    uses(first, { max_replica_lag = 3600 })
    uses(first, { max_replica_lag = { bytes = 2 ^ 40 } })
    servers:resume(first)
    uses(first, limit)
  end)

  it("go to the primary when all replicas are too far behind", function()
    hold(first)
    hold(second)
    assert.same({ [servers.primary] = 4 }, answered(4, { max_replica_lag = 0.3 }))
    local rows = assert(router:scatter_gather("SELECT pg_is_in_recovery() AS standby", nil,
      { read_only = true, max_replica_lag = 0.3 })).rows
    assert.is_false(rows[1].standby)
    for row in router:stream("SELECT pg_is_in_recovery() AS standby", nil, { read_only = true, max_replica_lag = 0.3 }) do
      assert.is_false(row.standby)
    end
    assert.is_true(assert(router:transaction({ routing_key = 1, read_only = true }, function(tx)
      return assert(tx:execute("SELECT pg_is_in_recovery() AS standby")).rows[1]
    end)).standby)
  end)

  it("obey the manager's limit", function()
    hold(first)
    cluster.close_all()
    router, manager = cluster.connect({
      cluster_file = servers.sandbox.cluster_file,
      health_check_interval = 0.2,
      max_replica_lag = { bytes = 0 },
    })
    cluster.wait_until("its lag is known", function()
      return (status_of(first).lag_bytes or 0) > 0
    end)
    assert.same({ [second] = 6 }, answered(6))
  end)

  it("stay on the configured primary when automatic failover is off", function()
    router = cluster.connect({ cluster_file = servers.sandbox.cluster_file, enable_auto_failover = false })
    assert.same({ [servers.primary] = 4 }, answered(4))
  end)

  it("refuse a limit that makes no sense, at the caller", function()
    for _, call in ipairs({ "execute", "scatter_gather", "stream", "copy_out" }) do
      assert.error_matches(function()
        router[call](router, "SELECT 1", call == "copy_out" and io.write or nil, { max_replica_lag = { byte = 1 } })
      end, call .. ": option max_replica_lag: .*bytes")
    end
  end)

  it("go on while the primary is down", function()
    servers.sandbox:kill("shard1")
    cluster.wait_until("the primary is known to be down", function()
      return status_of(servers.primary).status == "unhealthy"
    end)
    uses(first)
    uses(second)
    servers.sandbox:start()
  end)
end)
