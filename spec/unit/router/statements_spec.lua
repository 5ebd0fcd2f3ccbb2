local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local events = require("lunashard.events")
local lunashard = require("lunashard")
local statements = require("lunashard.router.statements")

describe("the statements that take the time", function()
  local router, watched

  before_each(function()
    router = lunashard.router({
      shard_manager = lunashard.manager({
        shards = { { shard_id = "shard1", host = "h1", database = "a" }, { shard_id = "shard2", host = "h2", database = "a" } },
        strategy = { "consistent_hash", shard_key = "user_id" },
        tables = { users = { shard_key = "user_id" } },
        slow_statement = 0.5,
      }),
    })
    watched = router.statements
  end)

  local function result(duration)
    return { shard_id = "shard1", endpoint = "h1:5432", duration = duration }
  end

  local function run(n, sql, duration, opts, params)
    for _ = 1, n do
      watched:ended(router, result(duration), sql, params, opts or {})
    end
  end

  it("are counted one by one while they are few", function()
    run(1, "SELECT * FROM a WHERE x = 1", 0.010)
    run(1, "SELECT * FROM a WHERE x = 2", 0.030)
    run(1, "SELECT * FROM b", 0.100)
    local top = router:get_top_statements()
    assert.equal(2, #top)
    assert.equal("SELECT * FROM b", top[1].statement)
    assert.equal("SELECT * FROM a WHERE x = ?", top[2].statement)
    assert.equal(1, #router:get_top_statements(1))
  end)

  it("are estimated when they are many: all counts together are right, and each is near", function()
    local seed = os.time()
    math.randomseed(seed)
    for _ = 1, 50000 do
      run(3, "SELECT * FROM a", 0.001)
      run(1, "SELECT * FROM b", 0.002)
    end
    local total, by = 0, {}
    for _, one in ipairs(router:get_top_statements()) do
      total, by[one.statement] = total + one.count, one.count
    end
    assert.is_true(total <= 200000 and total > 180000, ("%d, seed %d"):format(total, seed))
    local share = by["SELECT * FROM a"] / total
    assert.is_true(share > 0.5 and share < 0.95, ("%g, seed %d"):format(share, seed))
  end)

  it("are looked at when they are slow, each of them, and stand for themselves alone", function()
    for _ = 1, 200 do
      run(100, "SELECT * FROM a", 0.001)
      run(1, "SELECT * FROM b", 2)
    end
    local top = router:get_top_statements()
    assert.equal("SELECT * FROM b", top[1].statement)
    assert.equal(200, top[1].count)
    assert.equal(400, top[1].seconds)
    assert.is_true(top[1].count + top[2].count <= 20200)
    local slow = router:get_slow_statements()
    assert.equal(50, #slow)
    assert.same({ "SELECT * FROM b", 2, "shard1", "h1:5432" },
      { slow[50].statement, slow[50].duration, slow[50].shard_id, slow[50].endpoint })
  end)

  it("that fail are of interest when that took long, with the error's code", function()
    watched:failed(router, errors.new("TIMEOUT", { shard_id = "shard1", elapsed = 3 }), "SELECT pg_sleep(9)", nil, {})
    watched:failed(router, errors.new("SQL", { message = "m", shard_id = "shard1", elapsed = 0.1 }), "SELECT x", nil, {})
    watched:failed(router, errors.new("SQL", { message = "m", shard_id = "shard1" }), "SELECT x", nil, {})
    local slow = router:get_slow_statements()
    assert.equal(1, #slow)
    assert.same({ "SELECT pg_sleep(?)", "TIMEOUT", 3 }, { slow[1].statement, slow[1].error, slow[1].duration })
  end)

  it("have buckets, by the key that was named or is in the statement", function()
    local _, bucket = router.manager:get_shard_for_write(42)
    run(1, "SELECT 1", 0.001, { routing_key = 42 })
    run(1, "SELECT 1", 0.001, { routing_key = 42, table = "users" })
    run(1, "SELECT * FROM users WHERE user_id = $1", 0.001, {}, { 42 })
    run(1, "SELECT * FROM users WHERE user_id = 42", 0.001, {}, {})
    run(1, "SELECT 1", 0.001, { shard_id = "shard1" })
    run(1, "SELECT 1", 0.001, { routing_key = { 1, 2 } })
    run(1, "SELECT count(*) FROM users", 0.001, {}, {})
    local top = router:get_top_buckets()
    assert.equal(1, #top)
    assert.equal(bucket, top[1].bucket)
    assert.is_true(top[1].count >= 3)
  end)

  it("are bounded: all beyond 500 different ones count together", function()
    for i = 1, 3000 do
      run(1, "SELECT * FROM t" .. i, 1)
    end
    local top = router:get_top_statements(10000)
    assert.equal(501, #top)
    assert.same({ "(others)", 2500 }, { top[1].statement, top[1].count })
  end)

  it("are told in the log when that is wanted, without values, and not all of many", function()
    watched:configure({ slow_statement = 0.05, slow_log = 1 })
    local seen = {}
    local stop = events.subscribe(function(event)
      seen[#seen + 1] = event
    end)
    local lines = cluster.warnings(function()
      run(1, "SELECT 'fast', $1", 0.9, nil, { "geheim" })
      run(25, "SELECT 'geheim', $1", 1.5, { routing_key = 42 }, { "geheim" })
    end)
    cluster.wait_until("the subscriber was called", function()
      return #seen == 10
    end)
    stop()
    assert.equal(10, #lines)
    local _, bucket = router.manager:get_shard_for_write(42)
    assert.equal(("slow statement: 1.500 s on shard1 (h1:5432), bucket %d: SELECT ?, ..."):format(bucket), lines[1])
    assert.equal("slow_statement", seen[1].kind)
    assert.same({ "SELECT ?, ...", 1.5, bucket }, { seen[1].statement, seen[1].duration, seen[1].bucket })
    assert.is_nil(seen[1].parameters)
  end)

  it("are told with their values when that was asked for", function()
    watched:configure({ slow_statement = 0.05, slow_log = 1, slow_log_parameters = true })
    local lines = cluster.warnings(function()
      run(1, "SELECT $1, $2", 1.5, nil, { 5, ("x"):rep(1000) })
    end)
    assert.matches("SELECT ?, ... with $1 = 5, $2 = \"xxx", lines[1], 1, true)
    assert.is_true(#lines[1] < 250)
  end)

  it("are forgotten after some minutes", function()
    local fresh = statements.new()
    assert.same({}, fresh:top(10))
    run(1, "SELECT * FROM a", 1)
    for _, slot in ipairs(watched.slots) do
      slot.began = slot.began - 400
    end
    assert.same({}, router:get_top_statements())
  end)
end)
