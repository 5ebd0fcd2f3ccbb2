local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")
local sockets = require("spec.support.sockets")
local task = require("lunashard.task")

local failure = cluster.failure

describe("router:execute", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect()
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_router CASCADE; CREATE SCHEMA e_router;
      CREATE TABLE e_router.users (user_id int8 PRIMARY KEY, name text, doc jsonb);
      CREATE TABLE e_router.parent (k int8) PARTITION BY HASH (k)]]))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_router CASCADE"))
    cluster.release()
  end)

  after_each(function()
    assert(router:execute_on_all_shards("TRUNCATE e_router.users"))
  end)

  local function insert(key)
    return router:execute("INSERT INTO e_router.users VALUES ($1, $2)", { key, "user " .. key }, { routing_key = key })
  end

  it("writes a row to the shard that owns its key and to no other", function()
    for key = 1, 30 do
      local result = assert(insert(key))
      assert.equal(manager:get_shard_for_write(key).shard_id, result.shard_id)
      assert.equal(1, result.row_count)
    end
    local seen = 0
    for _, info in ipairs(manager.shards) do
      local found = assert(router:execute("SELECT user_id FROM e_router.users", nil, { shard_id = info.shard_id }))
      for _, row in ipairs(found.rows) do
        assert.equal(info.shard_id, manager:get_shard_for_write(row.user_id).shard_id)
        seen = seen + 1
      end
    end
    assert.equal(30, seen)
  end)

  it("puts keys where PostgreSQL's own hash partitioning puts them", function()
    local sql = "SELECT satisfies_hash_partition('e_router.parent'::regclass, 3, $1::int, $2::int8) AS here"
    local position = {}
    for i, info in ipairs(manager.shards) do
      position[info.shard_id] = i - 1
    end
    for _, key in ipairs({ 0, 1, -1, 42, 12345, 2 ^ 53, 9223372036854775807LL, -9223372036854775807LL - 1 }) do
      local home = manager:get_shard_for_write(key).shard_id
      assert.is_true(assert(router:execute(sql, { position[home], key }, { routing_key = key })).rows[1].here)
      assert.is_false(assert(router:execute(sql, { (position[home] + 1) % 3, key }, { routing_key = key })).rows[1].here)
    end
  end)

  it("tells all about a result", function()
    insert(7)
    local result = assert(router:execute("SELECT user_id, name FROM e_router.users WHERE user_id = $1", { 7 },
      { routing_key = 7 }))
    local home = manager:get_shard_for_write(7)
    assert.same({ { user_id = 7, name = "user 7" } }, result.rows)
    assert.same({ "user_id", "name" }, result.columns)
    assert.same({ "int8", "text" }, result.column_types)
    assert.equal("SELECT", result.command)
    assert.equal(1, result.row_count)
    assert.equal(1, result.attempts)
    assert.equal(home.shard_id, result.shard_id)
    assert.equal(home.host .. ":" .. home.port, result.endpoint)
    assert.is_true(result.success)
    assert.is_true(result.duration > 0 and result.duration < 5)
  end)

  it("finds a key in whatever form it comes", function()
    insert(12345)
    for _, key in ipairs({ 12345, 12345.0, 12345LL, 12345ULL, "12345" }) do
      local result = assert(router:execute("SELECT name FROM e_router.users WHERE user_id = 12345", nil,
        { routing_key = key, table = "users" }))
      assert.equal(1, result.row_count, type(key))
    end
  end)

  it("without a key refuses and says what to do", function()
    local err = failure("NO_KEY", router:execute("SELECT 1"))
    for _, word in ipairs({ "routing_key", "shard_id", "scatter_gather" }) do
      assert.is_truthy(err.message:find(word, 1, true), err.message)
    end
    failure("NO_KEY", router:execute("SELECT 1", nil, { routing_key = nil, timeout = 1 }))
  end)

  it("refuses NULL and NaN as keys", function()
    failure("NULL_KEY", router:execute("SELECT 1", nil, { routing_key = lunashard.null }))
    failure("NULL_KEY", router:execute("SELECT 1", nil, { routing_key = 0 / 0 }))
  end)

  it("refuses a shard that is not there and one that contradicts the key", function()
    local err = failure("NO_SHARD", router:execute("SELECT 1", nil, { shard_id = "shard11" }))
    assert.is_truthy(err.message:find('"shard1"', 1, true), err.message)
    local other = manager:get_shard_for_write(1).shard_id == "shard1" and "shard2" or "shard1"
    failure("KEY_MISMATCH", router:execute("SELECT 1", nil, { routing_key = 1, shard_id = other }))
  end)

  it("refuses transaction control, even when it hides, and touches no connection", function()
    local before = router:get_statistics().total_queries
    for _, sql in ipairs({ "BEGIN", "/* x */ COMMIT", "; ROLLBACK", "start transaction", "SAVEPOINT a" }) do
      local err = failure("INVALID", router:execute(sql, nil, { routing_key = 1 }))
      assert.is_truthy(err.message:find("router:transaction", 1, true), err.message)
    end
    assert.equal(before, router:get_statistics().total_queries)
  end)

  it("refuses COPY with the client and an empty statement", function()
    local err = failure("INVALID", router:execute("COPY e_router.users FROM STDIN", nil, { routing_key = 1 }))
    assert.is_truthy(err.message:find("copy_in", 1, true), err.message)
    failure("INVALID", router:execute("  -- nothing", nil, { routing_key = 1 }))
  end)

  it("runs nothing of several statements in one string, and says how it is done", function()
    local err = failure("SQL", router:execute("DELETE FROM e_router.users; SELECT 1", nil, { routing_key = 1 }))
    assert.equal("42601", err.sqlstate)
    assert.is_truthy(err.hint:find("execute_on_all_shards", 1, true), tostring(err.hint))
  end)

  it("gives a server's error its SQLSTATE, position, shard and endpoint", function()
    local err = failure("SQL", router:execute("SELECT nope FROM e_router.users", nil, { routing_key = 1 }))
    assert.equal("42703", err.sqlstate)
    assert.equal(8, tonumber(err.position))
    assert.equal(manager:get_shard_for_write(1).shard_id, err.shard_id)
    assert.is_truthy(err.endpoint:find(":%d+$"))
    assert.is_false(err.retryable)
  end)

  it("raises for what can only be a mistake in the program", function()
    local function raises(pattern, ...)
      local ok, message = pcall(router.execute, router, ...)
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find(pattern, 1, true), tostring(message))
    end
    raises('"routing_key"', "SELECT 1", nil, { routing_kye = 1 })
    raises("timeout", "SELECT 1", nil, { routing_key = 1, timeout = 0 })
    raises("timeout", "SELECT 1", nil, { routing_key = 1, timeout = "5" })
    raises("expected SQL as a string", nil, nil, { routing_key = 1 })
    raises("expected parameters as a table", "SELECT 1", 7, { routing_key = 1 })
    raises("options must be a table", "SELECT 1", nil, 7)
  end)

  it("refuses a write that is declared read only", function()
    failure("INVALID", router:execute("DELETE FROM e_router.users", nil, { routing_key = 1, read_only = true }))
  end)

  it("ends a statement at its timeout and on the server too", function()
    local started = task.now()
    failure("TIMEOUT", router:execute("SELECT pg_sleep(30) /* e_router */", nil,
      { routing_key = 1, timeout = 0.3, read_only = true }))
    assert.is_true(task.now() - started < 3)
    cluster.wait_until("the server has stopped it", function()
      local busy = assert(router:execute(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(30) /* e_router%' "
          .. "AND pid <> pg_backend_pid()", nil, { routing_key = 1 }))
      return busy.rows[1].n == 0
    end)
  end)

  it("uses the router's query_timeout when none is given", function()
    local impatient = lunashard.router({ shard_manager = manager, query_timeout = 0.2 })
    failure("TIMEOUT", impatient:execute("SELECT pg_sleep(30)", nil, { routing_key = 1, read_only = true }))
  end)

  it("refuses a result beyond max_result_bytes and works on", function()
    local err = failure("RESULT_TOO_LARGE", router:execute("SELECT repeat('x', 1000) FROM generate_series(1, 1000)", nil,
      { routing_key = 1, max_result_bytes = 10000 }))
    assert.equal(manager:get_shard_for_write(1).shard_id, err.shard_id)
    assert.equal(1, assert(router:execute("SELECT 1 AS one", nil, { routing_key = 1 })).rows[1].one)
  end)

  it("decodes JSON only when asked", function()
    insert(3)
    local update = "UPDATE e_router.users SET doc = $2 WHERE user_id = $1"
    assert(router:execute(update, { 3, lunashard.json({ a = { 1, 2 } }) }, { routing_key = 3 }))
    local sql = "SELECT doc FROM e_router.users WHERE user_id = 3"
    assert.same({ a = { 1, 2 } }, router:execute(sql, nil, { routing_key = 3, decode_json = true }).rows[1].doc)
    assert.equal("string", type(router:execute(sql, nil, { routing_key = 3 }).rows[1].doc))
  end)

  it("counts what it does", function()
    local counting = lunashard.router(manager)
    for key = 1, 9 do
      counting:execute("SELECT 1", nil, { routing_key = key })
    end
    counting:execute("SELECT nope", nil, { routing_key = 1 })
    local seen, sum = counting:get_statistics(), 0
    for _, n in pairs(seen.queries_by_shard) do
      sum = sum + n
    end
    assert.equal(10, seen.total_queries)
    assert.equal(10, sum)
    assert.equal(1, seen.errors)
    assert.same({ SQL = 1 }, seen.errors_by_code)
    assert.is_true(seen.p50_latency_ms > 0 and seen.p50_latency_ms <= seen.p99_latency_ms)
  end)

  it("runs a statement everywhere with all_shards, and does not with a key as well", function()
    insert(1)
    local result = assert(router:execute("UPDATE e_router.users SET name = 'all'", nil, { all_shards = true }))
    assert.equal(1, result.row_count)
    failure("INVALID", router:execute("SELECT 1", nil, { all_shards = true, routing_key = 1 }))
  end)

  it("holds 10,000 tasks on 20 connections without an error", function()
    local wide, wide_manager = cluster.connect({ connection_pool_size = 20 })
    local done, failed, tasks = 0, nil, {}
    for i = 1, 10000 do
      tasks[i] = task.spawn(function()
        local result, err = wide:execute("SELECT $1::int8 AS n", { i }, { routing_key = i })
        if result and result.rows[1].n == i then
          done = done + 1
        else
          failed = failed or err or "wrong row"
        end
      end)
    end
    for _, one in ipairs(tasks) do
      assert(one:join())
    end
    assert.is_nil(failed)
    assert.equal(10000, done)
    for _, info in ipairs(wide_manager.shards) do
      assert.is_true(wide_manager:get_pool_stats(info.shard_id).size <= 20)
    end
    wide_manager:shutdown()
  end)

  it("reports more waiters than allowed as POOL_EXHAUSTED", function()
    local narrow, narrow_manager = cluster.connect({ connection_pool_size = 1, max_waiters = 1 })
    local key = cluster.key_on(narrow_manager, 1)
    local codes, tasks = {}, {}
    for i = 1, 4 do
      tasks[i] = task.spawn(function()
        local _, err = narrow:execute("SELECT pg_sleep(0.2)", nil, { routing_key = key })
        codes[#codes + 1] = err and err.code or "ok"
      end)
    end
    for _, one in ipairs(tasks) do
      assert(one:join())
    end
    table.sort(codes)
    assert.same({ "POOL_EXHAUSTED", "POOL_EXHAUSTED", "ok", "ok" }, codes)
    narrow_manager:shutdown()
  end)
end)

describe("router:execute on a shard that does not work", function()
  after_each(cluster.close_all)
  teardown(cluster.release)

  local function with_port(port, overrides)
    local options = cluster.options(overrides)
    options.shards[2].port = port
    local made
    cluster.warnings(function()
      local manager = lunashard.manager(options)
      assert(manager:initialize())
      made = { lunashard.router(manager), manager }
    end)
    return made[1], made[2]
  end

  it("says SHARD_DOWN after its retries, and serves the others", function()
    local router, manager = with_port(sockets.closed_port(), { retries = 2 })
    local err = failure("SHARD_DOWN", router:execute("SELECT 1", nil, { shard_id = "shard2" }))
    assert.equal(3, err.attempts)
    assert.is_true(err.retryable)
    assert.equal("shard2", err.shard_id)
    assert.equal(2, router:get_statistics().retries)
    assert(router:execute("SELECT 1", nil, { shard_id = "shard1" }))
    assert.is_false(manager.shard_health.shard2.is_healthy)
    manager:shutdown()
  end)

  it("does not retry when told not to", function()
    local router, manager = with_port(sockets.closed_port())
    local err = failure("SHARD_DOWN", router:execute("SELECT 1", nil, { shard_id = "shard2", retries = 0 }))
    assert.equal(1, err.attempts)
    assert.equal(0, router:get_statistics().retries)
    manager:shutdown()
  end)

  it("keeps to the timeout when a server accepts and never answers", function()
    local silent = sockets.silent_server()
    local router, manager = with_port(silent.port, { connection_timeout = 0.3 })
    local started = task.now()
    local result, err = router:execute("SELECT 1", nil, { shard_id = "shard2", timeout = 0.5 })
    assert.is_nil(result)
    assert.is_true(err.code == "TIMEOUT" or err.code == "SHARD_DOWN", tostring(err))
    assert.is_true(task.now() - started < 1.5)
    manager:shutdown()
    silent.close()
  end)
end)

describe("router:execute with replicas", function()
  local own, router, manager

  setup(function()
    own = sandbox.start({ shards = 1, replicas = 1 })
    router, manager = cluster.connect({ cluster_file = own.cluster_file, max_consecutive_failures = 2 })
    assert(router:execute_on_all_shards("CREATE TABLE e_replicated (id int8 PRIMARY KEY)"))
  end)

  teardown(function()
    cluster.close_all()
    own:destroy()
  end)

  local function is_standby(opts)
    return assert(router:execute("SELECT pg_is_in_recovery() AS standby", nil, opts)).rows[1].standby
  end

  it("reads from a replica when asked, and writes to the primary", function()
    assert.is_true(is_standby({ routing_key = 1, read_only = true }))
    assert.is_false(is_standby({ routing_key = 1 }))
    local home = manager.shards[1]
    local _, endpoint = manager:get_shard_for_read(1)
    assert.equal(home.replicas[1].host .. ":" .. home.replicas[1].port, endpoint)
  end)

  it("reports both endpoints with their roles", function()
    local status = manager:get_shard_status("shard1")
    assert.equal("primary", status.endpoints[1].role)
    assert.equal("replica", status.endpoints[2].role)
    assert.equal("healthy", status.endpoints[2].status)
    assert.equal(1, #manager:get_pool_stats("shard1").replicas)
  end)

  it("streams and gathers from the replica too", function()
    local result = assert(router:scatter_gather("SELECT pg_is_in_recovery() AS standby", nil, { read_only = true }))
    assert.is_true(result.rows[1].standby)
    for row in router:stream("SELECT pg_is_in_recovery() AS standby", nil, { read_only = true }) do
      assert.is_true(row.standby)
    end
  end)

  it("falls back to the primary when the replica is gone, and then leaves the replica alone", function()
    own:kill("shard1_replica1")
    for _ = 1, 4 do
      assert.is_false(is_standby({ routing_key = 1, read_only = true }))
    end
    cluster.wait_until("a probe has confirmed it", function()
      return manager:get_shard_status("shard1").endpoints[2].status == "unhealthy"
    end)
    local fallbacks = router:get_statistics().fallbacks
    assert.is_false(is_standby({ routing_key = 1, read_only = true }))
    assert.equal(fallbacks, router:get_statistics().fallbacks)
    assert.is_true(manager.shard_health.shard1.is_healthy)
  end)
end)
