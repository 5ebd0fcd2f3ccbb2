local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local retry_budget = require("lunashard.router.retry_budget")
local sockets = require("spec.support.sockets")
local task = require("lunashard.task")

local failure = cluster.failure

-- shard2 is not where it is said to be; nothing probes it besides.
local function broken(overrides)
  local options = cluster.options(overrides)
  options.shards[2].host, options.shards[2].port = "127.0.0.1", sockets.closed_port()
  local manager = lunashard.manager(options)
  cluster.warnings(function()
    assert(manager:initialize())
  end)
  return lunashard.router({ shard_manager = manager }), manager
end

describe("retries", function()
  teardown(cluster.release)

  it("are bounded when everything fails at once, and the errors say so", function()
    local router, manager = broken({ retry_budget = 0, retries = 5 })
    local refused, others, calls = 0, 0, {}
    for i = 1, 200 do
      calls[i] = task.spawn(function()
        local result, err = router:execute("SELECT 1", nil, { shard_id = "shard2", timeout = 20, read_only = true })
        failure("SHARD_DOWN", result, err)
        local says = err.message:find("not tried again, for the retry budget is used up (0 % of recent requests)", 1, true)
        refused, others = refused + (says and 1 or 0), others + (says and 0 or 1)
      end)
    end
    for _, call in ipairs(calls) do
      assert(call:join(60))
    end
    local statistics = router:get_statistics()
    assert.is_true(statistics.retries >= retry_budget.LEAST, tostring(statistics.retries))
    -- The work may have taken longer than the window.
    assert.is_true(statistics.retries <= 3 * retry_budget.LEAST, tostring(statistics.retries))
    assert.is_true(refused >= 100, ("%d refused, %d not"):format(refused, others))
    assert.equal(refused, statistics.retries_refused)
    assert.equal(statistics.retries, statistics.retries_by_reason.SHARD_DOWN)
    manager:shutdown()
  end)

  it("may be a share of the requests that are answered meanwhile", function()
    local router, manager = broken({ retry_budget = 0.5, retries = 1 })
    for _ = 1, 400 do
      assert(router:execute("SELECT 1", nil, { shard_id = "shard1" }))
    end
    local calls = {}
    for i = 1, 250 do
      calls[i] = task.spawn(function()
        failure("SHARD_DOWN", router:execute("SELECT 1", nil, { shard_id = "shard2", timeout = 20, read_only = true }))
      end)
    end
    for _, call in ipairs(calls) do
      assert(call:join(60))
    end
    assert.equal(250, router:get_statistics().retries)
    assert.equal(0, router:get_statistics().retries_refused)
    manager:shutdown()
  end)

  it("are made for the connections of streams and bulk loads too", function()
    local router, manager = broken({ retries = 2 })
    local function attempts_of(err)
      assert.equal("SHARD_DOWN", err.code, tostring(err))
      assert.equal("shard2", err.shard_id)
      return err.attempts
    end
    for _, how in ipairs({ { shard_id = "shard2" }, { shard_id = "shard2", read_only = true } }) do
      local ok, err = pcall(function()
        for _ in router:stream("SELECT 1", nil, how) do
        end
      end)
      assert.is_false(ok)
      assert.equal(3, attempts_of(err))
    end
    local _, err = router:copy_out("SELECT 1", function() end, { shard_id = "shard2" })
    assert.equal(3, attempts_of(err.failed[1].error))
    _, err = router:copy_in("users", { "user_id" }, { { cluster.key_on(manager, 2) } })
    assert.equal(3, attempts_of(err.failed[1].error))
    assert.equal(8, router:get_statistics().retries)
    manager:shutdown()
  end)

  it("are counted by their reason", function()
    local router, manager = cluster.connect()
    assert(router:execute_on_all_shards("CREATE TABLE retry_rows (id int8 PRIMARY KEY, n int8)"))
    finally(function()
      assert(router:execute_on_all_shards("DROP TABLE retry_rows"))
      manager:shutdown()
    end)
    assert(router:execute("INSERT INTO retry_rows VALUES (1, 0)", nil, { shard_id = "shard1" }))
    local tries = 0
    assert(router:transaction({ shard_id = "shard1", isolation = "repeatable read", retries = 3 }, function(tx)
      tries = tries + 1
      assert(tx:execute("SELECT n FROM retry_rows"))
      if tries == 1 then
        assert(router:execute("UPDATE retry_rows SET n = n + 1", nil, { shard_id = "shard1" }))
      end
      return tx:execute("UPDATE retry_rows SET n = n + 10")
    end))
    assert.equal(2, tries)
    assert.same({ ["40001"] = 1 }, router:get_statistics().retries_by_reason)
    assert.equal(1, router:get_statistics().retries)
  end)

  it("are checked as an option, for a manager and for a router", function()
    for _, wrong in ipairs({ -0.1, "a lot", 0 / 0 }) do
      local ok, message = pcall(cluster.manager, { retry_budget = wrong })
      assert.is_false(ok)
      assert.is_truthy(message:find("retry_budget: expected a number, 0 or more", 1, true), message)
    end
    local manager = cluster.manager({ retry_budget = 0.3 })
    assert.equal(0.3, lunashard.router({ shard_manager = manager }).retry_budget.share)
    assert.equal(0.1, lunashard.router({ shard_manager = manager, retry_budget = 0.1 }).retry_budget.share)
  end)
end)

