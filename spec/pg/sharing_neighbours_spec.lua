local errors = require("lunashard.errors")
local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

-- What happens to one statement on a shared connection must not happen to the others.
describe("neighbours on a connection", function()
  sharing.around(setup, teardown, after_each)

  -- Writes as long as its second parameter says.
  local SLOW_INSERT = "INSERT INTO sharing.log SELECT $1 WHERE (SELECT count(*) FROM generate_series(1, $2::int)) >= 0"

  describe("of statements that fail", function()
    it("do not notice", function()
      local pool = pools.open({ max_size = 2 })
      local failing = {
        { "SELECT id FROM sharing.item WHERE id = 1 AND v / ($1::int8 - $1) > 0", 7, "22012" },
        { "SELECT $1::text::int8 + v FROM sharing.item WHERE id = 1", "seven", "22P02" },
        { "INSERT INTO sharing.taken VALUES ($1)", 7, "23505" },
        { "UPDATE sharing.counter SET n = NULL WHERE id = $1", 7, "23502" },
        { "SELECT nothing FROM sharing.item WHERE id = $1", 7, "42703" },
        { "SELECT v FROM sharing.nowhere WHERE id = $1", 7, "42P01" },
        { "SELEC v FROM sharing.item WHERE id = $1", 7, "42601" },
        { "SELECT v FROM sharing.item WHERE id = $1 AND id = $2", 7, "08P01" },
      }
      assert(pool:execute("INSERT INTO sharing.taken VALUES ($1) ON CONFLICT DO NOTHING", { 7 }))
      local neighbours = sharing.neighbours(pool)
      sharing.all(#failing, function(i)
        local sql, value, sqlstate = unpack(failing[i])
        for _ = 1, 30 do
          local err = pools.failure("SQL", pool:execute(sql, { value }))
          assert.equal(sqlstate, err.sqlstate)
        end
      end)
      neighbours:stop()
    end)

    it("do not notice a result that is too large", function()
      local pool = pools.open({ max_size = 2 })
      local large = "SELECT id, repeat('x', $1::int) AS v FROM sharing.item"
      sharing.warm(pool, large, { 1 })
      local neighbours = sharing.neighbours(pool)
      for _ = 1, 8 do
        local err = pools.failure("RESULT_TOO_LARGE", pool:execute(large, { 50000 }, {
          max_result_bytes = 100000, read_only = true,
        }))
        assert.is_truthy(err.message:find("100000", 1, true), err.message)
        assert.equal(sharing.ITEMS, #assert(pool:execute(large, { 10 }, { max_result_bytes = 1000000 })).rows)
      end
      neighbours:stop()
    end)

    it("keep a large result apart from small ones", function()
      local pool = pools.open({ max_size = 2 })
      local large = "SELECT id, repeat(chr(97 + $1::int), 4000) AS v FROM sharing.item"
      sharing.warm(pool, large, { 1 })
      local neighbours = sharing.neighbours(pool)
      sharing.all(6, function(i)
        for _ = 1, 6 do
          local rows, expected = assert(pool:execute(large, { i })).rows, string.char(97 + i):rep(4000)
          assert.equal(sharing.ITEMS, #rows)
          for _, row in ipairs(rows) do
            assert.is_true(row.v == expected)
          end
        end
      end)
      neighbours:stop()
    end)
  end)

  describe("of statements that are given up", function()
    -- What may become of a statement with a short deadline.
    local function check(result, err)
      if not result and err.code ~= "TIMEOUT" and err.code ~= "POOL_EXHAUSTED" and err.code ~= "UNKNOWN_OUTCOME" then
        error("unexpected " .. tostring(err))
      end
      return result and "done" or err.code
    end

    it("do not notice a read that times out", function()
      local pool, timeouts = pools.open({ max_size = 2 }), 0
      sharing.warm(pool, sharing.SLOW_READ, { 1, 1 })
      local neighbours = sharing.neighbours(pool)
      sharing.all(4, function(i)
        for _ = 1, 15 do
          local result, err = pool:execute(sharing.SLOW_READ, { i, math.random(100000) }, {
            deadline = task.now() + math.random() * 0.02, read_only = true,
          })
          timeouts = timeouts + (check(result, err) == "TIMEOUT" and 1 or 0)
          assert.is_true(result == nil or result.rows[1].v == i * 7 + 3)
        end
      end)
      neighbours:go_on(5)
      neighbours:stop()
      assert.is_true(timeouts >= 5, timeouts .. " timeouts")
    end)

    it("do not notice a write that times out, which is done as often as it says", function()
      local pool, said = pools.open({ max_size = 2 }), {}
      sharing.warm(pool, SLOW_INSERT, { 1, 1 })
      local neighbours = sharing.neighbours(pool)
      sharing.all(4, function()
        for _ = 1, 15 do
          local id = sharing.new_id()
          said[id] = check(pool:execute(SLOW_INSERT, { id, math.random(100000) }, {
            deadline = task.now() + math.random() * 0.02,
          }))
        end
      end)
      neighbours:go_on(5)
      neighbours:stop()
      local times = sharing.written()
      for id, outcome in pairs(said) do
        local n = times[id] or 0
        assert.is_true(outcome == "done" and n == 1 or outcome == "UNKNOWN_OUTCOME" and n <= 1 or n == 0,
          ("%s, but there %d times"):format(outcome, n))
      end
    end)

    it("do not notice a task that is cancelled while its statement waits or runs", function()
      local pool, started = pools.open({ max_size = 2 }), {}
      sharing.warm(pool, sharing.SLOW_READ, { 1, 1 })
      sharing.warm(pool, SLOW_INSERT, { 1, 1 })
      local neighbours = sharing.neighbours(pool)
      sharing.all(4, function(i)
        for round = 1, 20 do
          local id = sharing.new_id()
          started[#started + 1] = id
          local running = task.spawn(function()
            if (i + round) % 2 == 0 then
              return assert(pool:execute(sharing.SLOW_READ, { i, math.random(100000) }))
            end
            return assert(pool:execute(SLOW_INSERT, { id, math.random(100000) }))
          end):watch()
          task.sleep(math.random() * 0.01)
          running:cancel()
          local ok, err = running:join(10)
          assert.is_true(ok or errors.is(err, "CANCELED"), tostring(err))
        end
      end)
      neighbours:go_on(5)
      neighbours:stop()
      local times = sharing.written()
      for _, id in ipairs(started) do
        assert.is_true((times[id] or 0) <= 1)
      end
    end)

    it("may be given up all at once", function()
      local pool = pools.open({ max_size = 2 })
      sharing.warm(pool, sharing.SLOW_READ, { 1, 1 })
      sharing.warm(pool, sharing.READ, { 1 })
      for _ = 1, 5 do
        local tasks = {}
        for i = 1, 60 do
          tasks[i] = task.spawn(function()
            return assert(pool:execute(i % 6 == 0 and sharing.SLOW_READ or sharing.READ, i % 6 == 0 and { i, 100000 } or { i }))
          end):watch()
        end
        task.sleep(math.random() * 0.02)
        for i = 1, 60 do
          if i % 10 > 0 then
            tasks[i]:cancel()
          end
        end
        for i = 1, 60 do
          local ok, result = tasks[i]:join(10)
          if ok then
            assert.equal(i * 7 + 3, result.rows[1].v)
          else
            assert.is_true(i % 10 > 0 and errors.is(result, "CANCELED"), tostring(result))
          end
        end
      end
      pools.wait_until("the pool is at rest", function()
        return pool:stats().used == 0
      end)
      assert(pool:execute(sharing.READ, { 1 }, { deadline = task.now() + 5 }))
    end)
  end)

  describe("of statements that somebody else stops", function()
    it("lose no more than the statement that pg_cancel_backend hit", function()
      local pool, cancels = pools.open({ max_size = 2 }), 0
      local neighbours = sharing.neighbours(pool, {
        may_fail = function(err)
          return err.code == "SQL" and err.sqlstate == "57014"
        end,
      })
      for _ = 1, 60 do
        local hit = pools.admin(
          "SELECT pg_cancel_backend(pid) AS sent FROM pg_stat_activity WHERE usename = $1 AND state = 'active' LIMIT 1",
          { pools.server.user })
        cancels = cancels + #hit
        task.sleep(0.005)
      end
      neighbours:go_on(5)
      neighbours:stop()
      assert.is_true(#neighbours.failures <= cancels, ("%d failed by %d cancels"):format(#neighbours.failures, cancels))
    end)

    it("go on when a slow one is cancelled by pg_cancel_backend, which is not tried again", function()
      local pool = pools.open({ max_size = 2 })
      local slow = "SELECT nextval('sharing.ticket'), pg_sleep($1::float8)"
      for _ = 1, 4 do
        assert(pool:execute(slow, { 0 }))
      end
      local neighbours = sharing.neighbours(pool, { n = 4 })
      local before = assert(pool:execute("SELECT nextval('sharing.ticket') AS n")).rows[1].n
      for _ = 1, 3 do
        local running = task.spawn(function()
          return pool:execute(slow, { 30 })
        end):watch()
        pools.wait_until("it is cancelled", function()
          return #pools.admin("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1
        end)
        local ok, result, err = running:join(10)
        assert.is_true(ok)
        assert.equal("57014", pools.failure("SQL", result, err).sqlstate)
      end
      neighbours:stop()
      assert.equal(before + 3, pools.admin("SELECT last_value AS n FROM sharing.ticket")[1].n)
    end)
  end)

  describe("of statements that are prepared anew", function()
    before_each(function()
      sharing.define([[
        DROP TABLE IF EXISTS sharing.changing;
        CREATE TABLE sharing.changing (id int8 PRIMARY KEY, v int8);
        INSERT INTO sharing.changing SELECT id, v FROM sharing.item]])
    end)

    local READ = "SELECT * FROM sharing.changing WHERE id = $1"

    -- Tasks that read while `change` works; every read must succeed.
    local function reading(pool, change)
      sharing.warm(pool, READ, { 1 })
      local neighbours, over = sharing.neighbours(pool, { n = 4 }), false
      local readers = task.spawn(function()
        sharing.all(8, function()
          while not over do
            local id = math.random(sharing.ITEMS)
            assert.equal(id * 7 + 3, tonumber(assert(pool:execute(READ, { id }, { read_only = true })).rows[1].v))
          end
        end)
      end):watch()
      local ok, problem = pcall(change)
      over = true
      assert(readers:join(30))
      neighbours:stop()
      assert(ok, problem)
    end

    it("do not notice that a result type changes", function()
      local pool = pools.open({ max_size = 2 })
      reading(pool, function()
        for i = 1, 15 do
          pools.admin("ALTER TABLE sharing.changing ADD COLUMN more" .. i .. " int")
          task.sleep(0.005)
          local kind = i % 2 == 0 and "int8" or "text"
          pools.admin(("ALTER TABLE sharing.changing ALTER COLUMN v TYPE %s USING v::%s"):format(kind, kind))
          task.sleep(0.005)
        end
      end)
    end)

    it("do not notice that a table is made anew", function()
      local pool = pools.open({ max_size = 2 })
      reading(pool, function()
        for _ = 1, 10 do
          sharing.define([[
            BEGIN; DROP TABLE sharing.changing; CREATE TABLE sharing.changing (id int8 PRIMARY KEY, v int8);
            INSERT INTO sharing.changing SELECT id, v FROM sharing.item;
            GRANT ALL ON sharing.changing TO PUBLIC; COMMIT]])
        end
      end)
    end)

    it("do not notice DISCARD ALL and DEALLOCATE ALL by other tasks", function()
      local pool = pools.open({ max_size = 3 })
      reading(pool, function()
        for _ = 1, 15 do
          assert(pool:execute("DISCARD ALL"))
          assert(pool:execute("DEALLOCATE ALL"))
          assert(pool:execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"))
        end
      end)
    end)

    it("may be more than the statement cache holds", function()
      local pool = pools.open({ max_size = 2, statement_cache = 4 })
      local neighbours = sharing.neighbours(pool, { n = 4 })
      sharing.all(12, function(i)
        for round = 1, 60 do
          local n = (i * 7 + round) % 12
          local sql = ("SELECT v + %d AS v FROM sharing.item WHERE id = $1"):format(n)
          assert.equal(i * 7 + 3 + n, assert(pool:execute(sql, { i })).rows[1].v)
          if round % 9 == 0 then
            pools.failure("SQL", pool:execute("SELECT v + " .. n .. " FROM sharing.nowhere WHERE id = $1", { i }))
          end
        end
      end)
      neighbours:stop()
    end)

    it("may be not prepared at all", function()
      local pool = pools.open({ max_size = 2, statement_cache = 0 })
      local neighbours = sharing.neighbours(pool, { n = 8 })
      for _ = 1, 30 do
        pools.failure("SQL", pool:execute("SELECT v FROM sharing.nowhere WHERE id = $1", { 1 }))
      end
      neighbours:stop()
    end)
  end)
end)
