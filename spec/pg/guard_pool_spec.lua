local core = require("lunashard.core.pool")
local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

local SCHEMA = [[
  CREATE TABLE sharing.owned (b int8 PRIMARY KEY, v int8 NOT NULL);
  INSERT INTO sharing.owned SELECT g, 1 FROM generate_series(1, 40) g;
  CREATE FUNCTION sharing.guard(bucket int8, version int8) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF NOT EXISTS (SELECT FROM sharing.owned WHERE b = bucket AND v = version) THEN
        RAISE EXCEPTION 'bucket % is not here', bucket USING ERRCODE = 'LS001';
      END IF;
      PERFORM set_config('sharing.guarded', bucket::text, true);
    END $$]]

-- What runs before a statement in its transaction, and what relies on a term.
describe("a guard", function()
  local GUARD = core.text("SELECT sharing.guard($1::int8, $2::int8)")
  local MARK = "SELECT coalesce(current_setting('sharing.guarded', true), '') AS mark, id FROM sharing.item WHERE id = $1"
  local MARKED = "INSERT INTO sharing.log SELECT $1::int8 WHERE current_setting('sharing.guarded', true) = $1::int8::text"

  sharing.around(setup, teardown, after_each)

  setup(function()
    sharing.define(SCHEMA)
  end)

  before_each(function()
    pools.admin("UPDATE sharing.owned SET v = 1")
  end)

  local function guarded(bucket, version)
    return { guard = { text = GUARD, params = { bucket, version or 1 } } }
  end

  local function refused(pool, sql, id, version)
    local err = pools.failure("SQL", pool:execute(sql, { id }, guarded(id, version or 2)))
    assert.equal("LS001", err.sqlstate)
  end

  -- Reads in batches, writes with Syncs of their own, and both on connections of their own.
  for name, options in pairs({ ["a shared connection"] = {}, ["its own connection"] = { pipeline = false } }) do
    it("runs in the transaction of its statement alone, on " .. name, function()
      local pool = pools.open({ max_size = 2, pipeline = options.pipeline })
      if options.pipeline == nil then
        sharing.warm(pool, MARK, { 1 })
        sharing.warm(pool, sharing.INSERT, { 1 })
      end
      for _ = 1, 6 do
        sharing.all(20, function(i)
          assert.equal(tostring(i), assert(pool:execute(MARK, { i }, guarded(i))).rows[1].mark)
        end)
        assert.equal("", assert(pool:execute(MARK, { 1 })).rows[1].mark)
        assert.equal(1, assert(pool:execute(MARKED, { 7 }, guarded(7))).row_count)
        assert.equal(0, assert(pool:execute(MARKED, { 7 })).row_count)
      end
    end)

    it("that refuses lets nothing happen, and does no harm to others, on " .. name, function()
      local pool = pools.open({ max_size = 2, pipeline = options.pipeline })
      if options.pipeline == nil then
        sharing.warm(pool, sharing.READ, { 1 })
        sharing.warm(pool, sharing.INSERT, { 1 })
      end
      local ids = {}
      for round = 1, 4 do
        sharing.all(24, function(i)
          if i % 3 == 0 then
            refused(pool, sharing.READ, i)
          elseif i % 3 == 1 then
            assert.equal(i * 7 + 3, assert(pool:execute(sharing.READ, { i }, guarded(i))).rows[1].v)
          else
            local id = sharing.new_id()
            ids[id] = i % 2
            local result, err = pool:execute(sharing.INSERT, { id }, { guard = { text = GUARD, params = { i, 2 - i % 2 } } })
            assert.equal(i % 2 == 1 and "done" or "LS001", result and "done" or err.sqlstate)
          end
        end)
        assert.is_truthy(round)
      end
      local times = sharing.written()
      for id, expected in pairs(ids) do
        assert.equal(expected, times[id] or 0)
      end
    end)

    it("is prepared anew when its function is another one, on " .. name, function()
      local pool = pools.open({ max_size = 1, pipeline = options.pipeline })
      if options.pipeline == nil then
        sharing.warm(pool, sharing.READ, { 1 })
      end
      for _ = 1, 3 do
        assert(pool:execute(sharing.READ, { 1 }, guarded(1)))
        pools.admin("ALTER FUNCTION sharing.guard(int8, int8) RENAME TO gone")
        local err = pools.failure("SQL", pool:execute(sharing.READ, { 1 }, guarded(1)))
        assert.is_truthy(err.sqlstate == "42883" or err.sqlstate == "XX000", err.sqlstate)
        pools.admin("ALTER FUNCTION sharing.gone(int8, int8) RENAME TO guard")
        assert(pool:execute(sharing.READ, { 1 }, guarded(1)))
        assert(pool:execute("DEALLOCATE ALL", nil, { pipeline = false }))
        assert(pool:execute(sharing.READ, { 1 }, guarded(1)))
        refused(pool, sharing.READ, 1)
      end
    end)
  end

  -- How often it ran on a connection, which the statements behind it see.
  local COUNT = core.text("SELECT set_config('sharing.n', "
    .. "(coalesce(nullif(current_setting('sharing.n', true), ''), '0')::int + 1)::text, false) WHERE $1::int8 > 0")
  local COUNTED = "SELECT pg_backend_pid() AS pid, current_setting('sharing.n', true) AS n FROM sharing.item WHERE id = $1"

  it("of a whole shard runs once for the reads of a batch, where those of buckets run for each", function()
    local pool = pools.open({ max_size = 2 })
    sharing.warm(pool, COUNTED, { 1 })
    local function times(guard_of)
      local seen, n = {}, 0
      sharing.all(20, function(i)
        local row = assert(pool:execute(COUNTED, { i }, { guard = guard_of(i) })).rows[1]
        local run = row.pid .. "/" .. tostring(row.n)
        n = n + (seen[run] and 0 or 1)
        seen[run] = true
      end)
      return n
    end
    assert.equal(20, times(function(i)
      return { text = COUNT, params = { i } }
    end))
    local whole = { text = COUNT, params = { 1 } }
    assert.is_true(times(function(i)
      return { text = GUARD, params = { i, 1 }, whole = whole }
    end) < 20)
    assert.equal(0, pool.wary_until)
  end)

  it("of a whole shard that refuses leaves it to those of the buckets, for a while, and is never that of a write", function()
    local pool = pools.open({ max_size = 2 })
    sharing.warm(pool, MARK, { 1 })
    sharing.warm(pool, sharing.INSERT, { 1 })
    local told = 0
    local never = { text = GUARD, params = { 41, 1 }, refused = function()
      told = told + 1
    end }
    local function behind(i, version)
      return { guard = { text = GUARD, params = { i, version }, whole = never } }
    end
    for round = 1, 3 do
      pool.wary_until = 0
      sharing.all(20, function(i)
        local result, err = pool:execute(MARK, { i }, behind(i, 1 + i % 2))
        assert.equal(i % 2 == 0 and tostring(i) or "LS001", result and result.rows[1].mark or err.sqlstate)
      end)
      assert.is_true(pool.wary_until > task.now())
      assert.is_true(told >= round)
    end
    told = 0
    pool.wary_until = 0
    assert.equal("INSERT", assert(pool:execute(sharing.INSERT, { sharing.new_id() }, behind(7, 1))).command)
    assert.same({ 0, 0 }, { pool.wary_until, told })
  end)

  it("finds room among few prepared statements", function()
    for _, most in ipairs({ 0, 1, 2, 3 }) do
      for _, pipeline in ipairs({ true, false }) do
        local pool = pools.open({ max_size = 1, statement_cache = most, pipeline = pipeline })
        for i = 1, 24 do
          local sql = ("SELECT current_setting('sharing.guarded') AS mark, %d AS n"):format(i % 4)
          local result = assert(pool:execute(sql, nil, guarded(i)))
          assert.same({ tostring(i), i % 4 }, { result.rows[1].mark, result.rows[1].n })
          refused(pool, "SELECT $1::int8 AS one" .. (i % 3), i)
        end
      end
    end
  end)

  it("goes with a prepared statement alone", function()
    local pool = pools.open({ max_size = 1 })
    assert.has_error(function()
      pool:execute("SELECT 1", nil, { simple = true, guard = { text = GUARD, params = { 1, 1 } } })
    end)
    assert(pool:execute("SELECT 1"))
  end)

  it("that would fail for its parameters fails before anything is sent", function()
    local pool = pools.open({ max_size = 1 })
    local queries = pool:stats().queries
    assert.has_error(function()
      pool:execute(sharing.READ, { 1 }, { guard = { text = GUARD, params = { function() end, 1 } } })
    end)
    assert.equal(queries, pool:stats().queries)
  end)
end)

