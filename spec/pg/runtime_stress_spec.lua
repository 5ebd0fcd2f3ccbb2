local core = require("lunashard.core.task")
local errors = require("lunashard.errors")
local pools = require("spec.support.pools")
local task = require("lunashard.task")

-- Everything at once, at random, while sessions are killed: each answer must belong to its question, what is
-- acknowledged must be there and what is refused must not, nothing may hang and nothing may be left.
-- LUNASHARD_STRESS_SECONDS and LUNASHARD_STRESS_SEED make a run longer, or the same choices again.
describe("a pool under stress", function()
  local SECONDS = tonumber(os.getenv("LUNASHARD_STRESS_SECONDS") or 5)
  local SEED = tonumber(os.getenv("LUNASHARD_STRESS_SEED") or os.time() % 100000)
  local HANG = 20 -- no operation may take so long
  local EXPECTED = {
    TIMEOUT = true, POOL_EXHAUSTED = true, SHARD_DOWN = true, UNKNOWN_OUTCOME = true, CLOSED = true, CANCELED = true,
  }

  local random = math.random
  local complaints, outcome, next_id -- outcome: id -> how many rows must be there, or a list of what may be

  setup(function()
    pools.start()
    pools.admin("CREATE TABLE IF NOT EXISTS stress (id int8, n int)")
    pools.admin("TRUNCATE stress")
    pools.admin("GRANT ALL ON stress TO " .. pools.server.user)
  end)

  teardown(function()
    pools.admin("DROP TABLE stress")
    pools.stop()
  end)

  before_each(function()
    math.randomseed(SEED)
    complaints, outcome, next_id = {}, {}, 0
  end)

  local function complain(...)
    complaints[#complaints + 1] = (...):format(select(2, ...))
  end

  local function some_deadline()
    local die = random(10)
    return die <= 3 and task.now() + random(0, 30) / 1000 or die <= 5 and task.now() + random(30, 200) / 1000 or nil
  end

  -- Note a failure; its code.
  local function failed(what, err)
    if not errors.is(err) then
      complain("%s: no error object: %s", what, tostring(err))
    elseif not EXPECTED[err.code] and not (err.code == "SQL" and err.sqlstate == "25P02") then
      complain("%s: unexpected %s", what, tostring(err))
    end
    return errors.is(err) and err.code
  end

  local function new_id()
    next_id = next_id + 1
    outcome[next_id] = { 0, 1, 2 }
    return next_id
  end

  -- What a write of `rows` has come to: all there, none, or either when that is unknown.
  local function settle(id, rows, result, what, err)
    if result then
      outcome[id] = { rows }
    else
      outcome[id] = failed(what, err) == "UNKNOWN_OUTCOME" and { 0, rows } or { 0 }
    end
  end

  local function ask(session, what)
    local value, column = random(1e9), "v" .. random(14) -- more texts than the statement cache holds
    local result, err = session:execute(
      ("SELECT $1::int8 AS %s, pg_sleep($2)"):format(column),
      { value, random(4) == 1 and random(0, 20) / 1000 or 0 },
      { deadline = some_deadline(), read_only = random(2) == 1 }
    )
    if not result then
      failed(what, err)
    elseif result.rows[1][column] ~= value then
      complain("%s: asked for %s, got %s", what, value, tostring(result.rows[1][column]))
    end
  end

  local function acquire(pool)
    local lease, err = pool:acquire(some_deadline())
    return lease or (failed("acquire", err) and nil)
  end

  local function give_back(lease)
    local die = random(10)
    if die <= 8 then
      lease:release()
    elseif die == 9 then
      lease:discard("enough of it")
    end -- or it is forgotten, and given back when the task ends
  end

  local works = {}

  function works.ask(pool)
    ask(pool, "ask")
  end

  function works.write(pool)
    local id = new_id()
    local result, err
    if random(4) == 1 then
      local sql = ("INSERT INTO stress VALUES (%d, 1); SELECT pg_sleep(%g)"):format(id, random(0, 15) / 1000)
      result, err = pool:execute(sql, nil, { simple = true, deadline = some_deadline() })
    else
      result, err = pool:execute("INSERT INTO stress SELECT $1, 1 FROM pg_sleep($2)", { id, random(0, 15) / 1000 }, {
        deadline = some_deadline(),
      })
    end
    settle(id, 1, result, "write", err)
  end

  function works.lease(pool)
    local lease = acquire(pool)
    if lease then
      for _ = 1, random(4) do
        ask(lease, "lease")
      end
      give_back(lease)
    end
  end

  function works.transaction(pool)
    local lease = acquire(pool)
    if not lease then
      return
    end
    local id = new_id()
    local result, err = lease:execute("BEGIN")
    for _ = 1, result and 2 or 0 do
      result, err = lease:execute("INSERT INTO stress VALUES ($1, 2)", { id }, { deadline = some_deadline() })
      if not result then
        break
      end
    end
    if not result then
      failed("in transaction", err)
      outcome[id] = { 0 }
    elseif random(4) == 1 then
      outcome[id] = { 0 } -- given back without COMMIT
    else
      result, err = lease:execute("COMMIT", nil, { deadline = some_deadline() })
      settle(id, 2, result, "commit", err)
    end
    give_back(lease)
  end

  function works.stream(pool)
    local lease = acquire(pool)
    if not lease then
      return
    end
    local total, from, got = random(3000), random(1e8), 0
    local cursor, err = lease:stream(
      "SELECT g + $1::int8 AS v, repeat('x', $3) AS f FROM generate_series(1, $2::int) g",
      { from, total, random(300) },
      { deadline = some_deadline() }
    )
    local rows = {}
    while cursor and (got == 0 or #rows > 0) do
      rows, err = cursor:fetch(random(700))
      if not rows then
        break
      end
      for _, row in ipairs(rows) do
        got = got + 1
        if row.v ~= from + got then
          complain("stream: row %d is %s", got, tostring(row.v))
          break
        end
      end
      if random(8) == 1 then
        cursor:close()
        got = total
        break
      end
    end
    if not cursor or not rows then
      failed("stream", err)
    elseif got ~= total then
      complain("stream: %d of %d rows", got, total)
    end
    if random(2) == 1 then
      ask(lease, "after a stream")
    end
    give_back(lease)
  end

  function works.copy(pool)
    local lease = acquire(pool)
    if not lease then
      return
    end
    local id, rows = new_id(), {}
    outcome[id] = { 0 }
    for i = 1, random(500) do
      rows[i] = { id, 3 }
    end
    local copy, err = lease:copy_in("COPY stress FROM STDIN", { deadline = some_deadline() })
    if copy then
      local ok
      ok, err = copy:write_rows(rows)
      if ok and random(4) == 1 then
        copy:abort("changed my mind")
        copy = nil
      elseif ok and random(4) > 1 then
        outcome[id] = { 0, #rows } -- in case the task is cancelled
        local result
        result, err = copy:finish()
        settle(id, #rows, result, "finish", err)
        copy = nil
      elseif ok then
        copy = nil -- left as it is
      end
    end
    if copy then
      failed("copy", err)
    end
    give_back(lease)
  end

  local function worker(pool, till)
    local names = { "ask", "ask", "write", "write", "lease", "transaction", "stream", "copy" }
    while task.now() < till do
      local name = names[random(#names)]
      local running = task.spawn(works[name], pool):watch()
      if random(6) == 1 then
        task.sleep(random(0, 20) / 1000)
        running:cancel()
      end
      local ok, err = running:join(HANG)
      if not ok and errors.is(err, "TIMEOUT") and running:status() == "waiting" then
        complain("%s hangs", name)
        running:cancel()
      elseif not ok and not errors.is(err, "CANCELED") then
        complain("%s raised %s", name, tostring(err))
      end
    end
  end

  local function check_rows()
    local rows = {}
    for _, row in ipairs(pools.admin("SELECT id, count(*) AS n FROM stress GROUP BY id")) do
      rows[row.id] = row.n
    end
    for id, allowed in ipairs(outcome) do
      local n, is_allowed = rows[id] or 0, false
      for _, one in ipairs(allowed) do
        is_allowed = is_allowed or one == n
      end
      if not is_allowed then
        complain("write %d: %d rows, expected %s", id, n, table.concat(allowed, " or "))
      end
    end
  end

  it(("gives right answers, hangs nowhere and leaves nothing (seed %d)"):format(SEED), function()
    local before = core.counts()
    local pool = pools.open({ max_size = 6, statement_cache = 6, connection_timeout = 3 })
    local till, workers = task.now() + SECONDS, {}
    for i = 1, 16 do
      workers[i] = task.spawn(worker, pool, till)
    end
    local killer = task.spawn(function()
      while task.now() < till do
        task.sleep(random(5, 120) / 1000)
        pools.admin(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 ORDER BY random() LIMIT 1",
          { pools.server.user }
        )
      end
    end)
    for i = 1, 16 do
      assert(workers[i]:join(SECONDS + 2 * HANG))
    end
    assert(killer:join(10))
    pools.wait_until("the pool is at rest", function()
      local stats = pool:stats()
      return stats.used == 0 and stats.waiting == 0 and stats.connecting == 0
    end)
    pools.close_all()
    pools.wait_until("no session is left", function()
      return pools.sessions() == 0
    end)
    check_rows()
    assert.same({}, complaints)
    assert.is_true(next_id > 20 * SECONDS, next_id .. " writes")
    pools.wait_until("no operation is left", function()
      return core.counts().ops <= before.ops and core.counts().tasks <= before.tasks
    end)
  end)
end)
