local errors = require("lunashard.errors")
local pools = require("spec.support.pools")
local task = require("lunashard.task")

describe("an interrupted query", function()
  local IN_SLEEP = "state = 'active' AND query LIKE '%pg_sleep%'"

  setup(function()
    pools.start()
  end)

  teardown(function()
    pools.stop()
  end)

  after_each(function()
    pools.close_all()
    pools.wait_until("no session is left", function()
      return pools.sessions() == 0
    end)
  end)

  local function lease_of(pool)
    return assert(pool:acquire(task.now() + 5))
  end

  -- n functions for task.gather.
  local function copies(n, fn)
    local fns = {}
    for i = 1, n do
      fns[i] = function()
        return fn(i)
      end
    end
    return fns
  end

  describe("a session ended by somebody else", function()
    it("while idle is not noticed by the next user", function()
      local pool = pools.open({ max_size = 2 })
      assert(task.gather(copies(2, function()
        return assert(pool:execute("SELECT pg_sleep(0.05)"))
      end)))
      pools.admin("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'")
      for _ = 1, 5 do
        assert(pool:execute("SELECT 1"))
      end
      assert(pool:execute("CREATE TEMPORARY TABLE a_write_as_well (a int)"))
    end)

    it("in mid-query is reported with the server's reason", function()
      local pool = pools.open({ max_size = 1 })
      local running = task.spawn(function()
        local result, err = pool:execute("SELECT pg_sleep(30)", nil, { read_only = true })
        return result == nil, err
      end)
      pools.wait_until("it runs", function()
        return pools.sessions(IN_SLEEP) == 1
      end)
      pools.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
      local _, failed, err = assert(running:join(5))
      assert.is_true(failed)
      assert.is_true(errors.is(err, "SQL") or errors.is(err, "SHARD_DOWN"), tostring(err))
      assert.equal("57P01", err.sqlstate)
      assert.is_true(err.retryable)
      assert(pool:execute("SELECT 1"))
    end)

    it("in mid-transaction fails the lease, which then says CLOSED or the like at once", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      assert(lease:execute("BEGIN"))
      pools.admin("SELECT pg_terminate_backend($1::int, 5000)", { lease.backend_pid })
      local result, err = lease:execute("SELECT 1")
      assert.is_nil(result)
      assert.is_true(errors.is(err), tostring(err))
      local seconds, again = pools.timed(function()
        return (lease:execute("SELECT 1"))
      end)
      assert.is_nil(again)
      assert.is_true(seconds < 0.5)
      lease:release()
      assert(pool:execute("SELECT 1"))
    end)
  end)

  describe("a timeout", function()
    it("cancels the query on the server and keeps the pool usable", function()
      local pool = pools.open({ max_size = 1 })
      for _, options in ipairs({ { read_only = true }, {} }) do
        local seconds, result, err = pools.timed(function()
          options.deadline = task.now() + 0.3
          return pool:execute("SELECT pg_sleep(30)", nil, options)
        end)
        pools.failure("TIMEOUT", result, err)
        assert.is_true(seconds >= 0.29 and seconds < 1.5, seconds)
        assert.is_true(err.retryable)
        assert.equal("shard1", err.shard_id)
        pools.wait_until("the server runs it no more", function()
          return pools.sessions(IN_SLEEP) == 0
        end, 2)
        assert.equal(1, assert(pool:execute("SELECT 1 AS v")).rows[1].v)
      end
      assert.equal(1, pools.sessions())
    end)

    it("of a write leaves nothing done when it says TIMEOUT", function()
      local pool = pools.open({ max_size = 1 })
      assert(pool:execute("CREATE TABLE written (a int)"))
      pools.failure("TIMEOUT", pool:execute("INSERT INTO written SELECT 1 FROM pg_sleep(30)", nil, {
        deadline = task.now() + 0.2,
      }))
      assert.equal(0, assert(pool:execute("SELECT count(*) AS n FROM written")).rows[1].n)
      assert(pool:execute("DROP TABLE written"))
    end)

    it("that has passed before the start sends nothing", function()
      local pool = pools.open({ max_size = 1 })
      assert(pool:execute("CREATE TABLE untouched (a int)"))
      local seconds, result, err = pools.timed(function()
        return pool:execute("INSERT INTO untouched VALUES (1)", nil, { deadline = task.now() - 1 })
      end)
      assert.is_nil(result)
      assert.is_true(errors.is(err, "TIMEOUT") or errors.is(err, "POOL_EXHAUSTED"), tostring(err))
      assert.is_true(seconds < 0.2)
      assert.equal(0, assert(pool:execute("SELECT count(*) AS n FROM untouched")).rows[1].n)
      assert(pool:execute("DROP TABLE untouched"))
    end)

    it("inside a transaction leaves it to be rolled back", function()
      local lease = lease_of(pools.open({ max_size = 1 }))
      assert(lease:execute("BEGIN"))
      pools.failure("TIMEOUT", lease:execute("SELECT pg_sleep(30)", nil, { deadline = task.now() + 0.2 }))
      local result, err = lease:execute("ROLLBACK")
      assert.is_true(result ~= nil or errors.is(err), tostring(err))
      lease:release()
    end)

    it("never hits the next query on the same connection", function()
      local pool = pools.open({ max_size = 1 })
      local timeouts = 0
      for i = 1, 60 do
        local result, err = pool:execute("SELECT pg_sleep(0.01)", nil, {
          deadline = task.now() + 0.002 + (i % 10) * 0.002,
          read_only = i % 2 == 0,
        })
        if not result then
          assert.is_true(errors.is(err, "TIMEOUT") or errors.is(err, "POOL_EXHAUSTED"), tostring(err))
          timeouts = timeouts + 1
        end
        assert(pool:execute("SELECT pg_sleep(0.002)"))
      end
      assert.is_true(timeouts > 10, timeouts .. " timeouts")
    end)
  end)

  describe("a cancelled task", function()
    it("frees its connection, and the server stops working for it", function()
      local pool = pools.open({ max_size = 1 })
      local running = task.spawn(function()
        return pool:execute("SELECT pg_sleep(30)")
      end)
      pools.wait_until("it runs", function()
        return pools.sessions(IN_SLEEP) == 1
      end)
      running:cancel()
      local ok, err = running:join(1)
      assert.is_nil(ok)
      assert.is_true(errors.is(err, "CANCELED"))
      local seconds = pools.timed(function()
        return assert(pool:execute("SELECT 1", nil, { deadline = task.now() + 5 }))
      end)
      assert.is_true(seconds < 2, seconds)
      assert.equal(0, pools.sessions(IN_SLEEP))
      assert.equal(0, pool:stats().used)
    end)

    it("with a lease gives it back when its clean-up releases it", function()
      local pool = pools.open({ max_size = 1 })
      local running = task.spawn(function()
        local lease = lease_of(pool)
        assert(lease:execute("BEGIN"))
        local ok, err = pcall(lease.execute, lease, "SELECT pg_sleep(30)")
        lease:release()
        assert(ok, err)
      end):watch()
      pools.wait_until("it runs", function()
        return pools.sessions(IN_SLEEP) == 1
      end)
      running:cancel()
      running:join(5)
      assert(pool:execute("SELECT 1", nil, { deadline = task.now() + 5 }))
      assert.equal(0, pools.sessions("state LIKE 'idle in transaction%'"))
    end)

    it("in great numbers does no harm", function()
      local pool = pools.open({ max_size = 4 })
      for _ = 1, 5 do
        local running = {}
        for i = 1, 20 do
          running[i] = task.spawn(function()
            return pool:execute("SELECT pg_sleep(30)")
          end)
        end
        pools.wait_until("four run", function()
          return pools.sessions(IN_SLEEP) == 4
        end)
        for i = 1, 20 do
          running[i]:cancel()
        end
        for i = 1, 20 do
          assert.is_nil((running[i]:join(5)))
        end
      end
      assert(pool:execute("SELECT 1", nil, { deadline = task.now() + 5 }))
      pools.wait_until("nothing runs any more", function()
        return pools.sessions(IN_SLEEP) == 0 and pool:stats().used == 0
      end)
      assert.is_true(pools.sessions() <= 4)
    end)
  end)
end)
