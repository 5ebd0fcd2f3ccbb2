local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

-- Waiting on the server: for locks, for slow statements, for a timeout of the server's own.
describe("a statement that waits on the server", function()
  setup(function()
    pools.start()
    sharing.create()
    sharing.define([[
      CREATE TABLE sharing.left_side (id int8 PRIMARY KEY, v int8);
      CREATE TABLE sharing.right_side (id int8 PRIMARY KEY, v int8);
      INSERT INTO sharing.left_side SELECT id, v FROM sharing.item;
      INSERT INTO sharing.right_side SELECT id, v FROM sharing.item]])
  end)

  teardown(function()
    sharing.drop()
    pools.stop()
  end)

  after_each(function()
    pools.close_all()
    pools.wait_until("no session is left", function()
      return pools.sessions() == 0
    end)
  end)

  local WAITS_FOR_LOCK = "wait_event_type = 'Lock'"

  local function lease_of(pool)
    return assert(pool:acquire(task.now() + 10))
  end

  local function running(fn)
    return task.spawn(fn):watch()
  end

  describe("for a row lock", function()
    it("does not keep the lock's holder from statements of its own", function()
      local pool = pools.open({ max_size = 3 })
      for _, sql in ipairs({ sharing.READ, sharing.COUNT, sharing.INSERT }) do
        sharing.warm(pool, sql, { 9 })
      end
      for round = 1, 3 do
        local lease = lease_of(pool)
        assert(lease:execute("BEGIN"))
        local mine = assert(lease:execute(sharing.COUNT, { 1 })).rows[1].n
        local other = running(function()
          return assert(pool:execute(sharing.COUNT, { 1 }, { deadline = task.now() + 20 })).rows[1].n
        end)
        pools.wait_until("the other waits for the row", function()
          return pools.sessions(WAITS_FOR_LOCK) == 1
        end)
        -- the holder's own statements, which may be queued behind the one that waits for the holder
        local deadline = task.now() + 10
        assert.equal(10, assert(pool:execute(sharing.READ, { 1 }, { deadline = deadline })).rows[1].v)
        assert(pool:execute(sharing.COUNT, { 2 }, { deadline = deadline }))
        assert(pool:execute(sharing.INSERT, { round }, { deadline = deadline }))
        assert.equal("waiting", other:status())
        assert(lease:execute("COMMIT"))
        lease:release()
        local _, theirs = assert(other:join(10))
        assert.equal(mine + 1, theirs)
      end
    end)

    it("may be one of many that wait for one transaction", function()
      local pool = pools.open({ max_size = 3 })
      sharing.warm(pool, sharing.COUNT, { 1 })
      local neighbours = sharing.neighbours(pool, { n = 4 })
      neighbours:stop()
      local before = pools.admin("SELECT n FROM sharing.counter WHERE id = 3")[1].n
      local lease = lease_of(pool)
      assert(lease:execute("BEGIN"))
      assert(lease:execute(sharing.COUNT, { 3 }))
      local seen, waiting = {}, {}
      for i = 1, 20 do
        waiting[i] = running(function()
          local n = assert(pool:execute(sharing.COUNT, { 3 }, { deadline = task.now() + 20 })).rows[1].n
          assert.is_nil(seen[n])
          seen[n] = true
        end)
      end
      pools.wait_until("some wait for the row", function()
        return pools.sessions(WAITS_FOR_LOCK) >= 1
      end)
      assert(lease:execute("COMMIT"))
      lease:release()
      for i = 1, 20 do
        assert(waiting[i]:join(20))
      end
      assert.equal(before + 21, pools.admin("SELECT n FROM sharing.counter WHERE id = 3")[1].n)
    end)

    it("never fails with a lock_timeout that the caller has not set", function()
      local pool = pools.open({ max_size = 4 })
      local neighbours = sharing.neighbours(pool, { n = 10 })
      sharing.all(2, function(i)
        for _ = 1, 3 do
          local lease = lease_of(pool)
          assert(lease:execute("BEGIN"))
          assert(lease:execute("SELECT id FROM sharing.counter WHERE id % 2 = $1 ORDER BY id FOR UPDATE", { i % 2 }))
          task.sleep(0.15) -- longer than any lock_timeout of shared sessions
          assert(lease:execute("ROLLBACK"))
          lease:release()
        end
      end)
      neighbours:stop()
    end)

    it("fails with 55P03 when the caller's role has a lock_timeout, and its neighbours do not", function()
      pools.admin("ALTER ROLE " .. pools.server.user .. " SET lock_timeout = '400ms'")
      local ok, problem = pcall(function()
        local pool = pools.open({ max_size = 3 })
        sharing.warm(pool, sharing.COUNT, { 1 })
        local lease = lease_of(pools.as_admin())
        assert(lease:execute("BEGIN"))
        assert(lease:execute(sharing.COUNT, { 1 }))
        local err = pools.failure("SQL", pool:execute(sharing.COUNT, { 1 }, { deadline = task.now() + 10 }))
        assert.equal("55P03", err.sqlstate)
        assert(pool:execute(sharing.COUNT, { 2 }))
        assert(lease:execute("ROLLBACK"))
        lease:release()
      end)
      pools.admin("ALTER ROLE " .. pools.server.user .. " RESET lock_timeout")
      assert(ok, problem)
    end)
  end)

  describe("for a table lock", function()
    local READ_LEFT = "SELECT * FROM sharing.left_side WHERE id = $1"
    local READ_RIGHT = "SELECT * FROM sharing.right_side WHERE id = $1"

    -- Tasks that read both tables in both orders until `over` says so.
    local function readers(pool, n, over)
      return task.spawn(function()
        sharing.all(n, function(i)
          while not over() do
            local id = math.random(sharing.ITEMS)
            local orders = i % 2 == 0 and { READ_LEFT, READ_RIGHT } or { READ_RIGHT, READ_LEFT }
            for _, sql in ipairs(orders) do
              local rows = assert(pool:execute(sql, { id }, { deadline = task.now() + 20 })).rows
              assert.equal(id * 7 + 3, rows[1].v)
            end
          end
        end)
      end):watch()
    end

    local function migrate(statements)
      local pool, over = pools.open({ max_size = 3 }), false
      sharing.warm(pool, READ_LEFT, { 1 })
      sharing.warm(pool, READ_RIGHT, { 1 })
      local reading = readers(pool, 12, function()
        return over
      end)
      local failed
      for _ = 1, 6 do
        local lease = lease_of(pools.as_admin())
        local ok, err = lease:execute("BEGIN")
        for _, sql in ipairs(statements) do
          ok, err = lease:execute(sql, nil, { deadline = task.now() + 20 })
          if not ok then
            break
          end
          task.sleep(math.random() * 0.03)
        end
        if ok then
          ok, err = lease:execute("COMMIT")
        end
        lease:release()
        failed = failed or not ok and err
        task.sleep(0.02)
      end
      over = true
      assert(reading:join(30))
      assert.is_falsy(failed, tostring(failed))
    end

    it("never makes a migration the victim of a deadlock", function()
      migrate({
        "ALTER TABLE sharing.left_side ADD COLUMN IF NOT EXISTS more int",
        "ALTER TABLE sharing.right_side ADD COLUMN IF NOT EXISTS more int",
        "ALTER TABLE sharing.left_side DROP COLUMN more",
        "ALTER TABLE sharing.right_side DROP COLUMN more",
      })
    end)

    it("never makes LOCK TABLE the victim of a deadlock, in either order", function()
      migrate({
        "LOCK TABLE sharing.left_side IN ACCESS EXCLUSIVE MODE", "LOCK TABLE sharing.right_side IN ACCESS EXCLUSIVE MODE",
      })
      migrate({
        "LOCK TABLE sharing.right_side IN ACCESS EXCLUSIVE MODE", "LOCK TABLE sharing.left_side IN ACCESS EXCLUSIVE MODE",
      })
    end)

    it("lets reads of other tables pass", function()
      local pool = pools.open({ max_size = 4 })
      sharing.warm(pool, READ_LEFT, { 1 })
      sharing.warm(pool, READ_RIGHT, { 1 })
      local lease = lease_of(pools.as_admin())
      assert(lease:execute("BEGIN"))
      assert(lease:execute("LOCK TABLE sharing.left_side IN ACCESS EXCLUSIVE MODE"))
      local blocked = {}
      for i = 1, 3 do
        blocked[i] = running(function()
          return assert(pool:execute(READ_LEFT, { i }, { deadline = task.now() + 20 })).rows[1].v
        end)
      end
      pools.wait_until("they wait for the table", function()
        return pools.sessions(WAITS_FOR_LOCK) >= 1
      end)
      for i = 1, 40 do
        assert.equal(i * 7 + 3, assert(pool:execute(READ_RIGHT, { i }, { deadline = task.now() + 10 })).rows[1].v)
      end
      for i = 1, 3 do
        assert.equal("waiting", blocked[i]:status())
      end
      assert(lease:execute("COMMIT"))
      lease:release()
      for i = 1, 3 do
        local _, v = assert(blocked[i]:join(10))
        assert.equal(i * 7 + 3, v)
      end
    end)
  end)

  describe("for longer than the server's statement_timeout", function()
    setup(function()
      pools.admin("ALTER ROLE " .. pools.server.user .. " SET statement_timeout = '150ms'")
    end)

    teardown(function()
      pools.admin("ALTER ROLE " .. pools.server.user .. " RESET statement_timeout")
    end)

    it("fails with 57014, alone and without being tried again", function()
      local pool = pools.open({ max_size = 3 })
      local slow = "SELECT nextval('sharing.ticket'), pg_sleep($1::float8)"
      for _ = 1, 4 do
        assert(pool:execute(slow, { 0 }))
      end
      local neighbours = sharing.neighbours(pool, { n = 6 })
      local before = assert(pool:execute("SELECT nextval('sharing.ticket') AS n")).rows[1].n
      sharing.all(4, function()
        for _ = 1, 3 do
          local err = pools.failure("SQL", pool:execute(slow, { 10 }))
          assert.equal("57014", err.sqlstate)
        end
      end)
      neighbours:stop()
      assert.equal(before + 12, pools.admin("SELECT last_value AS n FROM sharing.ticket")[1].n)
    end)

    it("fails with 57014 when it is a read among other reads", function()
      local pool = pools.open({ max_size = 2 })
      sharing.warm(pool, sharing.SLOW_READ, { 1, 1 })
      local neighbours = sharing.neighbours(pool, { n = 6 })
      for id = 1, 3 do
        local err = pools.failure("SQL", pool:execute(sharing.SLOW_READ, { id, 2 ^ 30 }, { read_only = true }))
        assert.equal("57014", err.sqlstate)
        assert.equal(id * 7 + 3, assert(pool:execute(sharing.SLOW_READ, { id, 1 })).rows[1].v)
      end
      neighbours:stop()
    end)
  end)

  describe("for long", function()
    it("does not keep fast ones waiting", function()
      local pool = pools.open({ max_size = 4, slow_statement = 0.1 })
      local slow = "SELECT v FROM sharing.item WHERE id = $1 AND sharing.nap($2)"
      sharing.warm(pool, slow, { 1, 0 })
      sharing.warm(pool, sharing.READ, { 1 })
      for _ = 1, 2 do -- the second time it is known to be slow
        local waiting = running(function()
          return assert(pool:execute(slow, { 2, 0.7 })).rows[1].v
        end)
        pools.wait_until("it runs", function()
          return pools.sessions("wait_event = 'PgSleep'") == 1
        end)
        sharing.all(8, function(i)
          for id = i, 80, 8 do
            assert.equal(id * 7 + 3, assert(pool:execute(sharing.READ, { id })).rows[1].v)
          end
        end)
        assert.equal("waiting", waiting:status())
        local _, v = assert(waiting:join(10))
        assert.equal(17, v)
      end
    end)

    it("runs on a connection of its own once it is known to be slow", function()
      local pool = pools.open({ max_size = 4, slow_statement = 0.05 })
      sharing.warm(pool, sharing.SLOW_READ, { 1, 1 })
      for _ = 1, 3 do
        assert(pool:execute(sharing.SLOW_READ, { 1, 800000 }))
      end
      local shared = sharing.shared_by(pool, function()
        assert(pool:execute(sharing.SLOW_READ, { 1, 800000 }))
      end)
      assert.equal(0, shared)
    end)
  end)
end)