describe("a statement that relies on a term", function()
  local NAP_READ = "SELECT id FROM sharing.item WHERE id = $1 AND sharing.nap($2)"
  local NAP_WRITE = "INSERT INTO sharing.log SELECT $1 WHERE sharing.nap($2)"
  local term

  sharing.around(setup, teardown, after_each)

  before_each(function()
    term = core.term()
    term:set(1, task.now() + 60, 0)
  end)

  after_each(function()
    assert.equal(0, term:running())
  end)

  local function start(pool, sql, params, opts)
    return task.spawn(function()
      return pool:execute(sql, params, opts)
    end):watch()
  end

  local function outcome(running)
    local ok, result, err = running:join(10)
    assert.is_true(ok, tostring(result))
    return result, err
  end

  it("is sent while that lasts, and not under another map", function()
    local pool = pools.open({ max_size = 1 }, term)
    assert(pool:execute(sharing.READ, { 1 }, { generation = 1 }))
    pools.failure("STALE_MAP", pool:execute(sharing.READ, { 1 }, { generation = 2 }))
    term:set(2, task.now() + 60, 0)
    pools.failure("STALE_MAP", pool:execute(sharing.READ, { 1 }, { generation = 1 }))
    term:set(2, task.now() - 1, 0)
    local queries = pool:stats().queries
    pools.failure("STALE_MAP", pool:execute(sharing.READ, { 1 }, { generation = 2 }))
    assert.equal(queries, pool:stats().queries)
    assert(pool:execute(sharing.READ, { 1 }))
    assert.equal(0, term:running())
  end)

  for _, pipeline in ipairs({ true, false }) do
    local where = pipeline and "shared connections" or "connections of their own"

    it("is not sent from the queue when that ends while it waits: " .. where, function()
      local pool = pools.open({ max_size = 1, pipeline = pipeline, slow_statement = 10 }, term)
      if pipeline then
        sharing.warm(pool, sharing.INSERT, { 1 })
        sharing.warm(pool, sharing.READ, { 1 })
      end
      local lease = assert(pool:acquire())
      local id = sharing.new_id()
      local waiting = {
        start(pool, sharing.INSERT, { id }, { generation = 1 }),
        start(pool, sharing.READ, { 1 }, { generation = 1 }),
        start(pool, sharing.READ, { 1 }, { generation = 1 }),
      }
      pools.wait_until("they wait", function()
        return pool:stats().waiting == 3 and term:running() == 3
      end)
      term:set(2, task.now() + 60, 0)
      lease:release()
      for _, one in ipairs(waiting) do
        pools.failure("STALE_MAP", outcome(one))
      end
      assert.is_nil(sharing.written()[id])
      assert(pool:execute(sharing.INSERT, { sharing.new_id() }, { generation = 2 }))
      pools.wait_until("nothing is busy", function()
        return pool:stats().used == 0
      end)
    end)

    it("loses its answer when it outlives it and only reads, not when it writes, and in between does not know: " .. where,
      function()
      local pool = pools.open({ max_size = 4, pipeline = pipeline, slow_statement = 10 }, term)
      if pipeline then
        sharing.warm(pool, NAP_READ, { 1, 0 })
        sharing.warm(pool, NAP_WRITE, { 1, 0 })
      end
      local id = sharing.new_id()
      local read = start(pool, NAP_READ, { 1, 0.3 }, { generation = 1, late = 1 })
      local called = start(pool, NAP_READ, { 2, 0.3 }, { generation = 1, late = 2, pipeline = false })
      local write = start(pool, NAP_WRITE, { id, 0.3 }, { generation = 1 })
      pools.wait_until("they run", function()
        return pools.sessions("wait_event = 'PgSleep'") == 3
      end)
      assert.equal(3, term:running())
      term:set(3, task.now() + 60, 2) -- it has lapsed, and another one has begun
      pools.failure("STALE_MAP", outcome(read))
      pools.failure("UNKNOWN_OUTCOME", outcome(called))
      assert(outcome(write))
      assert.equal(1, sharing.written()[id])
      assert(pool:execute(NAP_READ, { 1, 0 }, { generation = 3, late = 1 }))
    end)
  end

  it("is not sent again when that has ended meanwhile", function()
    local pool = pools.open({ max_size = 1, pipeline = false }, term)
    local other = pools.open({ max_size = 1 })
    local sql = "INSERT INTO sharing.plan VALUES (1) RETURNING *"
    assert(other:execute("CREATE TABLE sharing.plan (a int8)"))
    assert(pool:execute(sql, nil, { generation = 1 }))
    local lease = assert(other:acquire())
    assert(lease:execute("BEGIN"))
    assert(lease:execute("ALTER TABLE sharing.plan ADD b int8"))
    local write = start(pool, sql, nil, { generation = 1 }) -- its plan is stale once it has the lock
    pools.wait_until("it waits", function()
      return pools.sessions("wait_event_type = 'Lock'") == 1
    end)
    term:set(3, task.now() + 60, 2)
    assert(lease:execute("COMMIT"))
    lease:release()
    pools.failure("STALE_MAP", outcome(write))
    assert.equal(1, assert(other:execute("SELECT count(*) AS c FROM sharing.plan")).rows[1].c)
    assert(pool:execute(sql, nil, { generation = 3 }))
    assert(other:execute("DROP TABLE sharing.plan"))
  end)

  it("in many sets of parameters is not sent when that has ended", function()
    local pool = pools.open({ max_size = 1 }, term)
    local lease = assert(pool:acquire(nil, 1))
    local id = sharing.new_id()
    term:set(3, task.now() + 60, 2)
    pools.failure("STALE_MAP", lease:execute_many(sharing.INSERT, { { id } }, { generation = 1 }))
    lease:release()
    assert.is_nil(sharing.written()[id])
  end)

  it("counts a connection of one's own up to its end, however it ends", function()
    local pool = pools.open({ max_size = 4 }, term)
    local lease = assert(pool:acquire(nil, 1))
    assert.equal(1, term:running())
    assert(lease:execute("SELECT 1", nil, { generation = 1 }))
    term:set(2, task.now() + 60, 0)
    assert(lease:execute("SELECT 1", nil, { generation = 1 }))
    assert.equal(1, term:running())
    pools.failure("STALE_MAP", pool:acquire(nil, 1))
    term:set(2, task.now() + 60, 1)
    pools.failure("STALE_MAP", lease:execute("SELECT 1", nil, { generation = 1 }))
    assert(lease:execute("SELECT 1"))
    lease:release()
    assert.equal(0, term:running())
    local forgotten = task.spawn(function()
      assert(pool:acquire(nil, 2))
      assert.equal(1, term:running())
    end)
    assert(forgotten:join())
    assert.equal(0, term:running())
    local lost = assert(pool:acquire(nil, 2))
    pools.admin(("SELECT pg_terminate_backend(%d)"):format(lost.backend_pid))
    assert.is_nil((lost:execute("SELECT 1")))
    assert.equal(0, term:running())
    assert(pool:acquire(nil, 2))
    pool:close()
    assert.equal(0, term:running())
  end)

  it("is counted no more when its task is cancelled or it times out", function()
    local pool = pools.open({ max_size = 2 }, term)
    local napping = start(pool, NAP_READ, { 1, 5 }, { generation = 1, read_only = true })
    pools.wait_until("it runs", function()
      return term:running() == 1
    end)
    napping:cancel()
    napping:join()
    pools.failure("TIMEOUT", pool:execute(NAP_READ, { 1, 5 }, { generation = 1, read_only = true,
      deadline = task.now() + 0.05 }))
    assert.equal(0, term:running())
  end)
end)
