local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local names = require("spec.support.net.names")
local pools = require("spec.support.pools")
local sockets = require("spec.support.sockets")
local task = require("lunashard.task")

local TIMEOUT = 0.3
local LATE = 3 -- seconds over a deadline that a busy machine may take

local function soon(seconds)
  return { deadline = task.now() + (seconds or TIMEOUT) }
end

-- The error says where and after how long, by fields and in its message.
local function check(err, endpoint, phase)
  assert.equal("shard1", err.shard_id)
  assert.equal(endpoint, err.endpoint)
  assert.is_true(err.elapsed >= TIMEOUT * 0.9 and err.elapsed < TIMEOUT + LATE, tostring(err.elapsed))
  assert.is_truthy(err.message:find("timed out after", 1, true), err.message)
  assert.is_truthy(err.message:find(phase, 1, true), err.message)
end

describe("a deadline that passes", function()
  local server, here

  setup(function()
    server = pools.start()
    here = ("%s:%d"):format(server.host, server.port)
  end)
  teardown(pools.stop)
  after_each(pools.close_all)

  it("while the statement runs is TIMEOUT, and says so", function()
    local pool = pools.open()
    local err = pools.failure("TIMEOUT", pool:execute("SELECT pg_sleep(30)", nil, soon()))
    check(err, here, "while running on the server")
  end)

  it("while all connections are in use is POOL_EXHAUSTED, with how many use and want them", function()
    local pool = pools.open({ max_size = 1, pipeline = false })
    local lease = assert(pool:acquire())
    local err = pools.failure("POOL_EXHAUSTED", pool:execute("SELECT 1", nil, soon()))
    check(err, here, "while waiting for a connection: 1 of at most 1 are in use, 1")
    err = pools.failure("POOL_EXHAUSTED", pool:acquire(task.now() + TIMEOUT))
    check(err, here, "while waiting for a connection")
    lease:release()
  end)

  it("while a connection is made is TIMEOUT, and says so", function()
    local silent = sockets.silent_server()
    finally(silent.close)
    local pool = pools.open({ host = "127.0.0.1", port = silent.port })
    local err = pools.failure("TIMEOUT", pool:execute("SELECT 1", nil, soon()))
    check(err, "127.0.0.1:" .. silent.port, "while connecting")
  end)

  it("while the host's name is looked up is TIMEOUT, and says so", function()
    local server_of_names = names.start()
    finally(function()
      server_of_names:close()
    end)
    server_of_names:set("slow.shards.example", "hang")
    local pool = pools.open({ host = "slow.shards.example" })
    local err = pools.failure("TIMEOUT", pool:execute("SELECT 1", nil, soon()))
    check(err, "slow.shards.example:" .. server.port, "while resolving the host's name")
  end)

  it("while a server that refuses is left alone is SHARD_DOWN, with what it had said", function()
    local pool = pools.open({ host = "127.0.0.1", port = sockets.closed_port() })
    local deadline = task.now() + 10
    local err
    repeat -- until the pauses are longer than the time that there is
      err = pools.failure("SHARD_DOWN", pool:execute("SELECT 1", nil, soon(0.01)))
    until err.message:find("timed out", 1, true) or task.now() > deadline
    assert.is_truthy(err.message:find("while waiting to connect again; last error: cannot connect", 1, true), err.message)
  end)

  it("before a lookup or a connection has failed by itself does not make that longer", function()
    local silent = sockets.silent_server()
    finally(silent.close)
    local pool = pools.open({ host = "127.0.0.1", port = silent.port, connection_timeout = 0.3 })
    local err = pools.failure("SHARD_DOWN", pool:execute("SELECT 1", nil, soon(30)))
    assert.is_truthy(err.message:find("no answer from the server within 0.3s", 1, true), err.message)
    assert.is_true(err.elapsed < 0.3 + LATE)
  end)

  it("while rows are read is TIMEOUT, counted from the beginning", function()
    local pool = pools.open()
    local lease = assert(pool:acquire())
    local cursor = assert(lease:stream("SELECT pg_sleep(CASE WHEN i > 5000 THEN 30 ELSE 0 END) FROM generate_series(1, 10000) i",
      nil, soon()))
    local rows, err
    repeat
      rows, err = cursor:next_rows(100)
    until not rows
    check(errors.is(err, "TIMEOUT") and err or error(tostring(err)), here, "while waiting for rows")
    lease:release()
  end)

  it("while COPY is read is TIMEOUT, counted from the beginning", function()
    local pool = pools.open()
    local lease = assert(pool:acquire())
    local copy = assert(lease:copy_out("COPY (SELECT i, pg_sleep(CASE WHEN i > 5000 THEN 30 ELSE 0 END) "
      .. "FROM generate_series(1, 10000) i) TO STDOUT", soon()))
    local bytes, err
    repeat
      bytes, err = copy:read()
    until not bytes
    check(errors.is(err, "TIMEOUT") and err or error(tostring(err)), here, "while waiting for rows")
    lease:release()
  end)
end)

describe("a cancelled task", function()
  setup(pools.start)
  teardown(pools.stop)
  after_each(pools.close_all)

  local function cancelled(fn)
    local running = task.spawn(fn):watch()
    task.sleep(0.1)
    running:cancel()
    return pools.failure("CANCELED", running:join(10))
  end

  it("raises an error that says where it was and for how long", function()
    local pool = pools.open({ max_size = 1 })
    for what, fn in pairs({
      execute = function()
        pool:execute("SELECT pg_sleep(30)")
      end,
      ["execute on a lease"] = function()
        assert(pool:acquire()):execute("SELECT pg_sleep(30)")
      end,
      stream = function()
        assert(assert(pool:acquire()):stream("SELECT pg_sleep(30)"))
      end,
    }) do
      local err = cancelled(fn)
      assert.equal("shard1", err.shard_id, what)
      assert.equal(pool.endpoint, err.endpoint, what)
      assert.is_true(err.elapsed > 0 and err.elapsed < 5, what)
    end
  end)

  it("has no place to name when it waited for none", function()
    local err = cancelled(function()
      lunashard.sleep(30)
    end)
    assert.is_nil(err.shard_id)
  end)
end)
