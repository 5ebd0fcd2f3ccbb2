local cluster = require("spec.support.cluster")
local pools = require("spec.support.pools")
local sockets = require("spec.support.sockets")
local task = require("lunashard.task")

local function spawn_many(n, fn)
  local tasks = {}
  for i = 1, n do
    tasks[i] = task.spawn(fn, i)
  end
  return tasks
end

-- The outcomes of tasks that return a result, or nil and an error: code -> how many.
local function outcomes(tasks)
  local counts = {}
  for _, one in ipairs(tasks) do
    local _, result, err = assert(one:join(60))
    local code = result and "done" or err.code
    counts[code] = (counts[code] or 0) + 1
  end
  return counts
end

describe("a pool with more work than it can do", function()
  setup(pools.start)
  teardown(pools.stop)
  after_each(pools.close_all)

  it("refuses at once what is beyond its queue, with the figures, and does all that it took", function()
    local pool = pools.open({ max_size = 1, max_waiters = 5, pipeline = false })
    local lease = assert(pool:acquire())
    local queued = spawn_many(5, function()
      return pool:execute("SELECT 1")
    end)
    pools.wait_until("they wait", function()
      return pool:stats().waiting == 5
    end)
    local err = pools.failure("POOL_EXHAUSTED", pool:execute("SELECT 1"))
    assert.is_truthy(err.message:find("refused at once: 5 are waiting for a connection already, max_waiters is 5", 1, true),
      err.message)
    assert.equal("shard1", err.shard_id)
    assert.equal(pool.endpoint, err.endpoint)
    assert.is_true(err.retryable)
    assert.is_true(err.elapsed < 1)
    pools.failure("POOL_EXHAUSTED", pool:acquire())
    assert.equal(2, pool:stats().refused)
    lease:release()
    assert.same({ done = 5 }, outcomes(queued))
    assert(pool:execute("SELECT 1"))
  end)

  it("bounds the queue of shared connections too", function()
    local pool = pools.open({ max_size = 2, max_waiters = 10, slow_statement = 60 })
    pools.wait_until("it is known to be fit for sharing", function()
      assert(pool:execute("SELECT 1 AS n"))
      return pool:stats().shared > 0
    end)
    local blockers = { assert(pool:acquire()), assert(pool:acquire()) }
    local queued = spawn_many(50, function()
      return pool:execute("SELECT 1 AS n")
    end)
    pools.wait_until("they wait, or were refused", function()
      return pool:stats().refused == 40
    end)
    assert.equal(10, pool:stats().waiting)
    for _, lease in ipairs(blockers) do
      lease:release()
    end
    assert.same({ done = 10, POOL_EXHAUSTED = 40 }, outcomes(queued))
  end)
end)

describe("a slow shard", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect({ connection_pool_size = 2, max_waiters = 20 })
  end)
  teardown(cluster.release)

  it("fills up its own queue and nobody else's, also under scatters", function()
    local slow = spawn_many(30, function()
      return router:execute("SELECT pg_sleep(2)", nil, { shard_id = "shard2", pipeline = false })
    end)
    cluster.wait_until("its queue is full", function()
      return manager:get_pool_stats("shard2").refused > 0
    end)
    local scatters = spawn_many(10, function()
      return router:scatter_gather("SELECT 1 AS n", nil, { on_failure = "partial", timeout = 10 })
    end)
    for _ = 1, 50 do
      assert(router:execute("SELECT 1", nil, { shard_id = "shard1" }))
      assert(router:execute("SELECT 1", nil, { shard_id = "shard3" }))
    end
    for _, one in ipairs(scatters) do
      local _, result = assert(one:join(30))
      assert.is_true(result.shard_results.shard1.success and result.shard_results.shard3.success)
    end
    assert.equal(0, manager:get_pool_stats("shard1").refused)
    assert.equal(0, manager:get_pool_stats("shard3").refused)
    for _, one in ipairs(slow) do
      one:cancel()
    end
    cluster.wait_until("it works again", function()
      return router:execute("SELECT 1", nil, { shard_id = "shard2", timeout = 1 }) ~= nil
    end, 20)
  end)
