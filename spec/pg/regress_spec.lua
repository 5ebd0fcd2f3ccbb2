local errors = require("lunashard.errors")
local ffi = require("ffi")
local pools = require("spec.support.pools")
local sockets = require("spec.support.sockets")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

ffi.cdef("int shutdown(int fd, int how);")

local SHUT_RDWR = 2

-- One spec for each fault that was found in pools and connections.
describe("pool and connection", function()
  setup(function()
    pools.start()
  end)

  teardown(function()
    pools.stop()
  end)

  after_each(function()
    pools.close_all()
    pools.wait_until("no session is left", function()
      return pools.sessions() == 0
    end)
  end)

  local function lease_of(pool)
    return assert(pool:acquire(task.now() + 5))
  end

  local function open_all(pool, n)
    local leases = {}
    for i = 1, n do
      leases[i] = lease_of(pool)
    end
    for i = 1, n do
      leases[i]:release()
    end
    pools.wait_until("all are idle", function()
      return pool:stats().idle == n
    end)
  end

  local function hold_up_the_loop(seconds)
    local till = task.now() + seconds
    while task.now() < till do
      math.random()
    end
  end

  -- Our sockets: what the kernel calls them -> descriptor.
  local function our_sockets()
    local set, listing = {}, assert(io.popen(("ls -l /proc/%d/fd"):format(system.getpid())))
    for line in listing:lines() do
      local fd, name = line:match("(%d+) %-> (socket:%S+)")
      if fd then
        set[name] = tonumber(fd)
      end
    end
    listing:close()
    return set
  end

  it("pass over idle connections that died unseen, without serving a waiter twice", function()
    local pool = pools.open({ max_size = 4, pipeline = false }) -- nor does it look at statements beside the work
    for dead = 1, 3 do
      open_all(pool, 4)
      local last = assert(pool:execute("SELECT pg_backend_pid() AS pid")).rows[1].pid
      local killing = task.spawn(
        pools.admin,
        "WITH later AS MATERIALIZED (SELECT pg_sleep(0.15)) SELECT pg_terminate_backend(pid, 2000) FROM later, "
          .. "(SELECT pid FROM pg_stat_activity WHERE usename = $1 ORDER BY pid = $2 DESC LIMIT $3) AS it",
        { pools.server.user, last, dead }
      )
      task.sleep(0.05) -- the statement is on its way; its effect comes while nothing is read
      hold_up_the_loop(0.3)
      assert.equal(dead, assert(pool:execute("SELECT $1::int AS v", { dead })).rows[1].v)
      assert(killing:join(5))
      local stats = pool:stats()
      assert.same({ 0, 0 }, { stats.waiting, stats.used })
    end
  end)

  it("never call several statements done when their last was stopped by the deadline", function()
    local pool = pools.open({ max_size = 1 })
    assert(pool:execute("CREATE TABLE half_done (a int)"))
    local result, err = pool:execute("INSERT INTO half_done VALUES (1); SELECT pg_sleep(30)", nil, {
      simple = true,
      deadline = task.now() + 0.2,
    })
    pools.failure("TIMEOUT", result, err)
    assert.equal(0, assert(pool:execute("SELECT count(*) AS n FROM half_done")).rows[1].n)
    assert(pool:execute("DROP TABLE half_done"))
  end)

  it("never call a write done when the deadline stopped its deferred trigger", function()
    local pool = pools.open({ max_size = 1 })
    assert(pool:execute([[
      CREATE TABLE slow_commit (a int);
      CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NULL; END';
      CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow_commit DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION slow();]], nil, { simple = true }))
    local result, err = pool:execute("INSERT INTO slow_commit VALUES (1)", nil, { deadline = task.now() + 0.2 })
    pools.failure("TIMEOUT", result, err)
    assert.equal(0, assert(pool:execute("SELECT count(*) AS n FROM slow_commit")).rows[1].n)
    assert(pool:execute("DROP TABLE slow_commit; DROP FUNCTION slow()", nil, { simple = true }))
  end)

  it("prepare anew after DISCARD ALL and DEALLOCATE ALL, also when the cache is full", function()
    local pool = pools.open({ max_size = 1, statement_cache = 2 })
    for forget, options in pairs({ ["DISCARD ALL"] = { simple = true }, ["DEALLOCATE ALL"] = {} }) do
      local lease = lease_of(pool)
      for round = 1, 2 do
        for i = 1, 4 do
          assert.equal(i, assert(lease:execute(("SELECT %d AS v"):format(i))).rows[1].v, round)
        end
        assert(lease:execute(forget, nil, options))
        assert.equal(4, assert(lease:execute("SELECT 4 AS v")).rows[1].v)
      end
      assert(lease:execute("BEGIN"))
      assert(lease:execute("DEALLOCATE ALL"))
      assert.equal(4, assert(lease:execute("SELECT 4 AS v")).rows[1].v)
      assert(lease:execute("COMMIT"))
      lease:release()
    end
  end)

  it("refuse a statement while a stream or a COPY is open, and go on with that", function()
    local lease = lease_of(pools.open({ max_size = 1 }))
    assert(lease:execute("CREATE TEMPORARY TABLE target (a int)"))
    local cursor = assert(lease:stream("SELECT generate_series(1, 100) AS v"))
    assert.equal(1, assert(cursor:fetch(1))[1].v)
    local _, err = lease:execute("SELECT 1")
    pools.failure("INVALID", nil, err)
    assert.truthy(err.message:find("stream", 1, true), err.message)
    pools.failure("INVALID", lease:stream("SELECT 1"))
    pools.failure("INVALID", lease:copy_in("COPY target FROM STDIN"))
    assert.equal(2, assert(cursor:fetch(1))[1].v)
    cursor:close()

    local copy = assert(lease:copy_in("COPY target FROM STDIN"))
    assert(copy:write_rows({ { 1 } }))
    _, err = lease:execute("SELECT 1")
    pools.failure("INVALID", nil, err)
    assert.truthy(err.message:find("COPY", 1, true), err.message)
    assert(copy:write_rows({ { 2 } }))
    assert.equal(2, assert(copy:finish()).row_count)
    pools.failure("INVALID", copy:write_rows({ { 3 } }))
    pools.failure("INVALID", copy:finish())
    assert.equal(2, assert(lease:execute("SELECT count(*) AS n FROM target")).rows[1].n)
    lease:release()
  end)

  it("end a stream that has failed at its deadline, and let a COPY be aborted after its own", function()
    local lease = lease_of(pools.open({ max_size = 1 }))
    local cursor = assert(lease:stream("SELECT generate_series(1, 100) AS v", nil, { deadline = task.now() + 0.1 }))
    assert(cursor:fetch(5))
    task.sleep(0.15)
    pools.failure("TIMEOUT", cursor:fetch(5))
    assert.equal(1, assert(lease:execute("SELECT 1 AS v")).rows[1].v)
    assert(lease:execute("CREATE TEMPORARY TABLE target (a int)"))
    local copy = assert(lease:copy_in("COPY target FROM STDIN", { deadline = task.now() + 0.1 }))
    task.sleep(0.15)
    pools.failure("TIMEOUT", copy:write_rows({ { 1 } }))
    assert.equal("57014", pools.failure("SQL", copy:abort("enough")).sqlstate)
    assert.equal(0, assert(lease:execute("SELECT count(*) AS n FROM target")).rows[1].n)
    lease:release()
  end)

  it("leave in doubt, and do not call refused, what a session that vanished without a word had been asked", function()
    local before = our_sockets()
    local pool = pools.open({ max_size = 1 })
    assert(pool:execute("CREATE TABLE vanished (a int)"))
    local opened = our_sockets()
    local running = task.spawn(function()
      return pool:execute("INSERT INTO vanished SELECT 1 FROM pg_sleep(2)")
    end)
    pools.wait_until("it runs", function()
      return pools.sessions("state = 'active'") == 1
    end)
    local cut = 0
    for name, fd in pairs(opened) do
      cut = cut + ((not before[name] and ffi.C.shutdown(fd, SHUT_RDWR) == 0) and 1 or 0)
    end
    assert.equal(1, cut)
    local _, result, err = assert(running:join(5))
    pools.failure("UNKNOWN_OUTCOME", result, err)
    pools.wait_until("the server answers again", function()
      return (pool:execute("DROP TABLE IF EXISTS vanished"))
    end)
  end)

  it("do not hold against the server what made our side close a connection", function()
    local pool = pools.open({ max_size = 1 })
    pools.failure("RESULT_TOO_LARGE", pool:execute("SELECT repeat('x', 1000) FROM generate_series(1, 5000)", nil, {
      max_result_bytes = 100000,
    }))
    assert.is_nil(pool:stats().last_error)
    local _, err = pool:execute("SELECT 1", nil, { deadline = task.now() + 0.0005 })
    assert.is_false(errors.is(err, "SHARD_DOWN"), tostring(err))
  end)

  it("send nothing for a task that was cancelled before", function()
    local pool = pools.open({ max_size = 2 })
    assert(pool:execute("CREATE TABLE unsent (a int)"))
    local caught = 0
    local running = task.spawn(function()
      local lease = lease_of(pool)
      pcall(task.sleep, 1000)
      for _ = 1, 10 do
        for _, session in ipairs({ pool, lease }) do
          local ok, err = pcall(session.execute, session, "INSERT INTO unsent VALUES (1)")
          caught = caught + ((not ok and errors.is(err, "CANCELED")) and 1 or 0)
        end
      end
      lease:release()
    end)
    task.sleep(0.05)
    running:cancel()
    assert(running:join(5))
    assert.equal(20, caught)
    assert.equal(0, assert(pool:execute("SELECT count(*) AS n FROM unsent")).rows[1].n)
    assert(pool:execute("DROP TABLE unsent"))
  end)

  it("read no further ahead than a slow reader of a stream wants", function()
    local function resident()
      local file = assert(io.open("/proc/self/status"))
      local kilobytes = tonumber(file:read("*a"):match("VmRSS:%s*(%d+)"))
      file:close()
      return kilobytes
    end
    local lease = lease_of(pools.open({ max_size = 1 }))
    local cursor = assert(lease:stream("SELECT repeat('x', 1000) AS v FROM generate_series(1, 1000000)"))
    for _ = 1, 500 do
      assert(cursor:fetch(1))
    end
    collectgarbage()
    local before = resident()
    for _ = 1, 5000 do
      assert(cursor:fetch(1))
    end
    collectgarbage()
    local grown = resident() - before
    cursor:close()
    lease:release()
    assert.is_true(grown < 36 * 1024, grown .. " KiB")
  end)

  it("give up a session that cannot be reset, and serve others", function()
    local pool = pools.open({ max_size = 1, connection_timeout = 0.5 })
    local lease = lease_of(pool)
    local server = pools.server
    local blocker = lease_of(pools.open({ user = server.superuser, password = server.superuser_password }))
    assert(lease:execute("CREATE TEMPORARY TABLE held (a int)"))
    local name = assert(lease:execute("SELECT pg_my_temp_schema()::regnamespace || '.held' AS n")).rows[1].n
    assert(blocker:execute("BEGIN"))
    assert(blocker:execute(("LOCK TABLE %s IN SHARE MODE"):format(name))) -- so that DISCARD TEMP waits
    lease:release()
    assert.equal(1, assert(pool:execute("SELECT 1 AS v", nil, { deadline = task.now() + 3 })).rows[1].v)
    blocker:release()
  end)

  it("know that what runs inside a transaction is undone with it, COPY included", function()
    local pool = pools.open({ max_size = 1 })
    assert(pool:execute([[
      CREATE TABLE slow_copy (a int);
      CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NULL; END';
      CREATE TRIGGER slow AFTER INSERT ON slow_copy FOR EACH STATEMENT EXECUTE FUNCTION slow();]], nil, { simple = true }))
    for _, begin in ipairs({ "BEGIN", "SELECT 1" }) do
      local lease = lease_of(pool)
      assert(lease:execute(begin))
      local copy = assert(lease:copy_in("COPY slow_copy FROM STDIN", { deadline = task.now() + 0.3 }))
      assert(copy:write_rows({ { 1 } }))
      pools.failure(begin == "BEGIN" and "TIMEOUT" or "UNKNOWN_OUTCOME", copy:finish())
      lease:release()
    end
    pools.wait_until("the server has stopped", function()
      return pools.sessions("state = 'active'") == 0
    end)
    assert(pool:execute("DROP TABLE slow_copy; DROP FUNCTION slow()", nil, { simple = true }))
  end)

  it("take a statement for the end of its transaction only when it is one", function()
    local pool = pools.open({ max_size = 1 })
    assert(pool:execute("CREATE TABLE ending (a int)"))
    local function interrupted(sql)
      local lease = lease_of(pool)
      assert(lease:execute("BEGIN"))
      assert(lease:execute("SET LOCAL statement_timeout = 0"))
      local running = task.spawn(function()
        return lease:execute(sql)
      end)
      pools.wait_until("it runs", function()
        return pools.sessions("state = 'active'") == 1
      end)
      pools.admin("SELECT pg_terminate_backend($1::int, 5000)", { lease.backend_pid })
      local _, _, err = running:join(5)
      lease:release()
      return err
    end
    local err = interrupted("INSERT INTO ending SELECT CASE WHEN true THEN 1 END FROM pg_sleep(30)")
    assert.is_false(errors.is(err, "UNKNOWN_OUTCOME"), tostring(err))
    assert(pool:execute("DROP TABLE ending"))
  end)

  it("do not keep descriptors of connections that never came up", function()
    local server = sockets.silent_server()
    local before = sockets.open_descriptors()
    local pool = pools.open({ host = "127.0.0.1", port = server.port, max_size = 8, connection_timeout = 0.1 })
    for _ = 1, 3 do
      pools.failure("SHARD_DOWN", pool:execute("SELECT 1"))
    end
    pool:close()
    server.close()
    assert.is_true(sockets.open_descriptors() <= before)
  end)
end)
