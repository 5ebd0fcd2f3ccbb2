local pools = require("spec.support.pools")
local task = require("lunashard.task")

describe("execute", function()
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

  describe("execute", function()
    it("leaves no session state to the next one either", function()
      local pool = pools.open({ max_size = 1 })
      assert(pool:execute("SET work_mem = '77MB'"))
      assert.are_not.equal("77MB", assert(pool:execute("SELECT current_setting('work_mem') AS v")).rows[1].v)
      assert(pool:execute("CREATE TEMPORARY TABLE left_over (a int)"))
      assert.is_nil(assert(pool:execute("SELECT to_regclass('left_over')::text AS v")).rows[1].v)
      assert(pool:execute("BEGIN"))
      assert.is_false(assert(pool:execute("SELECT now() < clock_timestamp() - interval '1 s' AS v")).rows[1].v)
      pools.wait_until("no transaction is open", function()
        return pools.sessions("state LIKE 'idle in transaction%'") == 0
      end)
    end)

    it("reports an SQL error with all that the server says, and keeps the connection", function()
      local pool = pools.open({ max_size = 1 })
      local pid = pid_of(pool)
      local err = pools.failure("SQL", pool:execute("SELECT *\nFROM nope"))
      assert.equal("42P01", err.sqlstate)
      assert.equal('relation "nope" does not exist', err.message)
      assert.equal(15, err.position)
      assert.equal("shard1", err.shard_id)
      assert.equal("127.0.0.1:" .. pools.server.port, err.endpoint)
      assert.is_false(err.retryable)
      err = pools.failure("SQL", pool:execute("SELECT numm FROM (SELECT 1 AS num) AS t"))
      assert.is_truthy(err.hint:find('"t.num"', 1, true), err.hint)
      err = pools.failure("SQL", pool:execute("SELECT $1::jsonb", { "{bad" }))
      assert.is_string(err.detail)
      assert.equal(pid, pid_of(pool))
    end)

    it("names the values of a row by its columns, whatever was done to the list of an earlier result", function()
      local pool = pools.open({ max_size = 1 })
      local SQL = "SELECT 1 AS b, 'x' AS a, NULL AS c"
      local first = assert(pool:execute(SQL))
      assert.same({ "b", "a", "c" }, first.columns)
      assert.same({ "int4", "text", "text" }, first.column_types)
      table.sort(first.columns)
      assert.same({ { b = 1, a = "x" } }, assert(pool:execute(SQL)).rows)
    end)

    it("takes several statements only by the simple protocol", function()
      local pool = pools.open({ max_size = 1 })
      local err = pools.failure("SQL", pool:execute("SELECT 1; SELECT 2"))
      assert.equal("42601", err.sqlstate)
      local script = "CREATE TEMPORARY TABLE s (a int); INSERT INTO s VALUES (1), (2); SELECT a FROM s"
      local result = assert(pool:execute(script, nil, { simple = true }))
      assert.same({ { a = 1 }, { a = 2 } }, result.rows)
      err = pools.failure("SQL", pool:execute("SELECT 1; SELECT 1/0; SELECT 2", nil, { simple = true }))
      assert.equal("22012", err.sqlstate)
      assert(pool:execute("SELECT 1"))
    end)

    it("refuses COPY and an empty statement is no failure", function()
      local pool = pools.open({ max_size = 1 })
      assert.is_nil((pool:execute("COPY (SELECT 1) TO STDOUT")))
      assert.is_nil((pool:execute("COPY pg_class FROM STDIN")))
      local result = assert(pool:execute(""))
      assert.equal(0, #result.rows)
      assert.equal(1, assert(pool:execute("SELECT 1 AS v")).rows[1].v)
    end)

    it("raises for what is no statement, and for parameters that are no list", function()
      local pool = pools.open()
      for _, sql in ipairs({ {}, true, print }) do
        assert.is_false((pcall(pool.execute, pool, sql)))
      end
      assert.is_false((pcall(pool.execute, pool)))
      assert.is_false((pcall(pool.execute, pool, "SELECT 1", "not a list")))
    end)
  end)

  describe("prepared statements", function()
    local function prepared(lease)
      return assert(lease:execute("SELECT count(*) AS n FROM pg_prepared_statements", nil, { simple = true })).rows[1].n
    end

    -- How often the server has run the prepared statement that contains a text.
    local function uses(session, text)
      local sql = "SELECT generic_plans + custom_plans AS uses FROM pg_prepared_statements WHERE statement LIKE '%"
      return assert(session:execute(sql .. text .. "%'", nil, { simple = true })).rows
    end

    it("are prepared once and used again", function()
      local pool = pools.open({ max_size = 1 })
      for i = 1, 5 do
        assert(pool:execute("SELECT $1::int + 4711 AS v", { i }))
      end
      assert.same({ { uses = 5 } }, uses(pool, "+ 4711"))
    end)

    it("stay within statement_cache, the least recently used going first", function()
      local pool = pools.open({ max_size = 1, statement_cache = 8 })
      local lease = lease_of(pool)
      for i = 1, 40 do
        assert(lease:execute("SELECT 'kept' AS v"))
        assert.equal(i, assert(lease:execute("SELECT " .. i .. " AS v")).rows[1].v)
        assert.is_true(prepared(lease) <= 8)
      end
      for i = 1, 40 do
        assert.equal(i, assert(lease:execute("SELECT " .. i .. " AS v")).rows[1].v)
      end
      assert.same({}, uses(lease, "kept"))
      assert.equal(8, prepared(lease))
      lease:release()
    end)

    it("keep the one that is used all the time", function()
      local lease = lease_of(pools.open({ max_size = 1, statement_cache = 4 }))
      for i = 1, 20 do
        assert(lease:execute("SELECT 'kept' AS v"))
        assert(lease:execute("SELECT " .. i .. " AS v"))
      end
      assert.same({ { uses = 20 } }, uses(lease, "kept"))
      lease:release()
    end)

    it("may be switched off", function()
      local lease = lease_of(pools.open({ statement_cache = 0 }))
      for i = 1, 3 do
        assert.equal(i, assert(lease:execute("SELECT $1::int AS v", { i })).rows[1].v)
      end
      assert.equal(0, prepared(lease))
      lease:release()
    end)

    it("are prepared anew when the result type has changed", function()
      local pool = pools.open({ max_size = 1 })
      assert(pool:execute("CREATE TABLE changing (a int)"))
      assert(pool:execute("INSERT INTO changing VALUES (1)"))
      local sql = "SELECT * FROM changing"
      assert.same({ { a = 1 } }, assert(pool:execute(sql)).rows)
      pools.admin("ALTER TABLE changing ADD COLUMN b text DEFAULT 'new'")
      assert.same({ { a = 1, b = "new" } }, assert(pool:execute(sql)).rows)
      pools.admin("ALTER TABLE changing ALTER COLUMN a TYPE text")
      assert.same({ { a = "1", b = "new" } }, assert(pool:execute(sql)).rows)
      assert(pool:execute("DROP TABLE changing"))
    end)

    it("that changed inside a transaction fail it, with the server's word for it", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      assert(lease:execute("CREATE TEMPORARY TABLE changing (a int)"))
      assert(lease:execute("SELECT * FROM changing"))
      assert(lease:execute("BEGIN"))
      assert(lease:execute("ALTER TABLE changing ADD COLUMN b int"))
      local result, err = lease:execute("SELECT * FROM changing")
      if result then -- prepared anew before it could fail: just as well
        assert.same({ "a", "b" }, result.columns)
      else
        assert.equal("0A000", err.sqlstate)
        assert.equal("inerror", lease:transaction_status())
      end
      assert(lease:execute("ROLLBACK"))
      assert.same({ "a" }, assert(lease:execute("SELECT * FROM changing")).columns)
      lease:release()
    end)

    for _, sql in ipairs({ "DEALLOCATE ALL", "DISCARD ALL", "DISCARD PLANS" }) do
      it("survive a " .. sql .. " of the user", function()
        local lease = lease_of(pools.open({ max_size = 1 }))
        for _ = 1, 3 do
          assert.equal(1, assert(lease:execute("SELECT 1 AS v")).rows[1].v)
          assert(lease:execute(sql))
        end
        lease:release()
      end)
    end

    it("survive a DEALLOCATE hidden in a DO block or made by the simple protocol", function()
      local lease = lease_of(pools.open({ max_size = 1 }))
      for _, options in ipairs({ {}, { simple = true } }) do
        assert.equal(1, assert(lease:execute("SELECT 1 AS v")).rows[1].v)
        assert(lease:execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$", nil, options))
        assert.equal(1, assert(lease:execute("SELECT 1 AS v")).rows[1].v)
      end
      lease:release()
    end)

    it("whose preparation failed are tried again", function()
      local pool = pools.open({ max_size = 1 })
      pools.failure("SQL", pool:execute("SELECT * FROM not_yet"))
      pools.admin("CREATE TABLE not_yet (a int)")
      pools.admin("GRANT SELECT ON not_yet TO app")
      assert.equal(0, assert(pool:execute("SELECT * FROM not_yet")).row_count)
      pools.admin("DROP TABLE not_yet")
    end)
  end)
end)
