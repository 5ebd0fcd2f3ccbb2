local pools = require("spec.support.pools")
local task = require("lunashard.task")

describe("pool:reconfigure", function()
  local server

  setup(function()
    server = pools.start()
    pools.admin("DROP ROLE IF EXISTS rotated")
    pools.admin("CREATE ROLE rotated LOGIN PASSWORD 'old secret'")
  end)

  teardown(function()
    pools.close_all()
    pools.wait_until("no session of the role is left", function()
      return pools.admin("SELECT count(*) AS n FROM pg_stat_activity WHERE usename = 'rotated'")[1].n == 0
    end)
    pools.admin("DROP ROLE rotated")
    pools.stop()
  end)

  after_each(function()
    pools.close_all()
  end)

  -- Options as `pools.open` gives them to a pool.
  local function options(more)
    local all = { shard_id = "shard1", pipeline = false }
    for _, name in ipairs({ "host", "port", "database", "user", "password" }) do
      all[name] = server[name]
    end
    for name, value in pairs(more or {}) do
      all[name] = value
    end
    return all
  end

  local function leases(pool, n)
    local list = {}
    for i = 1, n do
      list[i] = assert(pool:acquire(task.now() + 5))
    end
    return list
  end

  it("lets a pool grow beyond its size of before", function()
    local pool = pools.open(options({ max_size = 1 }))
    local held = leases(pool, 1)
    local waiting = task.spawn(function()
      return assert(pool:execute("SELECT 1"))
    end)
    pools.wait_until("it waits", function()
      return pool:stats().waiting == 1
    end)
    pool:reconfigure(options({ max_size = 2 }))
    assert.is_true((waiting:join(5)))
    held[1]:release()
  end)

  it("closes what is idle when the pool shrinks, and lets what is used finish", function()
    local pool = pools.open(options({ max_size = 5 }))
    local held = leases(pool, 5)
    held[4]:release()
    held[5]:release()
    pools.wait_until("two are idle", function()
      return pool:stats().idle == 2
    end)
    pool:reconfigure(options({ max_size = 2 }))
    assert.equal(3, pool:stats().size)
    for i = 1, 3 do
      assert.equal(i, assert(held[i]:execute("SELECT $1::int AS i", { i })).rows[1].i)
    end
    for i = 1, 3 do
      held[i]:release()
    end
    pools.wait_until("two are left", function()
      return pool:stats().idle == 2 and pool:stats().size == 2
    end)
    assert.equal(0, pool:stats().errors)
  end)

  it("shrinks under load on shared connections, and nothing fails", function()
    local pool = pools.open({ max_size = 8 })
    local going, done = true, 0
    local workers = {}
    for w = 1, 40 do
      workers[w] = task.spawn(function()
        while going do
          assert(pool:execute("SELECT $1::int AS n", { w }))
          done = done + 1
        end
      end)
    end
    pools.wait_until("statements share connections", function()
      return pool:stats().shared > 1000
    end, 20)
    pool:reconfigure(options({ max_size = 1, pipeline = true }))
    pools.wait_until("one connection is left", function()
      return pool:stats().size == 1
    end)
    local before = done
    pools.wait_until("work goes on", function()
      return done > before + 200
    end)
    going = false
    for _, worker in ipairs(workers) do
      assert(worker:join(5))
    end
  end)

  it("refuses work beyond a smaller max_waiters, and keeps what waits already", function()
    local pool = pools.open(options({ max_size = 1, max_waiters = 10 }))
    local held = leases(pool, 1)
    local waiting = {}
    for i = 1, 5 do
      waiting[i] = task.spawn(function()
        return assert(pool:execute("SELECT 1"))
      end)
    end
    pools.wait_until("five wait", function()
      return pool:stats().waiting == 5
    end)
    pool:reconfigure(options({ max_size = 1, max_waiters = 2 }))
    pools.failure("POOL_EXHAUSTED", pool:execute("SELECT 1"))
    held[1]:release()
    for i = 1, 5 do
      assert(waiting[i]:join(5))
    end
  end)

  it("uses a new password for new connections, while those there go on", function()
    local pool = pools.open(options({ user = "rotated", password = "old secret", max_size = 3 }))
    local held = leases(pool, 1)
    pools.admin("ALTER ROLE rotated PASSWORD 'new secret'")
    assert.is_nil((pool:execute("SELECT 1", nil, { deadline = task.now() + 0.5 })))
    assert.matches("password authentication failed", pool:stats().last_error)
    pool:reconfigure(options({ user = "rotated", password = "new secret", max_size = 3 }))
    assert(pool:execute("SELECT 1"))
    assert(held[1]:execute("SELECT 1"))
    held[1]:release()
  end)

  it("replaces connections that were made with other parameters", function()
    local pool = pools.open(options({ application_name = "before", max_size = 3, max_lifetime = 0 }))
    local held = leases(pool, 3)
    for _, lease in ipairs(held) do
      lease:release()
    end
    pool:reconfigure(options({ application_name = "after", max_size = 3, max_lifetime = 0.5 }))
    pools.wait_until("no connection of before is left", function()
      return pools.sessions("application_name = 'before'") == 0
    end)
    assert.equal("after", assert(pool:execute("SHOW application_name")).rows[1].application_name)
  end)

  it("refuses another host, and wrong options, and is then as it was", function()
    local pool = pools.open(options({ max_size = 2 }))
    assert.error_matches(function()
      pool:reconfigure(options({ port = 1 }))
    end, "this is a pool of")
    assert.error_matches(function()
      pool:reconfigure(options({ max_size = 0 }))
    end, "option max_size: expected 1 or more, got 0")
    assert.equal(2, pool:stats().max_size)
    assert(pool:execute("SELECT 1"))
  end)

  it("drains: what runs finishes, and every connection is closed when it is free", function()
    local pool = pools.open(options({ max_size = 4, min_size = 2 }))
    local held = leases(pool, 3)
    held[3]:release()
    pools.wait_until("one is idle", function()
      return pool:stats().idle >= 1
    end)
    pool:drain()
    assert.equal(0, pool:stats().idle)
    assert(held[1]:execute("SELECT 1"))
    held[1]:release()
    assert(pool:execute("SELECT 1"))
    pools.wait_until("only the lease is left", function()
      return pool:stats().size == 1
    end)
    held[2]:release()
    pools.wait_until("nothing is left", function()
      return pool:stats().size == 0
    end)
  end)

  it("tells how much there is to do", function()
    local pool = pools.open(options({ max_size = 2 }))
    assert.equal(0, pool:load())
    local held = leases(pool, 2)
    local waiting = task.spawn(function()
      return pool:execute("SELECT 1")
    end)
    pools.wait_until("one waits", function()
      return pool:stats().waiting == 1
    end)
    assert.equal(3, pool:load())
    held[1]:release()
    held[2]:release()
    assert(waiting:join(5))
    pools.wait_until("there is nothing to do", function()
      return pool:load() == 0
    end)
    pool:close()
    assert.equal(0, pool:load())
  end)
end)
