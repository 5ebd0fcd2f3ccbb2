local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

-- One statement on a shared connection goes wrong in a way that could take the connection with it.
describe("a statement that endangers its connection", function()
  -- Writes that take so many seconds, or give so many bytes.
  local SLOW_WRITE = "INSERT INTO sharing.log SELECT $1 WHERE sharing.nap($2)"
  local LARGE_WRITE = "INSERT INTO sharing.log VALUES ($1) RETURNING repeat('x', $2::int) AS x%d"

  sharing.around(setup, teardown, after_each)

  local function running(fn)
    return task.spawn(fn):watch()
  end

  local function napping()
    return pools.sessions("wait_event = 'PgSleep'")
  end

  it("by far too many parameters does no harm to the others", function()
    local pool, many = pools.open({ max_size = 1 }), {}
    sharing.warm(pool, sharing.READ, { 1 })
    sharing.warm(pool, sharing.INSERT, { 1 })
    for i = 1, 70000 do
      many[i] = 1
    end
    for _, sql in ipairs({ sharing.READ, sharing.INSERT }) do
      local others = {}
      for i = 1, 20 do
        others[i] = running(function()
          if i % 2 == 0 then
            return assert(pool:execute(sharing.INSERT, { sharing.new_id() }))
          end
          return assert(pool:execute(sharing.READ, { i }))
        end)
        if i == 10 then
          others[0] = running(function()
            local result, err = pool:execute(sql, many)
            assert.is_nil(result)
            assert.is_true(err.code == "INVALID" or err.code == "SQL", tostring(err))
          end)
        end
      end
      for i = 0, 20 do
        assert(others[i]:join(10))
      end
    end
  end)

  it("by a timeout while a long one is queued behind it does no harm to that one", function()
    local pool = pools.open({ max_size = 1, slow_statement = 10 })
    sharing.warm(pool, SLOW_WRITE, { 1, 0 })
    local first, second = sharing.new_id(), sharing.new_id()
    local given_up = running(function()
      return pool:execute(SLOW_WRITE, { first, 20 }, { deadline = task.now() + 0.3 })
    end)
    local patient = running(function()
      return pool:execute(SLOW_WRITE, { second, 2.6 }) -- longer than a cancelled statement may take to end
    end)
    local ok, result, err = given_up:join(10)
    assert.is_true(ok)
    pools.failure("TIMEOUT", result, err)
    ok, result, err = patient:join(10)
    assert.is_true(ok)
    assert(result, err)
    local times = sharing.written()
    assert.is_nil(times[first])
    assert.equal(1, times[second])
  end)

  it("by a timeout one after the other ends each of them in time", function()
    local pool = pools.open({ max_size = 1, slow_statement = 10 })
    sharing.warm(pool, SLOW_WRITE, { 1, 0 })
    local ids, tasks = {}, {}
    for i = 1, 12 do
      ids[i] = sharing.new_id()
      tasks[i] = running(function()
        local started = task.now()
        local result, err = pool:execute(SLOW_WRITE, { ids[i], 30 }, { deadline = started + 0.05 + i * 0.01 })
        assert.is_nil(result)
        return err.code, task.now() - started
      end)
    end
    local codes = {}
    for i = 1, 12 do
      local ok, code, seconds = tasks[i]:join(20)
      assert.is_true(ok, tostring(code))
      assert.is_true(seconds < 8, seconds)
      codes[i] = code
    end
    pools.wait_until("the server sleeps no more", function()
      return napping() == 0
    end)
    local times = sharing.written()
    for i = 1, 12 do
      assert.is_nil(times[ids[i]])
      assert.is_truthy(codes[i] == "TIMEOUT" or codes[i] == "UNKNOWN_OUTCOME" or codes[i] == "POOL_EXHAUSTED", codes[i])
    end
    assert(pool:execute(sharing.INSERT, { sharing.new_id() }, { deadline = task.now() + 5 }))
  end)

  it("by a result that is far too large leaves the outcome of others true", function()
    local pool = pools.open({ max_size = 1 })
    sharing.warm(pool, sharing.INSERT, { 1 })
    for round = 1, 3 do
      local said, tasks, large = {}, {}, nil
      local sql = LARGE_WRITE:format(round) -- once it is known to be large it is alone
      sharing.warm(pool, sql, { 1, 1 })
      for i = 1, 12 do
        if i == 4 then
          large = running(function()
            local result, err = pool:execute(sql, { 1, 40 * 2 ^ 20 }, { max_result_bytes = 100000 })
            pools.failure("RESULT_TOO_LARGE", result, err)
          end)
        end
        local id = sharing.new_id()
        tasks[i] = running(function()
          local result, err = pool:execute(sharing.INSERT, { id })
          said[id] = result and "done" or err.code
        end)
      end
      assert(large:join(20))
      for i = 1, 12 do
        assert(tasks[i]:join(10))
      end
      pools.wait_until("the server has ended what was under way", function()
        return pools.sessions("state = 'active'") == 0
      end)
      local times = sharing.written()
      for id, outcome in pairs(said) do
        local n = times[id] or 0
        assert.is_true(outcome == "done" and n == 1 or outcome == "UNKNOWN_OUTCOME" and n <= 1
          or outcome == "SHARD_DOWN" and n == 0, ("round %d: %s, but there %d times"):format(round, outcome, n))
      end
    end
  end)

  it("by its slowness holds up neither reads nor writes that come later", function()
    local pool = pools.open({ max_size = 4, slow_statement = 0.1 })
    local slow_read = "SELECT v FROM sharing.item WHERE id = $1 AND sharing.nap($2)"
    sharing.warm(pool, slow_read, { 1, 0 })
    sharing.warm(pool, SLOW_WRITE, { 1, 0 })
    sharing.warm(pool, sharing.READ, { 1 })
    sharing.warm(pool, sharing.INSERT, { 1 })
    local slow = {
      running(function()
        return assert(pool:execute(slow_read, { 1, 20 }))
      end),
      running(function()
        return assert(pool:execute(SLOW_WRITE, { 1, 20 }))
      end),
    }
    pools.wait_until("both run", function()
      return napping() == 2
    end)
    task.sleep(0.15) -- from slow_statement on nothing is sent behind them
    sharing.all(8, function(i)
      for _ = 1, 10 do
        assert(pool:execute(sharing.READ, { i }))
        assert(pool:execute(sharing.INSERT, { sharing.new_id() }))
      end
    end)
    assert.equal("waiting", slow[1]:status())
    assert.equal("waiting", slow[2]:status())
    for i = 1, 2 do
      slow[i]:cancel()
      local ok, err = slow[i]:join(10)
      assert.same({ nil, "CANCELED" }, { ok, err.code })
    end
  end)

  it("by its slowness holds up no more than were sent behind it", function()
    local pool = pools.open({ max_size = 4, slow_statement = 0.2 })
    sharing.warm(pool, SLOW_WRITE, { 1, 0 })
    sharing.warm(pool, sharing.INSERT, { 1 })
    local slow = running(function()
      return assert(pool:execute(SLOW_WRITE, { 1, 2.5 }))
    end)
    local done, tasks = 0, {}
    for i = 1, 300 do
      tasks[i] = running(function()
        assert(pool:execute(sharing.INSERT, { sharing.new_id() }))
        done = done + 1
      end)
    end
    pools.wait_until("most are done", function()
      return done >= 200
    end, 10)
    assert.equal("waiting", slow:status())
    assert(slow:join(10))
    for i = 1, 300 do
      assert(tasks[i]:join(10))
    end
  end)

  it("by its slowness in a batch holds up no more reads than are in that batch", function()
    local pool = pools.open({ max_size = 4, slow_statement = 0.2 })
    local slow_read = "SELECT v FROM sharing.item WHERE id = $1 AND sharing.nap($2)"
    local quick = "SELECT $1::int8 AS v"
    sharing.warm(pool, slow_read, { 1, 0 })
    sharing.warm(pool, quick, { 1 })
    for _ = 1, 100 do -- so that the pool takes them for quick
      sharing.all(60, function(i)
        assert(pool:execute(quick, { i }))
      end)
    end
    local done, tasks = 0, {}
    tasks[0] = running(function()
      return assert(pool:execute(slow_read, { 1, 2.5 }))
    end)
    for i = 1, 150 do -- all in one turn: nothing happens afterwards that could wake those that wait
      tasks[i] = running(function()
        assert(pool:execute(quick, { i }))
        done = done + 1
      end)
    end
    task.sleep(1)
    assert.equal("waiting", tasks[0]:status())
    assert.is_true(done >= 80, done .. " reads were done")
    for i = 0, 150 do
      assert(tasks[i]:join(10))
    end
  end)

  it("by its failure in a batch leaves no prepared statements behind", function()
    local pool = pools.open({ max_size = 1, statement_cache = 8 })
    local fails = "SELECT id FROM sharing.item WHERE id = 1 AND v / ($1::int8 - $1) > 0"
    local prepared = "SELECT count(*) AS n FROM pg_prepared_statements"
    local texts = {}
    for i = 1, 24 do
      texts[i] = ("SELECT v + %d AS v FROM sharing.item WHERE id = $1"):format(i)
    end
    for _ = 1, 4 do
      for i = 1, 24 do
        assert(pool:execute(texts[i], { i }))
      end
    end
    sharing.warm(pool, prepared)
    sharing.all(16, function(i)
      for round = 1, 60 do
        local n = (i * 5 + round) % 24 + 1
        assert.equal(i * 7 + 3 + n, assert(pool:execute(texts[n], { i })).rows[1].v)
        if round % 3 == 0 then
          pools.failure("SQL", pool:execute(fails, { i }))
        end
      end
    end)
    pools.wait_until("only those in the cache are left", function()
      return assert(pool:execute(prepared)).rows[1].n <= 8
    end)
  end)

  it("by the loss of a session leaves room for reads and for writes", function()
    local pool = pools.open({ max_size = 2 })
    local neighbours = sharing.neighbours(pool, { n = 4 })
    neighbours:stop()
    for _ = 1, 5 do
      pools.admin("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1", { pools.server.user })
      for i = 1, 3 do
        local opts = { deadline = task.now() + 5 }
        assert(pool:execute(sharing.READ, { i }, opts))
        assert(pool:execute(sharing.INSERT, { sharing.new_id() }, opts))
      end
    end
  end)
end)
