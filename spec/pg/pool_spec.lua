local errors = require("lunashard.errors")
local pools = require("spec.support.pools")
local sockets = require("spec.support.sockets")
local task = require("lunashard.task")

describe("pool", function()
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

  local function pid_of(session)
    return assert(session:execute("SELECT pg_backend_pid() AS pid")).rows[1].pid
  end

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

  describe("size", function()
    it("never exceeds max_size, whatever the demand", function()
      local pool, most = pools.open({ max_size = 3 }), 0
      local watching = task.spawn(function()
        while true do
          most = math.max(most, pools.sessions())
          task.sleep(0.01)
        end
      end)
      local got = assert(task.gather(copies(60, function(i)
        return assert(pool:execute("SELECT pg_sleep(0.02), $1::int AS i", { i })).rows[1].i
      end)))
      watching:cancel()
      for i = 1, 60 do
        assert.equal(i, got[i])
      end
      assert.equal(3, most)
      assert.equal(3, pool:stats().size)
    end)

    it("opens nothing before it is asked, by default", function()
      local pool = pools.open()
      task.sleep(0.1)
      assert.equal(0, pool:stats().size)
      assert.equal(0, pools.sessions())
    end)

    it("grows to min_size by itself", function()
      local pool = pools.open({ min_size = 2 })
      pools.wait_until("two connections are idle", function()
        return pool:stats().idle == 2
      end)
      assert.equal(2, pools.sessions())
    end)

    it("shrinks to min_size after idle_timeout", function()
      local pool = pools.open({ min_size = 1, max_size = 4, idle_timeout = 0.3 })
      assert(task.gather(copies(4, function()
        return assert(pool:execute("SELECT pg_sleep(0.1)"))
      end)))
      assert.equal(4, pool:stats().size)
      pools.wait_until("only min_size is left", function()
        return pool:stats().size == 1 and pools.sessions() == 1
      end)
      task.sleep(0.5)
      assert.equal(1, pools.sessions())
    end)

    it("replaces a connection after max_lifetime, without anybody noticing", function()
      local pool = pools.open({ max_size = 1, max_lifetime = 0.3 })
      local first, pids, n = pid_of(pool), {}, 0
      local deadline = task.now() + 1.5
      while task.now() < deadline do
        local pid = pid_of(pool)
        n = n + (pids[pid] and 0 or 1)
        pids[pid] = true
        task.sleep(0.01)
      end
      assert.is_true(n >= 3, n .. " connections")
      assert.is_true(n <= 12, n .. " connections")
      assert.is_true(pids[first])
    end)

    it("uses the connection that was used last", function()
      local pool = pools.open({ max_size = 3, pipeline = false }) -- nor does it look at statements beside the work
      local a, b, c = lease_of(pool), lease_of(pool), lease_of(pool)
      local middle = b.backend_pid
      for i, lease in ipairs({ a, c, b }) do
        lease:release() -- it is idle when its session was reset
        pools.wait_until("it is idle", function()
          return pool:stats().idle == i
        end)
      end
      for _ = 1, 5 do
        assert.equal(middle, pid_of(pool))
      end
    end)
  end)

  describe("waiters", function()
    it("are served in the order in which they came", function()
      local pool, order = pools.open({ max_size = 1 }), {}
      local lease = lease_of(pool)
      local waiting = {}
      for i = 1, 8 do
        waiting[i] = task.spawn(function()
          if i % 2 == 0 then
            lease_of(pool):release()
          else
            assert(pool:execute("SELECT 1"))
          end
          order[#order + 1] = i
        end)
        pools.wait_until("it waits", function()
          return pool:stats().waiting == i
        end)
      end
      lease:release()
      for i = 1, 8 do
        assert(waiting[i]:join(5))
      end
      assert.same({ 1, 2, 3, 4, 5, 6, 7, 8 }, order)
    end)

    it("get POOL_EXHAUSTED at their deadline, and the others their turn", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      local patient = task.spawn(function()
        return assert(pool:execute("SELECT 7 AS v", nil, { deadline = task.now() + 5 })).rows[1].v
      end)
      local seconds, result, err = pools.timed(function()
        return pool:execute("SELECT 1", nil, { deadline = task.now() + 0.2 })
      end)
      pools.failure("POOL_EXHAUSTED", result, err)
      assert.is_true(seconds >= 0.19 and seconds < 0.6, seconds)
      assert.equal("shard1", err.shard_id)
      pools.failure("POOL_EXHAUSTED", pool:acquire(task.now() + 0.1))
      assert.equal(1, pool:stats().waiting)
      lease:release()
      local _, value = assert(patient:join(5))
      assert.equal(7, value)
    end)

    it("beyond max_waiters are refused at once", function()
      local pool = pools.open({ max_size = 1, max_waiters = 2 })
      local lease = lease_of(pool)
      local waiting = {}
      for i = 1, 2 do
        waiting[i] = task.spawn(function()
          return assert(pool:execute("SELECT 1"))
        end)
      end
      pools.wait_until("two wait", function()
        return pool:stats().waiting == 2
      end)
      local seconds, result, err = pools.timed(function()
        return pool:execute("SELECT 1", nil, { deadline = task.now() + 5 })
      end)
      pools.failure("POOL_EXHAUSTED", result, err)
      assert.is_true(seconds < 0.1, seconds)
      assert.is_truthy(err.message:find("2", 1, true), err.message)
      lease:release()
      assert(waiting[1]:join(5))
      assert(waiting[2]:join(5))
    end)

    it("whose task was cancelled leave the queue", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      local waiting = task.spawn(function()
        return pool:execute("SELECT 1")
      end)
      pools.wait_until("it waits", function()
        return pool:stats().waiting == 1
      end)
      waiting:cancel()
      local ok, err = waiting:join(5)
      assert.is_nil(ok)
      assert.is_true(errors.is(err, "CANCELED"))
      assert.equal(0, pool:stats().waiting)
      lease:release()
      assert(pool:execute("SELECT 1"))
    end)

    it("may be 10,000 tasks on 20 connections", function()
      local pool, most = pools.open({ max_size = 20, max_waiters = 10000 }), 0
      local got = assert(task.gather(copies(10000, function(i)
        most = math.max(most, pool:stats().size)
        return assert(pool:execute("SELECT $1::int AS v", { i })).rows[1].v
      end)))
      local sum = 0
      for i = 1, 10000 do
        sum = sum + got[i]
      end
      assert.equal(10000 * 10001 / 2, sum)
      assert.is_true(most <= 20, most)
      assert.is_true(pool:stats().connects <= 20)
    end)
  end)

  describe("beside a dead and a silent shard", function()
    it("answers as fast as ever", function()
      local silent = sockets.silent_server()
      local pool = pools.open()
      local stuck = pools.open({ port = silent.port, connection_timeout = 1 })
      local dead = pools.open({ port = sockets.closed_port() })
      assert(pool:execute("SELECT 1"))
      local others = {}
      for i = 1, 50 do
        others[i] = task.spawn(function()
          local result, err = (i % 2 == 0 and stuck or dead):execute("SELECT 1", nil, { deadline = task.now() + 3 })
          pools.failure("SHARD_DOWN", result, err)
        end)
      end
      local slowest = 0
      for _ = 1, 50 do
        slowest = math.max(slowest, (pools.timed(function()
          return assert(pool:execute("SELECT 1"))
        end)))
        task.sleep(0.005)
      end
      for i = 1, 50 do
        assert(others[i]:join(5))
      end
      silent.close()
      assert.is_true(slowest < 0.1, slowest)
    end)
  end)

  describe("closing", function()
    it("ends waiters, running queries and leases with CLOSED", function()
      local pool = pools.open({ max_size = 2 })
      local lease = lease_of(pool)
      local function fails_closed(fn)
        return task.spawn(function()
          pools.failure("CLOSED", fn())
        end)
      end
      local running = fails_closed(function()
        return pool:execute("SELECT pg_sleep(30)", nil, { read_only = true })
      end)
      local waiting = {}
      for i = 1, 3 do
        waiting[i] = fails_closed(function()
          if i == 1 then
            return pool:acquire()
          end
          return pool:execute("SELECT 1")
        end)
      end
      pools.wait_until("all are where they should be", function()
        return pool:stats().waiting == 3 and pools.sessions(IN_SLEEP) == 1
      end)
      pool:close()
      assert(running:join(5))
      for i = 1, 3 do
        assert(waiting[i]:join(5))
      end
      pools.failure("CLOSED", lease:execute("SELECT 1"))
      lease:release()
      pools.failure("CLOSED", pool:execute("SELECT 1"))
      pools.failure("CLOSED", pool:acquire())
      pool:close()
    end)

    it("stops on the server what was running", function()
      local pool = pools.open({ max_size = 1 })
      local running = task.spawn(function()
        return pool:execute("SELECT pg_sleep(30)")
      end)
      pools.wait_until("it runs", function()
        return pools.sessions(IN_SLEEP) == 1
      end)
      pool:close()
      assert(running:join(5))
      pools.wait_until("the server runs it no more", function()
        return pools.sessions(IN_SLEEP) == 0
      end)
    end)

    it("leaves neither descriptors nor sessions", function()
      pools.sessions()
      local before = sockets.open_descriptors()
      for _ = 1, 10 do
        local pool = pools.open({ max_size = 5 })
        assert(task.gather(copies(5, function()
          return assert(pool:execute("SELECT pg_sleep(0.01)"))
        end)))
        local lease = lease_of(pool)
        lease:discard("closed by the spec")
        local options = { deadline = task.now() + 0.05, read_only = true }
        pools.failure("TIMEOUT", pool:execute("SELECT pg_sleep(9)", nil, options))
        pool:close()
      end
      pools.wait_until("all sessions are gone", function()
        return pools.sessions() == 0
      end)
      pools.wait_until("all descriptors are closed", function()
        return sockets.open_descriptors() <= before
      end)
    end)
  end)

  describe("stats", function()
    it("tell what is going on", function()
      local pool = pools.open({ max_size = 3, min_size = 0 })
      local fresh = pool:stats()
      for name, expected in pairs({
        size = 0, used = 0, idle = 0, connecting = 0, waiting = 0, max_size = 3, min_size = 0,
        queries = 0, errors = 0, connects = 0, connect_failures = 0,
      }) do
        assert.equal(expected, fresh[name], name)
      end
      assert.is_nil(fresh.last_error)

      local a, b = lease_of(pool), lease_of(pool)
      assert.same({ 2, 2, 0 }, { pool:stats().size, pool:stats().used, pool:stats().idle })
      b:release()
      pools.wait_until("it is idle", function()
        return pool:stats().idle == 1
      end)
      assert.same({ 2, 1 }, { pool:stats().size, pool:stats().used })
      assert(a:execute("SELECT 1"))
      assert(pool:execute("SELECT 1"))
      pools.failure("SQL", pool:execute("SELECT 1/0"))
      a:release()
      pools.wait_until("both are idle", function()
        return pool:stats().idle == 2
      end)
      local after = pool:stats()
      assert.equal(2, after.connects)
      assert.equal(3, after.queries)
      assert.equal(1, after.errors)
      assert.equal(0, after.used)
      assert.is_nil(after.last_error) -- that is about connections
    end)

    it("count failures to connect and remember the last", function()
      local pool = pools.open({ port = sockets.closed_port() })
      pools.failure("SHARD_DOWN", pool:execute("SELECT 1"))
      local stats = pool:stats()
      assert.is_true(stats.connect_failures >= 1)
      assert.equal(0, stats.connects)
      assert.equal(0, stats.size)
      assert.is_truthy(tostring(stats.last_error):find("refused", 1, true), tostring(stats.last_error))
    end)

    it("add up the time that was spent waiting", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      local before = pool:stats().wait_time
      local waiting = task.spawn(function()
        return assert(pool:execute("SELECT 1"))
      end)
      task.sleep(0.25)
      lease:release()
      assert(waiting:join(5))
      local waited = pool:stats().wait_time - before
      assert.is_true(waited >= 0.2 and waited < 2, waited)
    end)
  end)
end)
