local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local sockets = require("spec.support.sockets")
local task = require("lunashard.task")

local failure = cluster.failure
local TIMEOUT = 0.4
local LATE = 3 -- seconds over a deadline that a busy machine may take

-- A router one of whose shards is not where it is said to be.
local function with_port(port, overrides)
  local options = cluster.options(overrides)
  options.shards[2].host, options.shards[2].port = "127.0.0.1", port
  local manager = lunashard.manager(options)
  cluster.warnings(function()
    assert(manager:initialize())
  end)
  return lunashard.router({ shard_manager = manager }), manager
end

-- Seconds that a call took, and its error.
local function timed(fn)
  local started = task.now()
  local value, err = fn()
  local elapsed = task.now() - started
  assert.is_nil(value)
  assert.is_true(errors.is(err), tostring(err))
  assert.is_true(elapsed >= TIMEOUT * 0.9, ("%s after %gs"):format(tostring(err), elapsed))
  assert.is_true(elapsed < TIMEOUT + LATE, ("%s after %gs"):format(tostring(err), elapsed))
  return err, elapsed
end

local function check_fields(err, manager, number)
  assert.equal(manager.shards[number].shard_id, err.shard_id)
  assert.equal(("%s:%d"):format(manager.shards[number].host, manager.shards[number].port), err.endpoint)
  assert.is_true(err.elapsed >= TIMEOUT * 0.9 and err.elapsed < TIMEOUT + LATE, tostring(err.elapsed))
end

