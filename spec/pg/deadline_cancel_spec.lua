local pools = require("spec.support.pools")
local signals = require("spec.support.signals")
local task = require("lunashard.task")

local TIMEOUT = 0.3
local STALL = 0.1

local function soon(seconds)
  return { deadline = task.now() + (seconds or TIMEOUT) }
end

-- The longest that a task which only yields had to wait while fn ran.
local function longest_wait(fn)
  local longest, done = 0, false
  local ticker = task.spawn(function()
    while not done do
      local before = task.now()
      task.sleep(0.005)
      longest = math.max(longest, task.now() - before)
    end
  end)
  local ok, err = pcall(fn)
  done = true
  ticker:join()
  if not ok then
    error(err, 0)
  end
  return longest
end

describe("a statement whose deadline has passed", function()
  local pool

  setup(function()
    pools.start({})
    pools.admin("CREATE TABLE late_rows (id int8 PRIMARY KEY)")
    pools.admin(("GRANT ALL ON late_rows TO %s"):format(pools.server.user))
  end)
  teardown(pools.stop)
  before_each(function()
    pool = pools.open({ max_size = 1, pipeline = false })
  end)
  after_each(pools.close_all)

  local function session()
    return assert(pool:execute("SELECT pg_backend_pid() AS pid, current_setting('work_mem') AS work_mem, "
      .. "to_regclass('pg_temp.leftover') AS leftover")).rows[1]
  end

  local function is_running(text)
    return pools.sessions("state = 'active' AND query LIKE '%" .. text .. "%' AND pid <> pg_backend_pid()") > 0
  end

  it("is cancelled on the server, and its connection serves the next one", function()
    local before = session().pid
    pools.failure("TIMEOUT", pool:execute("SELECT pg_sleep(30), 'a late read'", nil,
      { deadline = task.now() + TIMEOUT, read_only = true }))
    pools.wait_until("it is cancelled", function()
      return not is_running("a late read")
    end)
    assert.equal(before, session().pid)
    assert.equal(1, pool:stats().connects)
  end)

  it("leaves nothing of its own in the session", function()
    local before = session()
    local lease = assert(pool:acquire())
    assert(lease:execute("SELECT set_config('work_mem', '77MB', false)"))
    assert(lease:execute("CREATE TEMPORARY TABLE leftover (id int)"))
    pools.failure("TIMEOUT", lease:execute("SELECT pg_sleep(30)", nil, soon()))
    lease:release()
    local after = session()
    assert.equal(before.pid, after.pid)
    assert.equal(before.work_mem, after.work_mem)
    assert.is_nil(after.leftover)
  end)

  it("was certainly not done when it is TIMEOUT, though it writes", function()
    local err = pools.failure("TIMEOUT", pool:execute("INSERT INTO late_rows SELECT 1 FROM pg_sleep(30)", nil, soon()))
    assert.equal("shard1", err.shard_id)
    assert.equal(0, pools.admin("SELECT count(*) AS n FROM late_rows")[1].n)
    assert(pool:execute("INSERT INTO late_rows VALUES (1)"))
    pools.admin("TRUNCATE late_rows")
  end)

  it("is UNKNOWN_OUTCOME when a write's connection is lost meanwhile, with place and time", function()
    local running = task.spawn(function()
      return pool:execute("INSERT INTO late_rows SELECT 2 FROM pg_sleep(30)")
    end)
    pools.wait_until("it runs", function()
      return is_running("INSERT INTO late_rows")
    end)
    pools.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO late_rows%'")
    local _, result, err = running:join()
    pools.failure("UNKNOWN_OUTCOME", result, err)
    assert.equal("shard1", err.shard_id)
    assert.equal(pool.endpoint, err.endpoint)
    assert.is_true(err.elapsed > 0 and err.elapsed < 30)
  end)

  it("blocks nobody when the server is stopped and takes no cancel, and its connection is never used again", function()
    local frozen, before = true, session().pid
    pools.wait_until("the pool has nothing to do", function()
      return pool:stats().used == 0
    end)
    local longest = longest_wait(function()
      signals.freeze(pools.private, "shard1")
      finally(function()
        if frozen then
          signals.thaw(pools.private, "shard1")
        end
      end)
      local read = { deadline = task.now() + TIMEOUT, read_only = true }
      local elapsed, _, err = pools.timed(function()
        return pool:execute("SELECT 1", nil, read)
      end)
      assert.equal("TIMEOUT", err.code, tostring(err))
      assert.is_true(elapsed < TIMEOUT + 3)
      -- A write is waited for somewhat longer, for the answer says whether it was done.
      elapsed, _, err = pools.timed(function()
        return pools.open({ max_size = 1 }):execute("INSERT INTO late_rows VALUES (3)", nil, soon())
      end)
      assert.is_truthy(("UNKNOWN_OUTCOME TIMEOUT"):find(err.code, 1, true), tostring(err))
      assert.is_true(elapsed < TIMEOUT + 6, tostring(elapsed))
      pools.wait_until("the connection is given up", function()
        return pool:stats().used == 0
      end)
      signals.thaw(pools.private, "shard1")
      frozen = false
    end)
    -- Others may have had the processor: what is looked for is a PQcancel that waits for the server.
    assert.is_true(longest < 10 * STALL, ("the loop stood still for %g s"):format(longest))
    assert.are_not.equal(before, session().pid)
  end)
end)
