local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

describe("a session that tasks share", function()
  sharing.around(setup, teardown, after_each)

  -- What would change a session for all who share it: statements that are run one after the other, each on
  -- its own, whether they succeed or not.
  local TRAPS = {
    ["a transaction that is opened"] = { "BEGIN", "START TRANSACTION", "begin isolation level serializable" },
    ["a transaction that is opened and ended"] = {
      "BEGIN", "COMMIT", "BEGIN", "ROLLBACK", "BEGIN", "END", "BEGIN", "ABORT",
    },
    ["transaction control out of place"] = {
      "COMMIT", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a", "PREPARE TRANSACTION 'a'", "COMMIT AND CHAIN",
    },
    ["transaction control in disguise"] = {
      "/* SELECT 1 */ BEGIN", "-- SELECT 1\nBEGIN", " ; BEGIN", "BEGIN;", "SET TRANSACTION READ ONLY",
      "SET CONSTRAINTS ALL DEFERRED", "DO $$ BEGIN COMMIT; END $$", "DO $$ BEGIN ROLLBACK; END $$",
    },
    ["SET and RESET"] = {
      "SET work_mem = '77MB'", "SET LOCAL work_mem = '77MB'", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
      "SET search_path = nowhere", "SET TIME ZONE 'Asia/Tokyo'", "SET sharing.mark = 'left'", "RESET work_mem",
      "RESET ALL",
    },
    ["a role that is taken"] = { "SET ROLE pg_monitor", "SET SESSION AUTHORIZATION DEFAULT" },
    ["set_config"] = {
      "SELECT set_config('work_mem', '77MB', false)", "SELECT pg_catalog.set_config('sharing.mark', 'left', false)",
      "SELECT id FROM sharing.item WHERE id = 1 AND set_config('work_mem', '77MB', false) > ''",
      "INSERT INTO sharing.log SELECT length(set_config('work_mem', '77MB', false))",
      "WITH s AS (SELECT set_config('sharing.mark', 'left', false) AS v) SELECT v FROM s",
      "VALUES (set_config('sharing.mark', 'left', false))",
      "EXPLAIN ANALYZE SELECT set_config('work_mem', '77MB', false)",
      "UPDATE pg_settings SET setting = 'left' WHERE name = 'application_name'",
    },
    ["LISTEN"] = { "LISTEN sharing", "NOTIFY sharing", "UNLISTEN other", "LISTEN sharing" },
    ["PREPARE and DEALLOCATE"] = {
      "PREPARE of_mine AS SELECT 1", "EXECUTE of_mine", "DEALLOCATE of_mine", "DEALLOCATE ALL",
      "PREPARE of_mine AS SELECT 1",
    },
    ["DISCARD"] = { "DISCARD PLANS", "DISCARD TEMP", "DISCARD SEQUENCES", "DISCARD ALL" },
    ["temporary tables"] = {
      "CREATE TEMPORARY TABLE left_over (a int)", "CREATE TEMP TABLE left_over AS SELECT 1 AS a",
      "CREATE TABLE pg_temp.left_over (a int)", "SELECT 1 AS a INTO TEMP left_over", "SELECT 1 AS a INTO pg_temp.left_over",
      "CREATE TEMP VIEW left_over AS SELECT 1 AS a", "DO $$ BEGIN CREATE TEMP TABLE left_over (a int); END $$",
    },
    ["cursors WITH HOLD"] = {
      "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH c", "DECLARE d SCROLL CURSOR WITH HOLD FOR SELECT 1", "CLOSE d",
    },
  }

  for name, statements in pairs(TRAPS) do
    it("stays as it is for the others in spite of " .. name, function()
      local pool = pools.open({ max_size = 3 })
      local neighbours = sharing.neighbours(pool, { n = 6 })
      for _ = 1, 4 do
        for _, sql in ipairs(statements) do
          pool:execute(sql)
        end
      end
      neighbours:go_on(10)
      neighbours:stop()
      pools.wait_until("no transaction is open", function()
        return pools.sessions("state LIKE 'idle in transaction%'") == 0
      end)
    end)

    it("is never the place of " .. name, function()
      local pool = pools.open({ max_size = 2 })
      sharing.accustom(pool, statements)
      local shared = sharing.shared_by(pool, function()
        for _ = 1, 2 do
          for _, sql in ipairs(statements) do
            pool:execute(sql)
          end
        end
      end)
      assert.equal(0, shared)
    end)
  end

  it("is what reads, inserts and updates by a key get, from the third time on", function()
    local pool = pools.open({ max_size = 2 })
    for _, sql in ipairs({ sharing.READ, sharing.INSERT, sharing.COUNT }) do
      sharing.warm(pool, sql, { 1 })
      local shared, batched = sharing.shared_by(pool, function()
        for i = 1, 10 do
          assert(pool:execute(sql, { i }))
        end
      end)
      assert.equal(10, shared)
      assert.equal(sql == sharing.READ and 10 or 0, batched)
    end
  end)

  it("never keeps an advisory lock", function()
    local pool = pools.open({ max_size = 3 })
    local neighbours = sharing.neighbours(pool, { n = 6 })
    local statements = {
      "SELECT pg_advisory_lock(4711)", "SELECT pg_try_advisory_lock(4712)", "SELECT pg_advisory_lock_shared(47, 13)",
      "SELECT count(*) FROM sharing.item WHERE id < 3 AND pg_try_advisory_lock(4714)",
      "INSERT INTO sharing.log SELECT 1 WHERE pg_try_advisory_lock(4715)",
    }
    for _ = 1, 5 do
      for _, sql in ipairs(statements) do
        assert(pool:execute(sql, nil, { deadline = task.now() + 10 }))
      end
    end
    neighbours:go_on(5)
    pools.wait_until("no lock is held", function()
      return pools.admin("SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory'")[1].n == 0
    end)
    neighbours:stop()
  end)

  it("is never the place of set_config behind a view or in a function", function()
    sharing.define([[
      CREATE FUNCTION sharing.mark(label text) RETURNS text VOLATILE LANGUAGE plpgsql AS $$
        BEGIN RETURN set_config('sharing.mark', label, false); END $$;
      CREATE FUNCTION sharing.mark_in_secret(label text) RETURNS text STABLE LANGUAGE plpgsql AS $$
        BEGIN RETURN set_config('sharing.mark', label, false); END $$;
      CREATE VIEW sharing.marked AS SELECT set_config('sharing.mark', 'left', false) AS v;
      CREATE VIEW sharing.marked_again AS SELECT v FROM sharing.marked;
      CREATE VIEW sharing.marked_by_function AS SELECT sharing.mark('left') AS v]])
    local pool = pools.open({ max_size = 2 })
    for _, sql in ipairs({
      "SELECT sharing.mark('left')", "SELECT sharing.mark_in_secret('left')", "SELECT v FROM sharing.marked",
      "SELECT v FROM sharing.marked_again", "SELECT v FROM sharing.marked_by_function",
      [[SELECT U&"set\005fconfig"('sharing.mark', 'left', false)]],
      "SELECT id FROM sharing.item WHERE sharing.mark_in_secret(id::text) = '' AND id < 4",
      "INSERT INTO sharing.log SELECT length(v) FROM sharing.marked",
    }) do
      sharing.accustom(pool, { sql })
      local shared = sharing.shared_by(pool, function()
        for _ = 1, 3 do
          assert(pool:execute(sql))
        end
      end)
      assert.equal(0, shared, sql)
    end
  end)

  it("leaves no large object of a read that was undone", function()
    sharing.define([[
      CREATE OR REPLACE FUNCTION sharing.object() RETURNS int8 STABLE LANGUAGE plpgsql AS $$
        BEGIN RETURN lo_create(0)::int8; END $$;
      CREATE OR REPLACE VIEW sharing.object_view AS SELECT lo_create(0)::int8 AS oid]])
    local before = pools.admin("SELECT count(*) AS n FROM pg_largeobject_metadata")[1].n
    local pool, made = pools.open({ max_size = 2 }), {}
    local neighbours = sharing.neighbours(pool, { n = 4 })
    local statements = {
      "SELECT sharing.object() AS oid", "SELECT oid FROM sharing.object_view", "SELECT lo_create(0)::int8 AS oid",
    }
    sharing.all(12, function(i)
      for _ = 1, 10 do
        local oid = assert(pool:execute(statements[i % 3 + 1])).rows[1].oid
        assert.is_nil(made[oid])
        made[oid] = true
        -- a neighbour in the same batch may fail
        pools.failure("SQL", pool:execute("SELECT id FROM sharing.item WHERE id = 1 AND v / ($1::int8 - $1) > 0", { i }))
      end
    end)
    neighbours:stop()
    local there = {}
    for _, row in ipairs(pools.admin("SELECT oid::int8 AS oid FROM pg_largeobject_metadata")) do
      there[row.oid] = true
    end
    for oid in pairs(made) do
      assert.is_true(there[oid])
    end
    assert.equal(before + 120, pools.admin("SELECT count(*) AS n FROM pg_largeobject_metadata")[1].n)
    pools.admin("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
  end)
end)
