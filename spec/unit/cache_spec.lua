local cache = require("lunashard.cache")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local task = require("lunashard.task")

local SELECT = "SELECT * FROM users WHERE user_id = $1"

-- What stands behind the cache here: answers at once or when told to, and counts.
local function new_backend(answer)
  local backend = { calls = 0, query_timeout = 5 }
  function backend:execute(sql, params, opts)
    self.calls = self.calls + 1
    self.last_opts = opts
    if answer then
      return answer(sql, params, opts)
    end
    return { success = true, rows = { { n = self.calls, list = { 1 } } }, row_count = 1, columns = { "n" } }
  end
  return backend
end

local function new_cache(given, answer)
  local clock = { time = 0 }
  local backend = new_backend(answer)
  given = given or {}
  given.router, given.now = backend, function() return clock.time end
  return cache.new(given), backend, clock
end

local function key(k)
  return { routing_key = k }
end

describe("cache", function()
  it("runs a statement once, and says when it did not", function()
    local cached, backend = new_cache()
    local first = cached:execute(SELECT, { 1 }, key(1))
    local second = cached:execute(SELECT, { 1 }, key(1))
    assert.equal(1, backend.calls)
    assert.is_nil(first.cached)
    assert.is_true(second.cached)
    assert.same(first.rows, second.rows)
    local statistics = cached:get_statistics()
    assert.same({ 1, 1, 1, 0.5 }, { statistics.hits, statistics.misses, statistics.size, statistics.hit_rate })
  end)

  it("gives every caller rows of its own", function()
    local cached = new_cache()
    local first = cached:execute(SELECT, { 1 }, key(1))
    first.rows[1].n = "spoilt"
    first.rows[2] = {}
    local second = cached:execute(SELECT, { 1 }, key(1))
    assert.equal(1, second.rows[1].n)
    second.rows[1].n = "spoilt"
    assert.equal(1, cached:execute(SELECT, { 1 }, key(1)).rows[1].n)
    assert.equal(1, #second.rows)
  end)

  it("forgets after its ttl, or that of the call, and not before", function()
    local cached, backend, clock = new_cache({ ttl = 10 })
    cached:execute(SELECT, { 1 }, key(1))
    cached:execute(SELECT, { 2 }, { routing_key = 2, ttl = 100 })
    clock.time = 9.9
    cached:execute(SELECT, { 1 }, key(1))
    assert.equal(2, backend.calls)
    clock.time = 10
    cached:execute(SELECT, { 1 }, key(1))
    assert.equal(3, backend.calls)
    clock.time = 99
    cached:execute(SELECT, { 2 }, key(2))
    assert.equal(3, backend.calls)
  end)

  it("runs with ttl = 0 what must be fresh, and does not pass ttl on", function()
    local cached, backend = new_cache()
    for _ = 1, 2 do
      cached:execute(SELECT, { 1 }, { routing_key = 1, ttl = 0, timeout = 3 })
    end
    assert.equal(2, backend.calls)
    assert.same({ routing_key = 1, timeout = 3 }, backend.last_opts)
    assert.equal(0, cached:get_statistics().size)
  end)

  it("tells parameters apart by type, number, position and NULL", function()
    local cached, backend = new_cache()
    local different = {
      { 1 }, { "1" }, { 1, 1 }, { 1, lunashard.null }, { lunashard.null, 1 }, {}, { true }, { "true" }, { "t;" },
      { { 1, 2 } }, { { 12 } }, { { "1", "2" } }, { 9007199254740992 }, { 9007199254740993LL }, { 0.1 }, { "a", "b" },
      { "a1:b" }, { "as", "b" }, { "a", "sb" }, { n = 1 }, { n = 2 },
    }
    for _, params in ipairs(different) do
      cached:execute(SELECT, params, key(1))
    end
    assert.equal(#different, backend.calls)
    for _, params in ipairs(different) do
      cached:execute(SELECT, params, key(1))
    end
    assert.equal(#different, backend.calls)
    cached:execute(SELECT, { 1LL }, key(1)) -- the server is sent the same text
    cached:execute(SELECT, { 1.0 }, key(1))
    cached:execute(SELECT, { n = 2 }, key(1))
    assert.equal(#different, backend.calls)
  end)

  it("tells statements, keys and deciding options apart, but not timeouts", function()
    local cached, backend = new_cache()
    cached:execute(SELECT, { 1 }, key(1))
    cached:execute(SELECT .. " ", { 1 }, key(1))
    cached:execute(SELECT, { 1 }, key(2))
    cached:execute(SELECT, { 1 }, { routing_key = 1, read_only = true })
    cached:execute(SELECT, { 1 }, { routing_key = 1, decode_json = true })
    cached:execute(SELECT, { 1 }, { shard_id = "s1" })
    cached:execute(SELECT, { 1 }, { shard_id = "s2" })
    assert.equal(7, backend.calls)
    cached:execute(SELECT, { 1 }, { routing_key = 1, timeout = 1, retries = 0 })
    assert.equal(7, backend.calls)
  end)

  it("does not keep what has parameters that it cannot see into", function()
    local cached, backend = new_cache()
    local opaque = setmetatable({}, {})
    cached:execute(SELECT, { opaque }, key(1))
    cached:execute(SELECT, { opaque }, key(1))
    assert.equal(2, backend.calls)
    assert.equal(0, cached:get_statistics().size)
  end)

  it("does not keep errors", function()
    local failures = 1
    local cached, backend = new_cache(nil, function()
      if failures > 0 then
        failures = failures - 1
        return nil, errors.new("SHARD_DOWN")
      end
      return { success = true, rows = {} }
    end)
    local result, err = cached:execute(SELECT, { 1 }, key(1))
    assert.is_nil(result)
    assert.is_true(errors.is(err, "SHARD_DOWN"))
    assert.is_table(cached:execute(SELECT, { 1 }, key(1)))
    assert.equal(2, backend.calls)
  end)

  it("evicts what was used longest ago", function()
    local cached, backend = new_cache({ max_entries = 2 })
    cached:execute(SELECT, { 1 }, key(1))
    cached:execute(SELECT, { 2 }, key(2))
    cached:execute(SELECT, { 1 }, key(1))
    cached:execute(SELECT, { 3 }, key(3))
    assert.equal(3, backend.calls)
    cached:execute(SELECT, { 1 }, key(1))
    assert.equal(3, backend.calls)
    cached:execute(SELECT, { 2 }, key(2))
    assert.equal(4, backend.calls)
    local statistics = cached:get_statistics()
    assert.same({ 2, 2 }, { statistics.size, statistics.evictions })
  end)

  it("stays within max_bytes, and does not keep a result that is larger alone", function()
    local cached, _ = new_cache({ max_bytes = 3000 }, function(_, params)
      return { success = true, rows = { { text = ("x"):rep(params[1]) } } }
    end)
    for i = 1, 20 do
      cached:execute(SELECT, { 1000 + i }, key(i))
      assert.is_true(cached:get_statistics().bytes <= 3000)
    end
    assert.equal(2, cached:get_statistics().size)
    cached:execute(SELECT, { 5000 }, key(99))
    assert.equal(2, cached:get_statistics().size)
    cached:invalidate_all()
    assert.equal(0, cached:get_statistics().bytes)
  end)

  it("invalidates a routing key in all its spellings, and leaves others", function()
    for _, spelling in ipairs({ 42, 42LL, 42ULL, "42" }) do
      local cached, backend = new_cache()
      cached:execute(SELECT, { 42 }, key(42))
      cached:execute(SELECT, { "42" }, key("42"))
      cached:execute(SELECT, { 43 }, key(43))
      cached:invalidate(spelling)
      assert.equal(1, cached:get_statistics().size)
      cached:execute(SELECT, { 43 }, key(43))
      assert.equal(3, backend.calls)
      cached:execute(SELECT, { 42 }, key(42))
      assert.equal(4, backend.calls)
    end
    local uuid = "0e8400e2-9b41-4d4a-8716-446655440000"
    for read, spellings in pairs({
      [42] = { "042", " 42", "+42" },
      [0] = { "-0", -0 },
      [uuid] = { uuid:upper(), "{" .. uuid .. "}", (uuid:gsub("-", "")) },
    }) do
      for _, spelling in ipairs(spellings) do
        local cached = new_cache()
        cached:execute(SELECT, { 1 }, key(read))
        cached:execute(SELECT, { 2 }, key(43))
        cached:invalidate(spelling)
        assert.equal(1, cached:get_statistics().size, tostring(spelling))
      end
    end
    local cached = new_cache()
    assert.has_error(function() cached:invalidate(nil) end)
  end)

  it("invalidates a key of several columns, by position or by name", function()
    local cached = new_cache()
    cached:execute(SELECT, { 1 }, key({ 7, "acme" }))
    cached:execute(SELECT, { 1 }, key({ 8, "acme" }))
    cached:execute("UPDATE t SET a = 1", {}, key({ tenant = "acme", id = 7 }))
    assert.equal(1, cached:get_statistics().size)
  end)

  it("runs what it cannot compare: lists without end and tables that hold themselves", function()
    local cached, backend = new_cache()
    local own = {}
    own[1] = own
    for _, params in ipairs({ { n = 1e9 }, { own } }) do
      cached:execute(SELECT, params, key(1))
    end
    assert.equal(2, backend.calls)
    assert.equal(0, cached:get_statistics().size)
  end)

  it("invalidates results without a key together with any key", function()
    local cached = new_cache()
    cached:execute(SELECT, { 1 }, { shard_id = "s1" })
    cached:invalidate(7)
    assert.equal(0, cached:get_statistics().size)
  end)

  it("invalidates one statement, whatever its parameters", function()
    local cached, backend = new_cache()
    cached:execute(SELECT, { 1 }, key(1))
    cached:execute(SELECT, { 2 }, key(2))
    cached:execute("SELECT 1", {}, key(1))
    cached:invalidate_statement(SELECT)
    assert.equal(1, cached:get_statistics().size)
    assert.equal(2, cached:get_statistics().invalidations)
    cached:execute("SELECT 1", {}, key(1))
    assert.equal(3, backend.calls)
  end)

  it("passes writes on and invalidates their key, also when they fail", function()
    for _, answer in ipairs({ false, true }) do
      local cached, backend = new_cache(nil, function(sql)
        if sql:find("^UPDATE") and answer then
          return nil, errors.new("UNKNOWN_OUTCOME")
        end
        return { success = true, rows = {} }
      end)
      cached:execute(SELECT, { 1 }, key(1))
      cached:execute(SELECT, { 2 }, key(2))
      cached:execute("UPDATE users SET n = 1", {}, key(1))
      cached:execute("UPDATE users SET n = 1", {}, key(1))
      assert.equal(4, backend.calls)
      assert.equal(1, cached:get_statistics().size)
      cached:execute("UPDATE users SET n = 1", {}, { shard_id = "s1" })
      assert.equal(0, cached:get_statistics().size)
    end
  end)

  it("raises on misuse", function()
    assert.error_matches(function() cache.new({}) end, "router is missing")
    assert.error_matches(function() cache.new({ router = {}, tll = 5 }) end, 'did you mean "ttl"')
    assert.error_matches(function() cache.new({ router = {}, ttl = -1 }) end, "ttl")
    assert.error_matches(function() cache.new({ router = {}, max_entries = 0 }) end, "1 or more")
    local cached = new_cache()
    assert.error_matches(function() cached:execute(SELECT, {}, { routing_key = 1, ttl = "60" }) end, "option ttl")
    assert.error_matches(function() cached:execute(nil) end, "expected SQL as a string")
  end)
end)

describe("cache under concurrent misses", function()
  local function gated(outcome)
    local gate, entered = task.event(), task.event()
    local cached, backend = new_cache(nil, function(_, _, opts)
      entered:notify()
      gate:wait(task.deadline(5))
      return outcome(opts)
    end)
    return cached, backend, gate, entered
  end

  local function success()
    return { success = true, rows = { { n = 1 } } }
  end

  it("runs the statement once for all", function()
    local cached, backend, gate, entered = gated(success)
    local tasks = {}
    for i = 1, 10 do
      tasks[i] = task.spawn(function() return cached:execute(SELECT, { 1 }, key(1)) end)
    end
    entered:wait(task.deadline(5))
    while cached:get_statistics().coalesced < 9 do
      task.sleep(0)
    end
    gate:notify()
    for i = 1, 10 do
      local ok, result = tasks[i]:join(5)
      assert.is_true(ok)
      assert.same({ { n = 1 } }, result.rows)
    end
    assert.equal(1, backend.calls)
    assert.equal(1, cached:get_statistics().misses)
  end)

  it("shares an error of the server, but keeps it from later calls", function()
    local failure = errors.new("SQL", { message = "x", sqlstate = "42P01" })
    local cached, backend, gate, entered = gated(function() return nil, failure end)
    local leader = task.spawn(function() return cached:execute(SELECT, { 1 }, key(1)) end)
    entered:wait(task.deadline(5))
    local follower = task.spawn(function() return cached:execute(SELECT, { 1 }, key(1)) end)
    while cached:get_statistics().coalesced < 1 do
      task.sleep(0)
    end
    gate:notify()
    for _, each in ipairs({ leader, follower }) do
      local ok, result, err = each:join(5)
      assert.is_true(ok)
      assert.is_nil(result)
      assert.equal(failure, err)
    end
    assert.equal(1, backend.calls)
    assert.equal(0, cached:get_statistics().size)
  end)

  it("lets a waiting task take over when the one that ran it was cancelled", function()
    local cached, backend, gate, entered = gated(success)
    local leader = task.spawn(function() return cached:execute(SELECT, { 1 }, key(1)) end)
    leader:watch()
    entered:wait(task.deadline(5))
    local follower = task.spawn(function() return cached:execute(SELECT, { 1 }, key(1)) end)
    while cached:get_statistics().coalesced < 1 do
      task.sleep(0)
    end
    leader:cancel()
    entered:wait(task.deadline(5))
    gate:notify()
    local ok, result = follower:join(5)
    assert.is_true(ok)
    assert.same({ { n = 1 } }, result.rows)
    assert.equal(2, backend.calls)
    local ended, err = leader:join(5)
    assert.is_nil(ended)
    assert.is_true(errors.is(err, "CANCELED"))
  end)

  it("gives a waiting task its own timeout", function()
    local cached, _, gate, entered = gated(success)
    local leader = task.spawn(function() return cached:execute(SELECT, { 1 }, key(1)) end)
    entered:wait(task.deadline(5))
    local result, err = cached:execute(SELECT, { 1 }, { routing_key = 1, timeout = 0.01 })
    assert.is_nil(result)
    assert.is_true(errors.is(err, "TIMEOUT"))
    gate:notify()
    assert.is_true(leader:join(5))
  end)

  it("gives those who waited rows that the one who ran it has not changed", function()
    local cached
    cached = new_cache(nil, function()
      task.sleep(0.01)
      return { success = true, rows = { { n = 1 } }, row_count = 1, columns = { "n" } }
    end)
    local first = task.spawn(function()
      cached:execute(SELECT, { 1 }, key(1)).rows[1].n = "spoilt"
    end)
    local second = task.spawn(function()
      return cached:execute(SELECT, { 1 }, key(1)).rows[1].n
    end)
    assert(first:join())
    assert.equal(1, select(2, second:join()))
  end)

  it("does not keep a result whose key was invalidated while it was on its way", function()
    for _, invalidate in ipairs({
      function(cached) cached:invalidate(1) end,
      function(cached) cached:invalidate_statement(SELECT) end,
      function(cached) cached:invalidate_all() end,
    }) do
      local cached, _, gate, entered = gated(success)
      local leader = task.spawn(function() return cached:execute(SELECT, { 1 }, key(1)) end)
      entered:wait(task.deadline(5))
      invalidate(cached)
      gate:notify()
      local ok, result = leader:join(5)
      assert.is_true(ok)
      assert.is_table(result)
      assert.equal(0, cached:get_statistics().size)
    end
  end)

  it("goes on after the router raised", function()
    local cached = new_cache(nil, function() error("execute: unknown option \"tiemout\"", 0) end)
    assert.error_matches(function() cached:execute(SELECT, { 1 }, key(1)) end, "tiemout")
    assert.error_matches(function() cached:execute(SELECT, { 1 }, key(1)) end, "tiemout")
  end)
end)
