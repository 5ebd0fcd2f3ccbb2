local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local task = require("lunashard.task")

local failure = cluster.failure

-- Lua's own assert, which raises error objects as they are; busted's makes texts of them.
local function must(value, err)
  if value == nil then
    error(err, 0)
  end
  return value
end

describe("router:transaction", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect()
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_tx CASCADE; CREATE SCHEMA e_tx;
      CREATE TABLE e_tx.accounts (user_id int8 PRIMARY KEY, balance int8 NOT NULL CHECK (balance >= 0));
      CREATE TABLE e_tx.late (user_id int8, UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED)]]))
  end)

  before_each(function()
    assert(router:execute_on_all_shards("TRUNCATE e_tx.accounts, e_tx.late"))
    assert(router:execute("INSERT INTO e_tx.accounts VALUES (1, 100)", nil, { routing_key = 1 }))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_tx CASCADE"))
    cluster.release()
  end)

  local function balance()
    return assert(router:execute("SELECT balance FROM e_tx.accounts WHERE user_id = 1", nil, { routing_key = 1 })).rows[1].balance
  end

  local function add(tx, amount)
    return tx:execute("UPDATE e_tx.accounts SET balance = balance + $1 WHERE user_id = 1", { amount })
  end

  -- No session of ours may be left inside a transaction.
  local function expect_no_open_transaction()
    cluster.wait_until("no session is left in a transaction", function()
      local found = assert(router:scatter_gather([[
        SELECT count(*) AS n FROM pg_stat_activity
        WHERE state LIKE 'idle in transaction%' AND datname = current_database() AND query LIKE '%e_tx%']], nil,
        { aggregation_func = lunashard.aggregate.sum("n") }))
      return found.rows[1].n == 0
    end)
  end

  it("commits and then returns the function's values, nils among them", function()
    local a, b, c, n = nil, nil, nil, nil
    local function collect(...)
      n = select("#", ...)
      a, b, c = ...
    end
    collect(router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 11))
      return "done", nil, tx.shard_id
    end))
    assert.equal(3, n)
    assert.equal("done", a)
    assert.is_nil(b)
    assert.equal(manager:get_shard_for_write(1).shard_id, c)
    assert.equal(111, balance())
  end)

  it("commits when the function returns nothing", function()
    router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
    end)
    assert.equal(101, balance())
  end)

  it("shows its own changes inside and nobody else's eyes before COMMIT", function()
    assert(router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 5))
      assert.equal(105, assert(tx:execute("SELECT balance FROM e_tx.accounts")).rows[1].balance)
      assert.equal(100, balance())
      return true
    end))
    assert.equal(105, balance())
  end)

  it("rolls back and returns the error when the function raises, with its cause and traceback", function()
    local err = failure("PLUGIN_FAILED", router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
      error("second thoughts")
    end))
    assert.is_truthy(err.message:find("second thoughts", 1, true))
    assert.is_truthy(tostring(err.traceback):find("transaction_spec.lua", 1, true))
    assert.equal(100, balance())
    expect_no_open_transaction()
  end)

  it("rolls back and returns the very error when the function raises an error object", function()
    local raised
    local err = failure("SQL", router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
      local _, problem = add(tx, -1000)
      raised = problem
      error(problem)
    end))
    assert.equal("23514", err.sqlstate)
    assert.equal(raised, err.cause)
    assert.equal(100, balance())
  end)

  it("rolls back when the function returns nil and a reason", function()
    local err = failure("PLUGIN_FAILED", router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
      return nil, "not enough"
    end))
    assert.equal("not enough", err.cause.cause or err.cause)
    assert.equal(100, balance())
  end)

  it("never reports a COMMIT that the server turned into a ROLLBACK as success", function()
    local err = failure("SQL", router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
      tx:execute("SELECT nope") -- ignored
      return "fine"
    end))
    assert.equal("42703", err.sqlstate)
    assert.equal("42703", err.cause.sqlstate)
    assert.equal(100, balance())
  end)

  it("returns the error of a COMMIT that a deferred constraint refuses", function()
    local err = failure("SQL", router:transaction({ routing_key = 1 }, function(tx)
      assert(tx:execute("INSERT INTO e_tx.late VALUES (1), (1)"))
      return true
    end))
    assert.equal("23505", err.sqlstate)
  end)

  it("returns an error of the statement and accepts no other until it is rolled back", function()
    failure("SQL", router:transaction({ routing_key = 1 }, function(tx)
      failure("SQL", tx:execute("SELECT nope"))
      local err = failure("SQL", tx:execute("SELECT 1"))
      assert.equal("25P02", err.sqlstate)
      return true
    end))
  end)

  it("refuses transaction control inside and goes on", function()
    assert(router:transaction({ routing_key = 1 }, function(tx)
      for _, sql in ipairs({ "COMMIT", "ROLLBACK", "BEGIN", "SAVEPOINT x", "/**/ ;END" }) do
        failure("INVALID", tx:execute(sql))
      end
      failure("INVALID", tx:commit())
      failure("INVALID", tx:rollback())
      return assert(add(tx, 1))
    end))
    assert.equal(101, balance())
  end)

  it("refuses a key of another shard inside, and takes one of its own", function()
    local other = cluster.key_on(manager, manager:get_shard_for_write(1).shard_id == "shard1" and 2 or 1)
    assert(router:transaction({ routing_key = 1 }, function(tx)
      failure("KEY_MISMATCH", tx:execute("SELECT 1", nil, { routing_key = other }))
      return assert(tx:execute("SELECT 1", nil, { routing_key = 1 }))
    end))
  end)

  it("is of no use after its end", function()
    local kept
    router:transaction({ routing_key = 1 }, function(tx)
      kept = tx
    end)
    failure("CLOSED", kept:execute("SELECT 1"))
    failure("CLOSED", kept:transaction(function() end))
    failure("CLOSED", kept:commit())
    assert.is_truthy(tostring(kept):find("ended", 1, true))
  end)

  it("needs a key or a shard, and a function", function()
    failure("NO_KEY", router:transaction({}, function() end))
    failure("NO_SHARD", router:transaction({ shard_id = "shard9" }, function() end))
    assert.has_error(function() router:transaction({ routing_key = 1 }) end)
    assert.has_error(function() router:transaction({ routing_key = 1, isolaton = "serializable" }, function() end) end)
  end)

  it("uses the isolation, mode and deferrability that are asked for", function()
    local function settings(opts)
      opts.routing_key = 1
      return assert(router:transaction(opts, function(tx)
        return assert(tx:execute([[SELECT current_setting('transaction_isolation') AS isolation,
          current_setting('transaction_read_only') AS read_only, current_setting('transaction_deferrable') AS deferrable]]))
      end)).rows[1]
    end
    assert.equal("repeatable read", settings({ isolation = "repeatable read" }).isolation)
    assert.same({ isolation = "serializable", read_only = "on", deferrable = "on" },
      settings({ isolation = "SERIALIZABLE", read_only = true, deferrable = true }))
    assert.equal("off", settings({ read_only = false }).read_only)
  end)

  it("refuses an isolation level that does not exist and names the nearest", function()
    local ok, message = pcall(router.transaction, router, { routing_key = 1, isolation = "serialisable" }, function() end)
    assert.is_false(ok)
    assert.is_truthy(message:find('"serializable"', 1, true), message)
  end)

  it("has the server refuse writes in a read only transaction", function()
    local err = failure("SQL", router:transaction({ routing_key = 1, read_only = true }, function(tx)
      return must(add(tx, 1))
    end))
    assert.equal("25006", err.sqlstate)
  end)

  describe("inside a transaction", function()
    it("undoes what failed there also when a stream was left open", function()
      local value = must(router:transaction({ routing_key = 1 }, function(tx)
        local err = failure("PLUGIN_FAILED", tx:transaction(function(inner)
          must(add(inner, 1))
          inner:stream("SELECT generate_series(1, 100000) AS n")()
          error("no more of this")
        end))
        assert.is_truthy(err.message:find("no more of this", 1, true), err.message)
        assert.equal(7, must(tx:transaction(function(inner)
          must(add(inner, 10))
          inner:stream("SELECT generate_series(1, 100000) AS n")()
          return 7
        end)))
        return must(add(tx, 100)).row_count
      end))
      assert.equal(1, value)
      assert.equal(210, balance())
    end)

    it("is not committed with the rest when it could not be undone", function()
      failure("PLUGIN_FAILED", router:transaction({ routing_key = 1 }, function(tx)
        must(add(tx, 100))
        local busy
        failure("PLUGIN_FAILED", tx:transaction(function(inner)
          must(add(inner, 1))
          busy = task.spawn(function()
            inner:execute("SELECT pg_sleep(0.3)")
          end)
          task.sleep(0.05)
          error("no more of this")
        end))
        busy:join()
        return true
      end))
      assert.equal(100, balance())
    end)

    it("cannot be ended by hand from within", function()
      local tx = assert(router:begin({ routing_key = 1 }))
      failure("INVALID", tx:transaction(function() return tx:commit() end))
      failure("INVALID", tx:transaction(function() return tx:rollback() end))
      assert(add(tx, 1))
      assert.is_true(tx:commit())
      assert.equal(101, balance())
    end)

    it("is a savepoint: what fails there is undone and the rest is committed", function()
      assert(router:transaction({ routing_key = 1 }, function(tx)
        assert(add(tx, 1))
        failure("PLUGIN_FAILED", tx:transaction(function()
          assert(add(tx, 10))
          error("undo this")
        end))
        assert.equal(7, (tx:transaction(function()
          assert(add(tx, 100))
          return 7
        end)))
        return true
      end))
      assert.equal(201, balance())
    end)

    it("makes the transaction usable again after an SQL error", function()
      assert(router:transaction({ routing_key = 1 }, function(tx)
        local err = failure("SQL", tx:transaction(function()
          return tx:execute("SELECT nope")
        end))
        assert.equal("42703", err.sqlstate)
        return assert(add(tx, 1))
      end))
      assert.equal(101, balance())
    end)

    it("does not take a failed statement that was ignored for success", function()
      assert(router:transaction({ routing_key = 1 }, function(tx)
        local err = failure("SQL", tx:transaction(function()
          tx:execute("SELECT nope")
          return "fine"
        end))
        assert.equal("42703", err.sqlstate)
        return assert(add(tx, 1))
      end))
      assert.equal(101, balance())
    end)

    it("nests", function()
      assert(router:transaction({ routing_key = 1 }, function(tx)
        return assert(tx:transaction(function()
          assert(add(tx, 1))
          failure("PLUGIN_FAILED", tx:transaction(function()
            assert(add(tx, 10))
            error("inner")
          end))
          return true
        end))
      end))
      assert.equal(101, balance())
    end)
  end)

  it("runs the function again after a serialization failure, when retries allow", function()
    local calls = 0
    local function conflict(tx)
      calls = calls + 1
      local seen = assert(tx:execute("SELECT balance FROM e_tx.accounts WHERE user_id = 1")).rows[1].balance
      if calls == 1 then
        assert(router:execute("UPDATE e_tx.accounts SET balance = balance + 1 WHERE user_id = 1", nil, { routing_key = 1 }))
      end
      must(tx:execute("UPDATE e_tx.accounts SET balance = $1 WHERE user_id = 1", { seen + 10 }))
      return seen
    end
    local err = failure("SQL", router:transaction({ routing_key = 1, isolation = "repeatable read" }, conflict))
    assert.equal("40001", err.sqlstate)
    assert.is_true(err.retryable)
    assert.equal(1, calls)
    calls = 0
    assert.equal(102, router:transaction({ routing_key = 1, isolation = "repeatable read", retries = 3 }, conflict))
    assert.equal(2, calls)
    assert.equal(112, balance())
  end)

  it("ends at its timeout, rolled back", function()
    local started = task.now()
    failure("TIMEOUT", router:transaction({ routing_key = 1, timeout = 0.4 }, function(tx)
      assert(add(tx, 1))
      return must(tx:execute("SELECT pg_sleep(20)"))
    end))
    assert.is_true(task.now() - started < 3)
    assert.equal(100, balance())
    expect_no_open_transaction()
  end)

  it("does not commit when its time is over, even if every statement was in time", function()
    failure("TIMEOUT", router:transaction({ routing_key = 1, timeout = 0.2 }, function(tx)
      assert(add(tx, 1))
      task.sleep(0.3)
      return true
    end))
    assert.equal(100, balance())
  end)

  it("is rolled back when its task is cancelled", function()
    local inside
    local waiting = task.spawn(function()
      return router:transaction({ routing_key = 1 }, function(tx)
        assert(add(tx, 1))
        inside = true
        task.sleep(30)
      end)
    end):watch()
    cluster.wait_until("the transaction is open", function() return inside end)
    waiting:cancel()
    waiting:join(5)
    assert.equal(100, balance())
    expect_no_open_transaction()
  end)

  it("gives CANCELED to the code around it in a cancelled task", function()
    local outcome
    local waiting = task.spawn(function()
      local _, err = router:transaction({ routing_key = 1 }, function(tx)
        assert(add(tx, 1))
        task.sleep(30)
      end)
      outcome = err
    end):watch()
    task.sleep(0.1)
    waiting:cancel()
    waiting:join(5)
    assert.is_true(errors.is(outcome, "CANCELED"))
  end)

  it("is rolled back, and says so, when its connection is lost in the middle", function()
    local err = failure("SHARD_DOWN", router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
      local pid = assert(tx:execute("SELECT pg_backend_pid() AS pid")).rows[1].pid
      assert(router:execute("SELECT pg_terminate_backend($1)", { pid }, { shard_id = tx.shard_id }))
      local _, problem = add(tx, 1)
      return nil, problem
    end))
    assert.is_truthy(tostring(err))
    assert.equal(100, balance())
  end)

  it("does not commit on a connection that was lost, even if the function ignores it", function()
    local result, err = router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
      local pid = assert(tx:execute("SELECT pg_backend_pid() AS pid")).rows[1].pid
      assert(router:execute("SELECT pg_terminate_backend($1)", { pid }, { shard_id = tx.shard_id }))
      add(tx, 1)
      return "fine"
    end)
    assert.is_nil(result)
    assert.is_true(errors.is(err))
    assert.equal(100, balance())
  end)

  it("reports UNKNOWN_OUTCOME when the connection is lost during COMMIT", function()
    -- A deferred trigger keeps the COMMIT busy long enough to be cut off.
    assert(router:execute_on_all_shards([[
      CREATE TABLE e_tx.slow (user_id int8);
      CREATE FUNCTION e_tx.wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(20); RETURN NULL; END';
      CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON e_tx.slow DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION e_tx.wait()]]))
    local pid
    local killer = task.spawn(function()
      cluster.wait_until("COMMIT runs", function()
        local found = pid and assert(router:execute("SELECT state, query FROM pg_stat_activity WHERE pid = $1", { pid },
          { routing_key = 1 })).rows[1]
        return found and found.state == "active" and found.query:find("COMMIT") ~= nil
      end)
      return assert(router:execute("SELECT pg_terminate_backend($1)", { pid }, { routing_key = 1 }))
    end)
    local err = failure("UNKNOWN_OUTCOME", router:transaction({ routing_key = 1 }, function(tx)
      local own = assert(tx:execute("SELECT pg_backend_pid() AS pid")).rows[1].pid
      assert(tx:execute("INSERT INTO e_tx.slow VALUES (1)"))
      pid = own
      return true
    end))
    assert(killer:join())
    assert.is_false(err.retryable)
    assert.is_truthy(err.cause)
    assert.equal(manager:get_shard_for_write(1).shard_id, err.shard_id)
  end)

  it("reads large results row by row and can go on after them", function()
    assert(router:transaction({ routing_key = 1 }, function(tx)
      local n, sum = 0, 0
      for row in tx:stream("SELECT i FROM generate_series(1, 3000) AS i", nil, { fetch_size = 100 }) do
        n, sum = n + 1, sum + row.i
      end
      assert.equal(3000, n)
      assert.equal(4501500, sum)
      return assert(add(tx, 1))
    end))
    assert.equal(101, balance())
  end)

  it("runs nothing else while a stream is open, and stays usable when that is closed early", function()
    assert(router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
      local stream = tx:stream("SELECT generate_series(1, 10000000) AS i, repeat('x', 1000) AS pad")
      assert.equal(1, stream().i)
      local err = failure("INVALID", tx:execute("SELECT 1"))
      assert.is_truthy(err.message:find("stream", 1, true), err.message)
      failure("INVALID", tx:transaction(function() end))
      stream:close()
      return assert(add(tx, 1))
    end))
    assert.equal(102, balance())
  end)

  it("tells a stream that goes on after it that the rest is lost", function()
    local stream = assert(router:transaction({ routing_key = 1 }, function(tx)
      local open = tx:stream("SELECT generate_series(1, 100000) AS i", nil, { fetch_size = 10 })
      assert.equal(1, open().i)
      return open
    end))
    local ok, err = pcall(function()
      while stream() do -- luacheck: ignore 542
      end
    end)
    assert.is_false(ok)
    assert.is_true(errors.is(err, "CLOSED"), tostring(err))
  end)

  it("commits although a stream was left open", function()
    assert(router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
      return assert(tx:stream("SELECT generate_series(1, 10000000) AS i, repeat('x', 1000) AS pad")()).i
    end))
    assert.equal(101, balance())
  end)

  it("does not commit when a stream failed in it", function()
    local err = failure("SQL", router:transaction({ routing_key = 1 }, function(tx)
      assert(add(tx, 1))
      pcall(function()
        for _ in tx:stream("SELECT 1 / (500 - i) FROM generate_series(1, 1000) AS i", nil, { fetch_size = 10 }) do
          task.sleep(0)
        end
      end)
      return "ignored"
    end))
    assert.equal("22012", err.sqlstate)
    assert.equal(100, balance())
  end)

  it("refuses a second statement while one runs, without harm to the first", function()
    assert(router:transaction({ routing_key = 1 }, function(tx)
      local first = task.spawn(function()
        return assert(tx:execute("UPDATE e_tx.accounts SET balance = balance + length(pg_sleep(0.2)::text) + 1"))
      end)
      task.sleep(0.05)
      failure("INVALID", tx:execute("SELECT 1"))
      assert(first:join())
      return true
    end))
    assert.equal(101, balance())
  end)

  it("serves many tasks at once without mixing them up", function()
    local tasks = {}
    for i = 1, 60 do
      tasks[i] = task.spawn(function()
        return assert(router:transaction({ routing_key = 1 }, function(tx)
          return assert(add(tx, 1))
        end))
      end)
    end
    for _, one in ipairs(tasks) do
      assert(one:join())
    end
    assert.equal(160, balance())
  end)

  describe("by hand with router:begin", function()
    it("commits and rolls back when told", function()
      local tx = assert(router:begin({ routing_key = 1 }))
      assert(add(tx, 1))
      assert.is_true(tx:commit())
      failure("CLOSED", tx:commit())
      assert.equal(101, balance())
      tx = assert(router:begin({ routing_key = 1 }))
      assert(add(tx, 1))
      assert.is_true(tx:rollback())
      failure("CLOSED", tx:rollback())
      assert.equal(101, balance())
      expect_no_open_transaction()
    end)

    it("does not take a ROLLBACK at COMMIT for success", function()
      local tx = assert(router:begin({ routing_key = 1 }))
      failure("SQL", tx:execute("SELECT nope"))
      local err = failure("SQL", tx:commit())
      assert.equal("42703", err.sqlstate)
    end)

    it("is rolled back when its task ends without commit", function()
      local forgotten = task.spawn(function()
        local tx = assert(router:begin({ routing_key = 1 }))
        assert(add(tx, 1))
      end)
      assert(forgotten:join())
      assert.equal(100, balance())
      expect_no_open_transaction()
      cluster.wait_until("its connection is back", function()
        return manager:get_pool_stats(manager:get_shard_for_write(1).shard_id).used == 0
      end)
    end)

    it("refuses the retries that only a function can have", function()
      assert.has_error(function() router:begin({ routing_key = 1, retry = 1 }) end)
    end)
  end)
end)