describe("one timeout", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect()
    assert(router:execute_on_all_shards("CREATE TABLE budget_rows (user_id int8 PRIMARY KEY)"))
  end)
  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE budget_rows"))
    cluster.release()
  end)

  it("bounds a statement, and the error says that it was the first attempt", function()
    local err = timed(function()
      return router:execute("SELECT pg_sleep(30)", nil, { shard_id = "shard2", timeout = TIMEOUT })
    end)
    assert.equal("TIMEOUT", err.code)
    check_fields(err, manager, 2)
    assert.equal(1, err.attempts)
    assert.is_truthy(err.message:find("while running on the server; it was the first attempt", 1, true), err.message)
  end)

  it("bounds all retries together, however many are allowed", function()
    local broken, its_manager = with_port(sockets.closed_port())
    local started = task.now()
    local err = failure("SHARD_DOWN", broken:execute("SELECT 1", nil,
      { shard_id = "shard2", timeout = TIMEOUT, retries = 1000 }))
    local elapsed = task.now() - started
    assert.is_true(elapsed < TIMEOUT + LATE)
    assert.is_true(err.attempts > 1 and err.attempts < 20, tostring(err.attempts))
    assert.is_true(err.elapsed <= elapsed and err.elapsed > elapsed - 0.1, "the time of all attempts counts")
    assert.equal("shard2", err.shard_id)
    its_manager:shutdown()
  end)

  it("bounds connecting to a server that says nothing", function()
    local silent = sockets.silent_server()
    finally(silent.close)
    local broken, its_manager = with_port(silent.port, { connection_timeout = 0.5 })
    local err = timed(function()
      return broken:execute("SELECT 1", nil, { shard_id = "shard2", timeout = TIMEOUT, read_only = true })
    end)
    assert.is_true(err.code == "TIMEOUT" or err.code == "SHARD_DOWN", tostring(err))
    check_fields(err, its_manager, 2)
    its_manager:shutdown()
  end)

  it("bounds a scatter: each shard has what is left, and the others' answers are kept", function()
    local started = task.now()
    local result = assert(router:scatter_gather("SELECT pg_sleep(CASE WHEN current_database() LIKE '%2' THEN 30 ELSE 0 END)",
      nil, { timeout = TIMEOUT, on_failure = "partial" }))
    assert.is_true(task.now() - started < TIMEOUT + LATE)
    assert.equal(1, #result.failed)
    assert.equal("TIMEOUT", result.failed[1].error.code)
    check_fields(result.failed[1].error, manager, 2)
  end)

  it("bounds a scatter's shards that wait for their turn", function()
    local err = timed(function()
      return router:scatter_gather("SELECT pg_sleep(30)", nil, { timeout = TIMEOUT, max_parallel_shards = 1,
        on_failure = "partial" })
    end)
    assert.equal(3, #err.failed)
    assert.is_true(err.elapsed >= TIMEOUT * 0.9)
    for i, failed in ipairs(err.failed) do
      check_fields(failed.error, manager, i)
    end
  end)

  it("bounds a reducer", function()
    local err = timed(function()
      return router:scatter_gather("SELECT 1 AS n, pg_sleep(30)", nil, { timeout = TIMEOUT, on_failure = "partial",
        aggregation_func = lunashard.aggregate.group_by({ keys = { "n" }, total = "sum" }) })
    end)
    check_fields(err.failed[1].error, manager, 1)
  end)

  it("bounds a transaction, wherever its time went", function()
    local err = timed(function()
      return router:transaction({ shard_id = "shard2", timeout = TIMEOUT }, function(tx)
        task.sleep(TIMEOUT / 2)
        return tx:execute("SELECT pg_sleep(30)")
      end)
    end)
    assert.equal("TIMEOUT", err.code, tostring(err))
    check_fields(err, manager, 2)
    assert.is_true(err.cause.elapsed < err.elapsed, "the statement's own time is in the cause")
    err = timed(function()
      return router:transaction({ shard_id = "shard2", timeout = TIMEOUT }, function()
        task.sleep(TIMEOUT)
      end)
    end)
    assert.equal("TIMEOUT", err.code)
    check_fields(err, manager, 2)
  end)

  it("bounds execute_many, in transactions and without", function()
    for _, transaction in ipairs({ true, false }) do
      local err = timed(function()
        return router:execute_many("SELECT pg_sleep($1)", { { 30 }, { 30 } },
          { shard_id = "shard2", timeout = TIMEOUT, transaction = transaction })
      end)
      assert.equal("SHARDS_FAILED", err.code)
      assert.is_true(err.elapsed >= TIMEOUT * 0.9)
      assert.equal("TIMEOUT", err.failed[1].error.code)
      check_fields(err.failed[1].error, manager, 2)
    end
  end)

  it("bounds a stream", function()
    local err = timed(function()
      local ok, problem = pcall(function()
        for _ in router:stream("SELECT pg_sleep(30)", nil, { shard_id = "shard2", timeout = TIMEOUT }) do
        end
      end)
      return ok or nil, problem
    end)
    assert.equal("TIMEOUT", err.code)
    check_fields(err, manager, 2)
  end)

  it("bounds copy_in while the caller's rows are waited for", function()
    local err = timed(function()
      local n = 0
      return router:copy_in("budget_rows", { "user_id" }, function()
        n = n + 1
        task.sleep(0.05)
        return { n }
      end, { timeout = TIMEOUT })
    end)
    assert.equal("SHARDS_FAILED", err.code)
    assert.equal("TIMEOUT", err.failed[1].error.code)
    assert.equal(0, assert(router:scatter_gather("SELECT count(*) AS count FROM budget_rows", nil,
      { aggregation_func = lunashard.aggregate.sum("count") })).rows[1].count)
  end)

  it("bounds copy_out", function()
    local err = timed(function()
      return router:copy_out("SELECT pg_sleep(30)", function() end, { timeout = TIMEOUT })
    end)
    assert.equal("TIMEOUT", err.failed[1].error.code)
    assert.is_true(err.failed[1].error.elapsed >= TIMEOUT * 0.9)
  end)

  it("bounds execute_on_all_shards", function()
    local err = timed(function()
      return router:execute_on_all_shards("SELECT pg_sleep(30)", { timeout = TIMEOUT })
    end)
    for i, failed in ipairs(err.failed) do
      check_fields(failed.error, manager, i)
    end
  end)
end)