describe("writes that are refused", function()
  local router, manager, member

  setup(function()
    router, manager = cluster.connect({ retries = 1, health_check_interval = 3600 })
    assert(router:execute_on_all_shards("CREATE TABLE refused_rows (user_id int8 PRIMARY KEY)"))
    member = manager:member("shard2")
  end)
  teardown(function()
    member.write_refusal = nil
    assert(router:execute_on_all_shards("DROP TABLE refused_rows"))
    cluster.release()
  end)
  after_each(function()
    member.write_refusal = nil
  end)

  it("are SHARD_DOWN with the reason, whichever way they come, and nothing was sent", function()
    member.write_refusal = "two servers say that they are the primary"
    local ways = {
      execute = function()
        return router:execute("INSERT INTO refused_rows VALUES (1)", nil, { shard_id = "shard2" })
      end,
      transaction = function()
        return router:transaction({ shard_id = "shard2" }, function(tx)
          return tx:execute("INSERT INTO refused_rows VALUES (1)")
        end)
      end,
      execute_many = function()
        local result, err = router:execute_many("INSERT INTO refused_rows VALUES ($1)", { { 1 } }, { shard_id = "shard2" })
        return result, err and err.failed[1].error
      end,
      copy_in = function()
        local key = cluster.key_on(manager, 2)
        local result, err = router:copy_in("refused_rows", { "user_id" }, { { key } })
        return result, err and err.failed[1].error
      end,
      execute_on_all_shards = function()
        local result, err = router:execute_on_all_shards("DELETE FROM refused_rows", { shard_ids = { "shard2" } })
        return result, err and err.failed[1].error
      end,
    }
    for name, way in pairs(ways) do
      local err = failure("SHARD_DOWN", way())
      assert.is_truthy(err.message:find("writes are refused: two servers say that they are the primary", 1, true),
        name .. ": " .. err.message)
      assert.equal("shard2", err.shard_id, name)
      assert.equal(member.primary.name, err.endpoint, name)
      assert.is_true(err.retryable, name)
      assert.is_true(err.elapsed >= 0, name)
    end
    member.write_refusal = nil
    assert.equal(0, assert(router:execute("SELECT count(*) AS n FROM refused_rows", nil, { shard_id = "shard2" })).rows[1].n)
  end)

  it("are tried again within their time, and done when they are accepted meanwhile", function()
    member.write_refusal = "nobody is primary now"
    task.spawn(function()
      task.sleep(0.02)
      member.write_refusal = nil
    end)
    local result = assert(router:execute("INSERT INTO refused_rows VALUES (2)", nil, { shard_id = "shard2", retries = 10 }))
    assert.is_true(result.attempts > 1)
  end)

  it("do not stop reads that say that they are reads, nor the other shards", function()
    member.write_refusal = "nobody is primary now"
    assert(router:execute("SELECT 1", nil, { shard_id = "shard2", read_only = true }))
    assert(router:execute("INSERT INTO refused_rows VALUES (3)", nil, { shard_id = "shard1" }))
  end)
end)
