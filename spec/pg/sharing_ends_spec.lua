local errors = require("lunashard.errors")
local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

-- The end of a session, of a server, of a pool, and pools that have hardly any connection.
describe("statements that share a connection", function()
  sharing.around(setup, teardown, after_each)

  -- As the router does: what is certain to be harmless is run again.
  local function retrying(pool, tries)
    return function(sql, params, opts)
      local result, err
      for _ = 1, tries do
        result, err = pool:execute(sql, params, opts)
        if result then
          return result
        end
        local lost = err.sqlstate == "57P01" or err.code == "SHARD_DOWN" or err.code == "UNKNOWN_OUTCOME"
        if not lost or not (opts and opts.read_only) then
          return nil, err
        end
        task.sleep(0.01)
      end
      return nil, err
    end
  end

  local function is_loss(err)
    return err.code == "UNKNOWN_OUTCOME" or err.code == "SHARD_DOWN" or err.sqlstate == "57P01"
  end

  describe("whose session is terminated", function()
    it("report their true outcome, and reads succeed when they are tried again", function()
      local pool, killed = pools.open({ max_size = 2 }), 0
      local neighbours = sharing.neighbours(pool, {
        n = 16,
        execute = retrying(pool, 20),
        may_fail = is_loss,
      })
      while killed < 40 do
        killed = killed + #pools.admin(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 ORDER BY random() LIMIT 1",
          { pools.server.user })
        task.sleep(math.random() * 0.02)
      end
      neighbours:go_on(5)
      neighbours:stop()
    end)

    it("fail with the server's reason in the middle of a statement, and the next finds a new session", function()
      local pool = pools.open({ max_size = 1 })
      local slow = "SELECT v FROM sharing.item WHERE id = $1 AND sharing.nap($2)"
      sharing.warm(pool, slow, { 1, 0 })
      for _ = 1, 3 do
        local running = task.spawn(function()
          return pool:execute(slow, { 1, 30 })
        end):watch()
        pools.wait_until("it is ended", function()
          return #pools.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1
        end)
        local ok, result, err = running:join(10)
        assert.is_true(ok)
        assert.is_nil(result)
        assert.is_true(is_loss(err), tostring(err))
        assert(pool:execute(sharing.READ, { 1 }))
      end
    end)

    it("are never sent to a session that ended while it was idle", function()
      local pool = pools.open({ max_size = 2 })
      local neighbours = sharing.neighbours(pool, { n = 4 })
      neighbours:stop()
      for _ = 1, 5 do
        pools.admin("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1",
          { pools.server.user })
        assert(pool:execute(sharing.INSERT, { sharing.new_id() }))
        assert(pool:execute(sharing.READ, { 1 }))
      end
    end)
  end)

  describe("of a pool that is closed", function()
    it("end with CLOSED or their true outcome", function()
      for round = 1, 6 do
        local pool, said = pools.open({ max_size = 2 }), {}
        sharing.warm(pool, sharing.READ, { 1 })
        sharing.warm(pool, sharing.INSERT, { 1 })
        sharing.warm(pool, sharing.SLOW_READ, { 1, 1 })
        local tasks = {}
        for i = 1, 60 do
          local id = sharing.new_id()
          tasks[i] = task.spawn(function()
            local result, err
            if i % 3 == 0 then
              result, err = pool:execute(sharing.INSERT, { id })
              said[id] = result and "done" or err.code
            elseif i % 10 == 1 then
              result, err = pool:execute(sharing.SLOW_READ, { i, 200000 }, { read_only = true })
            else
              result, err = pool:execute(sharing.READ, { i }, { read_only = true })
            end
            if result then
              assert.is_true(i % 3 == 0 or result.rows[1].v == i * 7 + 3)
            else
              assert.is_true(err.code == "CLOSED" or i % 3 == 0 and err.code == "UNKNOWN_OUTCOME", tostring(err))
            end
          end):watch()
        end
        task.sleep((round - 1) * 0.003)
        pool:close()
        for i = 1, 60 do
          assert(tasks[i]:join(10))
        end
        pools.failure("CLOSED", pool:execute(sharing.READ, { 1 }))
        pools.wait_until("the sessions are gone", function()
          return pools.sessions() == 0
        end)
        local times = sharing.written()
        for id, outcome in pairs(said) do
          local n = times[id] or 0
          assert.is_true(outcome == "done" and n == 1 or outcome == "UNKNOWN_OUTCOME" and n <= 1 or n == 0,
            ("%s, but there %d times"):format(outcome, n))
        end
      end
    end)

    it("are stopped on the server", function()
      local pool = pools.open({ max_size = 2 })
      local slow = "SELECT v FROM sharing.item WHERE id = $1 AND sharing.nap($2)"
      sharing.warm(pool, slow, { 1, 0 })
      local running = task.spawn(function()
        pools.failure("CLOSED", pool:execute(slow, { 1, 30 }, { read_only = true }))
      end):watch()
      pools.wait_until("it runs", function()
        return pools.sessions("wait_event = 'PgSleep'") == 1
      end)
      pool:close()
      assert(running:join(5))
    end)
  end)

  describe("of a pool with few connections", function()
    for size = 1, 3 do
      it(("make way for transactions and streams, and these for them (%d)"):format(size), function()
        local pool = pools.open({ max_size = size })
        local rounds = { shared = 0, transaction = 0, stream = 0, alone = 0 }
        local neighbours = sharing.neighbours(pool, { n = 4 })
        local works = {}
        function works.transaction()
          local lease, id = assert(pool:acquire(task.now() + 20)), sharing.new_id()
          assert(lease:execute("BEGIN"))
          assert(lease:execute(sharing.INSERT, { id }))
          local n = assert(lease:execute("SELECT count(*) AS n FROM sharing.log WHERE id = $1", { id })).rows[1].n
          assert.equal(1, n)
          assert(lease:execute("COMMIT"))
          lease:release()
        end
        function works.stream()
          local lease = assert(pool:acquire(task.now() + 20))
          local cursor = assert(lease:stream("SELECT id, v FROM sharing.item ORDER BY id"))
          local n = 0
          repeat
            local rows = assert(cursor:fetch(70))
            n = n + #rows
          until #rows == 0
          assert.equal(sharing.ITEMS, n)
          lease:release()
        end
        function works.alone()
          local result = assert(pool:execute("SELECT $1::int AS v, pg_sleep(0.001)", { 5 }, { deadline = task.now() + 20 }))
          assert.equal(5, result.rows[1].v)
        end
        function works.shared()
          assert(pool:execute(sharing.READ, { 1 }, { deadline = task.now() + 20 }))
          assert(pool:execute(sharing.INSERT, { sharing.new_id() }, { deadline = task.now() + 20 }))
        end
        local names = { "shared", "transaction", "stream", "alone" }
        sharing.all(8, function(i)
          local name = names[(i - 1) % 4 + 1]
          for _ = 1, 25 do
            works[name]()
            rounds[name] = rounds[name] + 1
          end
        end)
        neighbours:go_on(5)
        neighbours:stop()
        assert.same({ shared = 50, transaction = 50, stream = 50, alone = 50 }, rounds)
        assert.is_true(pool:stats().size <= size)
      end)
    end

    it("wait for the only one, in vain until their deadline", function()
      local pool = pools.open({ max_size = 1 })
      sharing.warm(pool, sharing.READ, { 1 })
      local lease = assert(pool:acquire(task.now() + 5))
      local err = pools.failure("POOL_EXHAUSTED", pool:execute(sharing.READ, { 1 }, { deadline = task.now() + 0.2 }))
      assert.is_truthy(err.message:find("while waiting for a connection: 1 of at most 1 are in use", 1, true), err.message)
      lease:release()
      assert(pool:execute(sharing.READ, { 1 }, { deadline = task.now() + 5 }))
    end)

    it("are refused beyond max_waiters, and the others get their turn", function()
      local pool = pools.open({ max_size = 1, max_waiters = 20 })
      sharing.warm(pool, sharing.READ, { 1 })
      local lease = assert(pool:acquire(task.now() + 5))
      local served, refused, tasks = 0, 0, {}
      for i = 1, 50 do
        tasks[i] = task.spawn(function()
          local result, err = pool:execute(sharing.READ, { i }, { deadline = task.now() + 10 })
          if result then
            assert.equal(i * 7 + 3, result.rows[1].v)
            served = served + 1
          else
            pools.failure("POOL_EXHAUSTED", nil, err)
            refused = refused + 1
          end
        end):watch()
      end
      pools.wait_until("some were refused", function()
        return refused == 30
      end)
      lease:release()
      for i = 1, 50 do
        assert(tasks[i]:join(10))
      end
      assert.equal(20, served)
    end)

    it("may be ten thousand at once", function()
      local pool = pools.open({ max_size = 2 })
      sharing.warm(pool, sharing.READ, { 1 })
      local right = 0
      sharing.all(10000, function(i)
        local id = i % sharing.ITEMS + 1
        local v = assert(pool:execute(sharing.READ, { id })).rows[1].v
        right = right + (v == id * 7 + 3 and 1 or 0)
      end)
      assert.equal(10000, right)
    end)

    it("give back what they took when nothing is to do", function()
      local pool = pools.open({ max_size = 3, idle_timeout = 0.3 })
      local neighbours = sharing.neighbours(pool, { n = 12 })
      neighbours:go_on(5)
      neighbours:stop()
      pools.wait_until("no connection is left", function()
        return pool:stats().size == 0 and pools.sessions() == 0
      end)
      assert(pool:execute(sharing.READ, { 1 }))
    end)

    it("move to a new session at max_lifetime without anybody noticing", function()
      local pool = pools.open({ max_size = 2, max_lifetime = 0.2 })
      local neighbours = sharing.neighbours(pool, { n = 8 })
      local connects = pool:stats().connects
      pools.wait_until("connections were replaced", function()
        return pool:stats().connects >= connects + 4
      end, 10)
      neighbours:stop()
    end)
  end)

  describe("of a task that is cancelled", function()
    it("are taken out of the queue", function()
      local pool = pools.open({ max_size = 1 })
      sharing.warm(pool, sharing.INSERT, { 1 })
      local lease = assert(pool:acquire(task.now() + 5))
      local id = sharing.new_id()
      local waiting = task.spawn(function()
        return pool:execute(sharing.INSERT, { id })
      end):watch()
      pools.wait_until("it waits", function()
        return pool:stats().waiting == 1
      end)
      waiting:cancel()
      local ok, err = waiting:join(5)
      assert.is_nil(ok)
      assert.is_true(errors.is(err, "CANCELED"))
      assert.equal(0, pool:stats().waiting)
      lease:release()
      assert(pool:execute(sharing.INSERT, { sharing.new_id() }))
      assert.is_nil(sharing.written()[id])
    end)
  end)
end)
