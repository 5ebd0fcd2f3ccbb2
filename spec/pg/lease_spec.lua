local pools = require("spec.support.pools")
local task = require("lunashard.task")

describe("lease", function()
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

  describe("a lease", function()
    it("is a connection of one's own", function()
      local pool = pools.open({ max_size = 2 })
      local lease = lease_of(pool)
      assert.equal(lease.backend_pid, pid_of(lease))
      assert.are_not.equal(lease.backend_pid, pid_of(pool))
      assert(lease:execute("CREATE TEMPORARY TABLE mine (a int)"))
      assert.equal(0, assert(lease:execute("SELECT * FROM mine")).row_count)
      lease:release()
    end)

    it("knows the state of its transaction", function()
      local lease = lease_of(pools.open())
      assert.equal("idle", lease:transaction_status())
      assert(lease:execute("BEGIN"))
      assert.equal("intransaction", lease:transaction_status())
      pools.failure("SQL", lease:execute("SELECT 1/0"))
      assert.equal("inerror", lease:transaction_status())
      local err = pools.failure("SQL", lease:execute("SELECT 1"))
      assert.equal("25P02", err.sqlstate)
      assert(lease:execute("ROLLBACK"))
      assert.equal("idle", lease:transaction_status())
      lease:release()
    end)

    it("cannot be used after its release", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      lease:release()
      lease:release()
      pools.failure("CLOSED", lease:execute("SELECT 1"))
      pools.wait_until("it is idle, once", function()
        return pool:stats().idle == 1
      end)
      local other = lease_of(pool)
      pools.failure("CLOSED", lease:execute("SELECT 1"))
      lease:discard("must not hit the new holder's connection")
      assert(other:execute("SELECT 1"))
      other:release()
    end)

    it("that was forgotten comes back with the garbage collector", function()
      local pool = pools.open({ max_size = 1 });
      (function()
        assert(lease_of(pool):execute("BEGIN"))
      end)()
      collectgarbage()
      collectgarbage()
      assert(pool:execute("SELECT 1", nil, { deadline = task.now() + 2 }))
    end)

    it("that is discarded ends its session", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      local pid = lease.backend_pid
      lease:discard("the spec says so")
      assert.are_not.equal(pid, pid_of(pool))
      pools.wait_until("the session is gone", function()
        return pools.sessions("pid = " .. pid) == 0
      end)
    end)

    -- What the next user of the only connection must not see.
    for title, case in pairs({
      ["a changed setting"] = {
        { "SET work_mem = '77MB'" },
        "SELECT current_setting('work_mem') <> '77MB' AS clean",
      },
      ["a setting changed by set_config"] = {
        { "SELECT set_config('work_mem', '77MB', false)" },
        "SELECT current_setting('work_mem') <> '77MB' AS clean",
      },
      ["a changed role"] = { { "SET ROLE pg_monitor" }, "SELECT current_user = 'app' AS clean" },
      ["a changed time zone"] = {
        { "SET TIME ZONE 'Asia/Tokyo'" },
        "SELECT current_setting('TimeZone') <> 'Asia/Tokyo' AS clean",
      },
      ["a temporary table"] = {
        { "CREATE TEMPORARY TABLE left_over (a int)" },
        "SELECT to_regclass('left_over') IS NULL AS clean",
      },
      ["an advisory lock"] = {
        { "SELECT pg_advisory_lock(4711)" },
        "SELECT count(*) = 0 AS clean FROM pg_locks WHERE locktype = 'advisory'",
      },
      ["a LISTEN"] = { { "LISTEN gossip" }, "SELECT count(*) = 0 AS clean FROM pg_listening_channels()" },
      ["a prepared statement"] = {
        { "PREPARE left_over AS SELECT 1" },
        "SELECT count(*) = 0 AS clean FROM pg_prepared_statements WHERE name = 'left_over'",
      },
      ["a WITH HOLD cursor"] = {
        { "DECLARE left_over CURSOR WITH HOLD FOR SELECT 1" },
        "SELECT count(*) = 0 AS clean FROM pg_cursors WHERE name = 'left_over'",
      },
      ["an open transaction"] = {
        { "BEGIN", "CREATE TABLE never (a int)" },
        "SELECT to_regclass('never') IS NULL AND pg_current_xact_id_if_assigned() IS NULL AS clean",
      },
      ["a read-only transaction"] = {
        { "BEGIN READ ONLY" },
        "SELECT current_setting('transaction_read_only') = 'off' AS clean",
      },
    }) do
      it("leaves nothing behind: " .. title, function()
        local pool = pools.open({ max_size = 1 })
        local lease = lease_of(pool)
        for _, sql in ipairs(case[1]) do
          assert(lease:execute(sql))
        end
        lease:release()
        assert.is_true(assert(pool:execute(case[2])).rows[1].clean)
      end)
    end

    it("leaves no failed transaction behind", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      assert(lease:execute("BEGIN"))
      pools.failure("SQL", lease:execute("SELECT 1/0"))
      lease:release()
      assert(pool:execute("SELECT 1"))
    end)

    it("keeps the connection when nothing has to be reset", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      local pid = lease.backend_pid
      assert(lease:execute("BEGIN"))
      assert(lease:execute("SET LOCAL work_mem = '77MB'"))
      assert(lease:execute("COMMIT"))
      lease:release()
      assert.equal(pid, pid_of(pool))
    end)
  end)
end)
