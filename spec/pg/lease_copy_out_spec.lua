local pools = require("spec.support.pools")
local task = require("lunashard.task")

local failure = pools.failure

describe("lease:copy_out", function()
  local pool, lease

  setup(function()
    pools.start()
    pool = pools.open({ max_size = 2 })
  end)

  teardown(pools.stop)

  before_each(function()
    lease = assert(pool:acquire())
  end)

  after_each(function()
    lease:release()
  end)

  local function read_all(copy)
    local parts = {}
    while true do
      local bytes = assert(copy:read())
      if bytes == "" then
        return table.concat(parts), parts
      end
      parts[#parts + 1] = bytes
    end
  end

  local function value()
    return assert(lease:execute("SELECT 7 AS v")).rows[1].v
  end

  it("gives whole rows in pieces and says how many there were", function()
    local copy = assert(lease:copy_out("COPY (SELECT i, E'a\\tb' FROM generate_series(1, 30000) i) TO STDOUT"))
    local text, parts = read_all(copy)
    assert.equal(30000, copy.row_count)
    assert.is_true(#parts > 3)
    local n = 0
    for _, part in ipairs(parts) do
      assert.equal("\n", part:sub(-1))
      assert.is_true(#part < 70000)
    end
    for line in text:gmatch("([^\n]*)\n") do
      n = n + 1
      assert.equal(n .. "\ta\\tb", line)
    end
    assert.equal(30000, n)
    assert.equal(7, value())
  end)

  it("gives nothing for no rows", function()
    local copy = assert(lease:copy_out("COPY (SELECT 1 WHERE false) TO STDOUT"))
    assert.equal("", (read_all(copy)))
    assert.equal(0, copy.row_count)
    assert.equal("", copy:read())
  end)

  it("reports what fails at once, and what fails midway", function()
    assert.equal("42P01", failure("SQL", lease:copy_out("COPY missing_table TO STDOUT")).sqlstate)
    failure("SQL", lease:copy_out("COPY (SELECT 1) TO STDOUT; SELECT 2"))
    failure("INVALID", lease:execute("COPY (SELECT 1) TO STDOUT"))
    lease:release()
    lease = assert(pool:acquire())
    local copy = assert(lease:copy_out("COPY (SELECT 1 / (i - 50000) FROM generate_series(1, 60000) i) TO STDOUT"))
    local bytes, err
    repeat
      bytes, err = copy:read()
    until not bytes
    assert.equal("22012", failure("SQL", bytes, err).sqlstate)
    assert.equal(7, value())
  end)

  it("runs nothing else before it is read to its end or closed", function()
    local copy = assert(lease:copy_out("COPY (SELECT i FROM generate_series(1, 1000000) i) TO STDOUT"))
    failure("INVALID", lease:execute("SELECT 1"))
    failure("INVALID", lease:copy_out("COPY (SELECT 1) TO STDOUT"))
    assert(copy:read())
    copy:close()
    copy:close()
    assert.equal("", copy:read())
    assert.equal(7, value())
  end)

  it("cancels on the server what is closed early", function()
    local copy = assert(lease:copy_out("COPY (SELECT generate_series(1, 1000000000)) TO STDOUT"))
    copy:close()
    pools.wait_until("the server has stopped", function()
      return pools.sessions("state = 'active' AND query LIKE 'COPY%1000000000%'") == 0
    end)
    assert.equal(7, value())
  end)

  it("reads no further ahead than it is asked to", function()
    local copy = assert(lease:copy_out("COPY (SELECT generate_series(1, 1000000), repeat('x', 1000)) TO STDOUT"))
    assert(copy:read())
    pools.wait_until("the server waits for us", function()
      return pools.sessions("query LIKE 'COPY%1000000%' AND wait_event = 'ClientWrite'") == 1
    end)
    copy:close()
  end)

  -- Rows that fill a packet at once, and then come slowly.
  local SLOW = "COPY (SELECT i, repeat('x', 20000), pg_sleep(CASE WHEN i < 3 THEN 0 ELSE 30 END) "
    .. "FROM generate_series(1, 100) i) TO STDOUT"

  it("ends with the server's connection, and at its deadline", function()
    local copy = assert(lease:copy_out(SLOW, { deadline = task.now() + 1 }))
    failure("TIMEOUT", copy:read())
    lease = assert(pool:acquire())
    copy = assert(lease:copy_out(SLOW))
    pools.admin("SELECT pg_terminate_backend($1)", { lease.backend_pid })
    local bytes, err = copy:read()
    assert.is_nil(bytes)
    assert.is_true(err.code == "SQL" or err.code == "SHARD_DOWN", tostring(err))
  end)

  it("leaves the connection to others when its task is cancelled", function()
    local reader = task.spawn(function()
      local own = assert(pool:acquire())
      assert(own:copy_out(SLOW)):read()
    end):watch()
    pools.wait_until("it runs", function()
      return pools.sessions("state = 'active' AND query LIKE 'COPY%20000%'") == 1
    end)
    reader:cancel()
    reader:join()
    pools.wait_until("it has stopped", function()
      return pools.sessions("state = 'active' AND query LIKE 'COPY%20000%'") == 0
    end)
    assert.equal(7, value())
  end)
end)
