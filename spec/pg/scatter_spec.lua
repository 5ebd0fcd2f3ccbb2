local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local sockets = require("spec.support.sockets")
local task = require("lunashard.task")

local failure = cluster.failure

local ROWS = 60

describe("router:scatter_gather", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect()
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_scatter CASCADE; CREATE SCHEMA e_scatter;
      CREATE TABLE e_scatter.users (user_id int8 PRIMARY KEY, is_active bool NOT NULL, score int8 NOT NULL)]]))
    local list = {}
    for key = 1, ROWS do
      list[key] = { key, key % 3 ~= 0, key * 10 }
    end
    assert(router:execute_many("INSERT INTO e_scatter.users VALUES ($1, $2, $3)", list, { key = 1 }))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_scatter CASCADE"))
    cluster.release()
  end)

  it("joins the rows of all shards in the shards' order", function()
    local result = assert(router:scatter_gather("SELECT user_id FROM e_scatter.users"))
    assert.equal(ROWS, #result.rows)
    assert.equal(ROWS, result.row_count)
    assert.is_true(result.complete)
    assert.same({}, result.failed)
    local at = 1
    for _, info in ipairs(manager.shards) do
      for _, row in ipairs(result.shard_results[info.shard_id].rows) do
        assert.equal(row, result.rows[at])
        assert.equal(info.shard_id, manager:get_shard_for_write(row.user_id).shard_id)
        at = at + 1
      end
    end
    assert.equal(ROWS + 1, at)
  end)

  it("sums with a ready aggregate", function()
    local result = assert(router:scatter_gather("SELECT count(*) AS count FROM e_scatter.users WHERE is_active = $1", { true },
      { aggregation_func = lunashard.aggregate.sum("count") }))
    assert.same({ { count = 40 } }, result.rows)
    assert.equal(1, result.row_count)
  end)

  it("gives a function the shards' results, as in the guide, and takes a row from it", function()
    local seen
    local result = assert(router:scatter_gather("SELECT count(*) AS count FROM e_scatter.users", nil, {
      aggregation_func = function(results)
        seen = results
        local total = 0
        for _, r in ipairs(results) do
          if r.success and #r.rows > 0 then
            total = total + r.rows[1].count
          end
        end
        return { total = total }
      end,
    }))
    assert.same({ { total = ROWS } }, result.rows)
    assert.equal(3, #seen)
    for i, info in ipairs(manager.shards) do
      assert.equal(info.shard_id, seen[i].shard_id)
      assert.same({ "count" }, seen[i].columns)
    end
  end)

  it("takes a list of rows from a function too, an empty one included", function()
    local function rows_of(list)
      return assert(router:scatter_gather("SELECT 1", nil, { aggregation_func = function() return list end })).rows
    end
    assert.same({ { a = 1 }, { a = 2 } }, rows_of({ { a = 1 }, { a = 2 } }))
    assert.same({}, rows_of({}))
  end)

  it("reports a function that raises as PLUGIN_FAILED with its traceback", function()
    local err = failure("PLUGIN_FAILED", router:scatter_gather("SELECT 1", nil, {
      aggregation_func = function(results)
        return results[99].rows
      end,
    }))
    assert.is_truthy(err.message:find("scatter_spec.lua", 1, true), err.message)
    assert.is_truthy(err.traceback:find("traceback", 1, true))
  end)

  it("reports a function that returns nonsense as PLUGIN_FAILED", function()
    for _, value in ipairs({ 7, "x", true, { 1, 2 } }) do
      failure("PLUGIN_FAILED", router:scatter_gather("SELECT 1", nil, { aggregation_func = function() return value end }))
    end
    failure("PLUGIN_FAILED", router:scatter_gather("SELECT 1", nil, { aggregation_func = function() end }))
  end)

  it("passes an error object on that a function returns", function()
    failure("NOT_MERGEABLE", router:scatter_gather("SELECT 1", nil, {
      aggregation_func = function()
        return nil, errors.new("NOT_MERGEABLE", { message = "no" })
      end,
    }))
  end)

  it("folds rows one by one through a reducer of one's own, merged in the shards' order", function()
    local reducer = {
      init = function() return { sum = 0, shards = {} } end,
      step = function(_, acc, row, shard_id, types)
        assert(types.score == "int8")
        acc.sum = acc.sum + row.score
        acc.shards[#acc.shards + 1] = acc.shards[#acc.shards] ~= shard_id and shard_id or nil
        return acc
      end,
      merge = function(_, a, b)
        a.sum = a.sum + b.sum
        for _, id in ipairs(b.shards) do
          a.shards[#a.shards + 1] = id
        end
        return a
      end,
      finish = function(_, acc) return { sum = acc.sum, shards = table.concat(acc.shards, " ") } end,
    }
    local result = assert(router:scatter_gather("SELECT score FROM e_scatter.users", nil, { aggregation_func = reducer }))
    assert.same({ { sum = ROWS * (ROWS + 1) / 2 * 10, shards = "shard1 shard2 shard3" } }, result.rows)
    local counted = 0
    for _, one in pairs(result.shard_results) do
      counted = counted + one.row_count
    end
    assert.equal(ROWS, counted)
  end)

  it("folds answers of a few rows without connections of their own, and those that outgrow memory as before", function()
    local SQL = "SELECT n, repeat('x', 50) AS filling FROM generate_series(1, $1::int) AS n"
    local how = { aggregation_func = lunashard.aggregate.sum("n") }
    local function sum_to(n)
      assert.equal(n > 0 and 3 * n * (n + 1) / 2 or nil, assert(router:scatter_gather(SQL, { n }, how)).rows[1].n)
    end
    local function batched()
      local n = 0
      for _, member in ipairs(manager.members) do
        n = n + member.primary.pool:stats().batched
      end
      return n
    end
    cluster.wait_until("the statement is known", function()
      local before = batched()
      sum_to(3)
      return batched() == before + 3
    end)
    sum_to(0)
    sum_to(40000)
    local before = batched()
    sum_to(3)
    assert.equal(before, batched()) -- it has given many rows
  end)

  it("reports a reducer that raises as PLUGIN_FAILED and gives its connections back", function()
    local reducer = {
      init = function() return {} end,
      step = function() error("no good") end,
      merge = function(_, a) return a end,
      finish = function(_, a) return a end,
    }
    local err = failure("SHARDS_FAILED", router:scatter_gather("SELECT score FROM e_scatter.users", nil,
      { aggregation_func = reducer }))
    assert.equal("PLUGIN_FAILED", err.failed[1].error.code)
    for said, step in pairs({
      ["must return the accumulator"] = function() end,
      ["no such thing"] = function() return nil, "no such thing" end,
    }) do
      reducer.step = step
      err = failure("SHARDS_FAILED", router:scatter_gather("SELECT score FROM e_scatter.users", nil,
        { aggregation_func = reducer }))
      assert.equal("PLUGIN_FAILED", err.failed[1].error.code)
      assert.is_truthy(err.failed[1].error.message:find(said, 1, true), err.failed[1].error.message)
    end
    cluster.wait_until("the connections are back", function()
      return manager:get_pool_stats("shard1").used == 0
    end)
  end)

  it("sorts and limits over all shards as one server would", function()
    local result = assert(router:scatter_gather("SELECT user_id FROM e_scatter.users ORDER BY user_id DESC", nil,
      { aggregation_func = lunashard.aggregate.top_n({ n = 5, by = "user_id desc" }) }))
    local ids = {}
    for i, row in ipairs(result.rows) do
      ids[i] = row.user_id
    end
    assert.same({ 60, 59, 58, 57, 56 }, ids)
  end)

  it("asks each shard for no more rows than a limit can use", function()
    local result = assert(router:scatter_gather("SELECT user_id FROM e_scatter.users ORDER BY user_id", nil,
      { aggregation_func = lunashard.aggregate.limit(2) }))
    assert.equal(2, #result.rows)
    for _, one in pairs(result.shard_results) do
      assert.equal(2, one.row_count)
    end
  end)

  it("asks only the shards that are named", function()
    local result = assert(router:scatter_gather("SELECT current_database() AS db", nil, { shard_ids = { "shard3", "shard1" } }))
    assert.equal(2, #result.rows)
    assert.is_nil(result.shard_results.shard2)
    assert.is_truthy(result.rows[1].db:find("1$"))
    failure("NO_SHARD", router:scatter_gather("SELECT 1", nil, { shard_ids = { "shard1", "shard9" } }))
  end)

  it("never takes no shard, a set or a list with a gap for all that was meant", function()
    for _, shard_ids in ipairs({ {}, { shard1 = true }, { "shard1", nil, "shard3" } }) do
      local opts = { shard_ids = shard_ids }
      failure("INVALID", router:scatter_gather("SELECT 1", nil, opts))
      failure("INVALID", router:execute_on_all_shards("SELECT 1", opts))
      local ok, err = pcall(router:stream("SELECT 1", nil, opts))
      assert.is_false(ok)
      assert.is_true(errors.is(err, "INVALID"), tostring(err))
    end
  end)

  it("asks no more shards at a time than max_parallel_shards", function()
    local function sessions(limit)
      local running, most = 0, 0
      local original = router.run_on
      local counting = setmetatable({
        run_on = function(self, ...)
          running = running + 1
          most = math.max(most, running)
          local result, err = original(self, ...)
          running = running - 1
          return result, err
        end,
      }, { __index = router })
      assert(counting:scatter_gather("SELECT pg_sleep(0.05)", nil, { max_parallel_shards = limit }))
      return most
    end
    assert.equal(1, sessions(1))
    assert.equal(2, sessions(2))
    assert.equal(3, sessions(nil))
  end)

  it("runs on the shards at the same time", function()
    local started = task.now()
    assert(router:scatter_gather("SELECT pg_sleep(0.4)"))
    assert.is_true(task.now() - started < 1.0, "took " .. task.now() - started)
  end)

  it("refuses a write unless it is meant for all shards", function()
    local sql = "UPDATE e_scatter.users SET score = score WHERE user_id <= $1"
    local err = failure("INVALID", router:scatter_gather(sql, { 10 }))
    assert.is_truthy(err.message:find("all_shards = true", 1, true), err.message)
    failure("INVALID", router:scatter_gather("WITH x AS (DELETE FROM e_scatter.users RETURNING 1) SELECT count(*) FROM x"))
    local result = assert(router:scatter_gather(sql, { 10 }, { all_shards = true }))
    assert.equal(10, result.row_count)
  end)

  it("raises for options that cannot be meant", function()
    for _, opts in ipairs({
      { on_failure = "ignore" }, { aggregation_func = 7 }, { aggregation_func = {} }, { max_parallel_shards = 0 },
      { routing_key = 1 }, { agregation_func = print },
    }) do
      assert.has_error(function() router:scatter_gather("SELECT 1", nil, opts) end)
    end
  end)

  describe("when a shard fails", function()
    -- A division by zero on shard2 alone.
    local BREAKS = "SELECT 1 / (CASE WHEN current_database() LIKE '%2' THEN 0 ELSE 1 END) AS one"

    it("fails as a whole and names the shard with its own error", function()
      local err = failure("SHARDS_FAILED", router:scatter_gather(BREAKS))
      assert.equal(1, #err.failed)
      assert.equal("shard2", err.failed[1].shard_id)
      assert.equal("22012", err.failed[1].error.sqlstate)
      assert.is_truthy(tostring(err):find("shard2", 1, true))
    end)

    it("cancels the others at once, on their servers too", function()
      local started = task.now()
      failure("SHARDS_FAILED", router:scatter_gather(
        "SELECT 1 / (CASE WHEN current_database() LIKE '%2' THEN 0 ELSE 1 END) AS e_scatter_cancel, "
          .. "CASE WHEN current_database() LIKE '%2' THEN '' ELSE pg_sleep(20)::text END"))
      assert.is_true(task.now() - started < 5)
      cluster.wait_until("no server runs it any more", function()
        local busy = assert(router:scatter_gather([[
          SELECT count(*) AS n FROM pg_stat_activity
          WHERE state = 'active' AND query LIKE '%e_scatter_cancel%' AND pid <> pg_backend_pid()]], nil,
          { aggregation_func = lunashard.aggregate.sum("n") }))
        return busy.rows[1].n == 0
      end)
    end)

    it("gives what there is when partial results are accepted, and says what is missing", function()
      local result = assert(router:scatter_gather(BREAKS, nil, { on_failure = "partial" }))
      assert.equal(2, #result.rows)
      assert.is_false(result.complete)
      assert.equal("shard2", result.failed[1].shard_id)
      local missing = result.shard_results.shard2
      assert.is_false(missing.success)
      assert.same({}, missing.rows)
      assert.equal("SQL", missing.error.code)
      assert.is_truthy(missing.error_message:find("division by zero", 1, true))
    end)

    it("shows the failed shard to an aggregation function", function()
      local result = assert(router:scatter_gather(BREAKS, nil, {
        on_failure = "partial",
        aggregation_func = function(results)
          local n = 0
          for _, r in ipairs(results) do
            n = n + (r.success and 1 or 100)
          end
          return { n = n }
        end,
      }))
      assert.same({ { n = 102 } }, result.rows)
    end)

    it("accepts min_shards answers and not one fewer", function()
      assert.is_false(assert(router:scatter_gather(BREAKS, nil, { min_shards = 2 })).complete)
      failure("SHARDS_FAILED", router:scatter_gather(BREAKS, nil, { min_shards = 3 }))
    end)

    it("refuses min_shards that can never answer", function()
      failure("INVALID", router:scatter_gather("SELECT 1", nil, { min_shards = 10 }))
      assert.has_error(function()
        router:scatter_gather("SELECT 1", nil, { min_shards = 0 })
      end)
    end)

    it("fails even so when no shard has answered", function()
      local err = failure("SHARDS_FAILED", router:scatter_gather("SELECT 1 / 0", nil, { on_failure = "partial" }))
      assert.equal(3, #err.failed)
      assert.equal(3, err.total)
    end)

    it("lets writes on the other shards come to their end, so that their outcome is known", function()
      local err = failure("SHARDS_FAILED", router:scatter_gather([[
        UPDATE e_scatter.users SET score = score + (SELECT length(pg_sleep(0.3)::text))
        WHERE user_id < 0 OR 1 / (CASE WHEN current_database() LIKE '%2' THEN 0 ELSE 1 END) = 1]], nil,
        { all_shards = true }))
      assert.equal(1, #err.failed)
      assert.equal("22012", err.failed[1].error.sqlstate)
      assert.same({ "shard1", "shard3" }, err.done)
      assert.is_true(err.shard_results.shard3.success)
      assert.is_true(err.shard_results.shard3.row_count > 0)
      assert.is_truthy(err.message:find("done on shard1, shard3", 1, true), err.message)
    end)
  end)

  it("shares one timeout among all shards", function()
    local started = task.now()
    local err = failure("SHARDS_FAILED", router:scatter_gather("SELECT pg_sleep(20)", nil,
      { timeout = 0.3, on_failure = "partial" }))
    assert.is_true(task.now() - started < 3)
    for _, one in ipairs(err.failed) do
      assert.equal("TIMEOUT", one.error.code)
    end
  end)

  it("ends with the task that waits for it, on the servers too", function()
    local started
    local waiting = task.spawn(function()
      started = true
      return router:scatter_gather("SELECT pg_sleep(20) AS e_scatter_abandoned")
    end):watch()
    cluster.wait_until("all servers run it", function()
      local busy = assert(router:scatter_gather([[
        SELECT count(*) AS n FROM pg_stat_activity
        WHERE state = 'active' AND query LIKE '%e_scatter_abandoned%' AND pid <> pg_backend_pid()]], nil,
        { aggregation_func = lunashard.aggregate.sum("n") }))
      return started and busy.rows[1].n == 3
    end)
    waiting:cancel()
    local ok, err = waiting:join(5)
    assert.is_nil(ok)
    assert.equal("CANCELED", err.code)
  end)
end)

describe("router:scatter_gather with a shard that is down", function()
  teardown(cluster.release)

  it("names it, and gives the others' rows when that is accepted", function()
    local options = cluster.options({ retries = 0 })
    options.shards[3].port = sockets.closed_port()
    local manager
    local warnings = cluster.warnings(function()
      manager = lunashard.manager(options)
      assert(manager:initialize())
    end)
    assert.equal(1, #warnings)
    local router = lunashard.router(manager)
    local err = failure("SHARDS_FAILED", router:scatter_gather("SELECT 1 AS one"))
    assert.equal("SHARD_DOWN", err.failed[1].error.code)
    assert.equal("shard3", err.failed[1].shard_id)
    local result = assert(router:scatter_gather("SELECT 1 AS one", nil, { on_failure = "partial" }))
    assert.equal(2, #result.rows)
    manager:shutdown()
  end)
end)
