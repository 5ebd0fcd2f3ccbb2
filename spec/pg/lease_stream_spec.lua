local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local pools = require("spec.support.pools")
local task = require("lunashard.task")

describe("bulk rows", function()
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

  describe("stream", function()
    it("gives all rows in pieces of at most the size asked for", function()
      local lease = lease_of(pools.open())
      local sql = "SELECT i, repeat('x', 10) AS x FROM generate_series(1, $1::int) AS i"
      local cursor = assert(lease:stream(sql, { 2500 }))
      local sum, pieces = 0, 0
      while true do
        local rows = assert(cursor:fetch(1000))
        if #rows == 0 then
          break
        end
        assert.is_true(#rows <= 1000)
        pieces = pieces + 1
        for _, row in ipairs(rows) do
          sum = sum + row.i
        end
      end
      assert.is_true(pieces >= 3)
      assert.equal(2500 * 2501 / 2, sum)
      cursor:close()
      assert.equal(1, assert(lease:execute("SELECT 1 AS v")).rows[1].v)
      lease:release()
    end)

    it("keeps memory flat and stops early when closed", function()
      local pool = pools.open({ max_size = 1 })
      local lease = lease_of(pool)
      local cursor = assert(lease:stream("SELECT repeat('x', 1000) AS x, generate_series(1, 100000000) AS i"))
      collectgarbage()
      local before = collectgarbage("count")
      for _ = 1, 200 do
        assert.equal(100, #assert(cursor:fetch(100)))
      end
      collectgarbage()
      assert.is_true(collectgarbage("count") - before < 4096)
      local seconds = pools.timed(function()
        cursor:close()
        lease:release()
        return assert(pool:execute("SELECT 1"))
      end)
      assert.is_true(seconds < 3, seconds)
    end)

    it("reports an error that comes after the first rows", function()
      local lease = lease_of(pools.open())
      local cursor = assert(lease:stream("SELECT 1 / (5000 - i) AS v FROM generate_series(1, 10000) AS i"))
      local seen, failure = 0, nil
      for _ = 1, 100 do
        local rows, err = cursor:fetch(500)
        if not rows then
          failure = err
          break
        end
        seen = seen + #rows
      end
      assert.is_true(errors.is(failure, "SQL"), tostring(failure))
      assert.equal("22012", failure.sqlstate)
      assert.is_true(seen < 5000)
      cursor:close()
      assert(lease:execute("SELECT 1"))
      lease:release()
    end)

    it("reports an error of the statement itself", function()
      local lease = lease_of(pools.open())
      local cursor, err = lease:stream("SELECT * FROM nope")
      if cursor then -- the error may come with the first rows that are asked for
        local rows
        rows, err = cursor:fetch(10)
        assert.is_nil(rows)
        cursor:close()
      end
      assert.equal("42P01", err.sqlstate)
      assert(lease:execute("SELECT 1"))
      lease:release()
    end)
  end)

  it("wakes a task that waits for rows when another one closes the stream", function()
    local lease = lease_of(pools.open())
    local cursor = assert(lease:stream("SELECT repeat('x', 20000), CASE WHEN i > 10 THEN pg_sleep(30) END "
      .. "FROM generate_series(1, 20) AS i"))
    local waiting = task.spawn(function()
      return cursor:fetch(20)
    end):watch()
    task.sleep(0.05)
    cursor:close()
    local _, rows, err = assert(waiting:join(2))
    pools.failure("CLOSED", rows, err)
    assert.equal(1, assert(lease:execute("SELECT 1 AS one")).rows[1].one)
    lease:release()
  end)

  describe("copy_in", function()
    local lease

    before_each(function()
      lease = lease_of(pools.open())
      local columns = "(id int8, name text, data bytea, ok bool, tags text[], f float8)"
      assert(lease:execute("CREATE TEMPORARY TABLE target " .. columns))
    end)

    after_each(function()
      lease:release()
    end)

    local COPY = "COPY target (id, name, data, ok, tags, f) FROM STDIN"

    it("brings every kind of value in unchanged", function()
      local copy = assert(lease:copy_in(COPY))
      local null = lunashard.null
      assert(copy:write_rows({
        { 1, "plain", lunashard.bytea("\0\255\\"), true, { "a", null, 'q"\\' }, 0.1 },
        { 9223372036854775807LL, "tab\tnew\nline\rback\\slash \\N \\.", null, false, {}, 1e300 },
        { -5, "", lunashard.bytea(""), null, null, -0.0 },
        { 4, "é🐘", null, null, { "\t", "\\" }, null },
      }))
      local result = assert(copy:finish())
      assert.equal(4, result.row_count)
      local rows = assert(lease:execute("SELECT * FROM target ORDER BY ctid")).rows
      local first = { id = 1, name = "plain", data = "\0\255\\", ok = true, tags = { "a", null, 'q"\\' }, f = 0.1 }
      assert.same(first, rows[1])
      assert.is_true(rows[2].id == 9223372036854775807LL)
      assert.equal("tab\tnew\nline\rback\\slash \\N \\.", rows[2].name)
      assert.is_nil(rows[2].data)
      assert.same({}, rows[2].tags)
      assert.equal("", rows[3].name)
      assert.equal("", rows[3].data)
      assert.is_nil(rows[3].ok)
      assert.same({ id = 4, name = "é🐘", tags = { "\t", "\\" } }, rows[4])
    end)

    it("takes many rows without blocking, and raw bytes as well", function()
      local copy = assert(lease:copy_in("COPY target (id, name) FROM STDIN"))
      for batch = 0, 49 do
        local rows = {}
        for i = 1, 1000 do
          rows[i] = { batch * 1000 + i, ("x"):rep(100) }
        end
        assert(copy:write_rows(rows))
      end
      assert(copy:write("50001\traw\n"))
      assert.equal(50001, assert(copy:finish()).row_count)
      local row = assert(lease:execute("SELECT count(*) AS n, sum(id)::int8 AS s FROM target")).rows[1]
      assert.same({ n = 50001, s = 50001 * 50002 / 2 }, row)
    end)

    it("leaves nothing when it is aborted", function()
      local copy = assert(lease:copy_in(COPY))
      assert(copy:write_rows({ { 1, "a", lunashard.null, true, {}, 1 } }))
      copy:abort("changed my mind")
      assert.equal(0, assert(lease:execute("SELECT count(*) AS n FROM target")).rows[1].n)
    end)

    it("reports a row that the server refuses, with its place", function()
      local copy = assert(lease:copy_in("COPY target (id, name) FROM STDIN"))
      copy:write_rows({ { 1, "good" }, { "bad", "x" } })
      local err = pools.failure("SQL", copy:finish())
      assert.equal("22P02", err.sqlstate)
      assert.equal(0, assert(lease:execute("SELECT count(*) AS n FROM target")).rows[1].n)
    end)

    it("reports a refusal that had arrived before the end was sent", function()
      local copy = assert(lease:copy_in("COPY target (id, name) FROM STDIN"))
      for _ = 1, 2 do
        assert(copy:write("bad\tx\n"))
        task.sleep(0.05) -- the server's error is read meanwhile, and no more will come
      end
      local finishing = task.spawn(copy.finish, copy):watch()
      local _, result, err = assert(finishing:join(2))
      assert.equal("22P02", pools.failure("SQL", result, err).sqlstate)
    end)

    it("reports a table that is not there", function()
      local err = pools.failure("SQL", lease:copy_in("COPY nowhere FROM STDIN"))
      assert.equal("42P01", err.sqlstate)
      assert(lease:execute("SELECT 1"))
    end)
  end)
end)