end)

describe("a pool whose server fails", function()
  setup(pools.start)
  teardown(pools.stop)
  after_each(pools.close_all)

  it("tries it with one connection at a time, and less and less often", function()
    local pool = pools.open({ host = "127.0.0.1", port = sockets.closed_port(), max_size = 20 })
    local ends, most = task.now() + 2, 0
    local asking = spawn_many(50, function()
      while task.now() < ends do
        assert.is_nil(pool:execute("SELECT 1", nil, { deadline = ends }))
        most = math.max(most, pool:stats().connecting)
      end
      return true
    end)
    assert.same({ done = 50 }, outcomes(asking))
    local stats = pool:stats()
    -- Pauses of 50 ms, doubled up to a second, each between half and one and a half as long; three at the first go.
    assert.is_true(stats.connect_failures >= 3 and stats.connect_failures <= 14, tostring(stats.connect_failures))
    assert.is_true(most <= 3, tostring(most))
  end)

  it("opens one connection as a trial when all were lost, and works without a restart", function()
    local pool = pools.open({ max_size = 8, pipeline = false })
    local leases = {}
    for i = 1, 8 do
      leases[i] = assert(pool:acquire())
    end
    for _, lease in ipairs(leases) do
      lease:release()
    end
    pools.wait_until("all are idle", function()
      return pool:stats().idle == 8
    end)
    local connects = pool:stats().connects
    pools.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'client backend'",
      { pools.server.user })
    pools.wait_until("they are gone", function()
      return pool:stats().size == 0
    end)
    local before_first = 0
    local ticker = task.spawn(function()
      while pool:stats().connects == connects do
        before_first = math.max(before_first, pool:stats().connecting)
        task.sleep(0)
      end
    end)
    assert.same({ done = 40 }, outcomes(spawn_many(40, function()
      return pool:execute("SELECT pg_sleep(0.01)")
    end)))
    ticker:join()
    assert.equal(1, before_first)
  end)

  it("tries again after a second when a trial is stuck, for the server may be back", function()
    local silent = sockets.silent_server()
    finally(silent.close)
    local pool = pools.open({ host = "127.0.0.1", port = silent.port, max_size = 20, connection_timeout = 0.5 })
    pools.failure("SHARD_DOWN", pool:execute("SELECT 1")) -- in doubt from now on
    pool:reconfigure({ host = "127.0.0.1", port = silent.port, max_size = 20, connection_timeout = 30,
      user = pools.server.user, database = pools.server.database, password = pools.server.password })
    local most, ends = 0, task.now() + 2.5
    local waiting = spawn_many(10, function()
      return pool:execute("SELECT 1", nil, { deadline = ends })
    end)
    while task.now() < ends do
      most = math.max(most, pool:stats().connecting)
      task.sleep(0.01)
    end
    outcomes(waiting)
    assert.is_true(most == 2 or most == 3, tostring(most))
  end)

  it("does not connect in a frenzy to one that ends every session at once", function()
    local pool = pools.open({ max_size = 8, pipeline = false })
    pools.admin("ALTER ROLE " .. pools.server.user .. " CONNECTION LIMIT 0")
    finally(function()
      pools.admin("ALTER ROLE " .. pools.server.user .. " CONNECTION LIMIT -1")
    end)
    local ends = task.now() + 1
    outcomes(spawn_many(20, function()
      local _, err
      repeat
        _, err = pool:execute("SELECT 1", nil, { deadline = ends })
      until task.now() >= ends
      return nil, err
    end))
    local tried = pool:stats().connect_failures
    assert.is_true(tried >= 2 and tried <= 12, tostring(tried))
    pools.admin("ALTER ROLE " .. pools.server.user .. " CONNECTION LIMIT -1")
    local result, err
    for _ = 1, 3 do -- a connection that was under way may still be refused
      result, err = pool:execute("SELECT 1", nil, { deadline = task.now() + 10 })
      if result then
        break
      end
    end
    assert(result, err)
  end)
end)
