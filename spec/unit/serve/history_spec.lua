local history = require("lunashard.serve.history")
local statistics = require("lunashard.router.statistics")

describe("the history of a cluster", function()
  local counted, pool, seen

  before_each(function()
    counted = statistics.new()
    pool = { used = 0, size = 0, waiting = 0 }
    local manager = { members = { { shard_id = "a", endpoints = { { pool = { stats = function() return pool end } } } },
      { shard_id = "b", endpoints = {} } } }
    seen = history.new(manager, { statistics = counted }, 0)
  end)

  local function run(n, seconds, shard_id)
    for _ = 1, n do
      counted:record(shard_id or "a", seconds, "a:1", "SELECT")
    end
  end

  it("gives statements a second, however long a second was", function()
    seen:sample(1)
    run(10, 0.001)
    run(4, 0.001, "b")
    counted:record_failure("a", { code = "TIMEOUT" })
    seen:sample(3)
    local all = seen:read()
    assert.same({ 0, 7.5 }, all.throughput)
    assert.same({ 0, 0.5 }, all.errors)
    assert.same({ 0, 5.5 }, all.shards.a.rate)
    assert.same({ 0, 2 }, all.shards.b.rate)
  end)

  it("has percentiles of the last seconds, not of all time", function()
    run(1000, 1)
    for second = 1, 5 do
      seen:sample(second)
    end
    run(100, 0.001)
    run(2, 0.1, "b")
    seen:sample(6)
    local all = seen:read("nothing")
    local last = #all.p50
    assert.is_true(all.p50[last] < 0.0012)
    assert.is_true(all.p95[last] < 0.0012)
    assert.is_true(all.p99[last] > 0.08 and all.p99[last] < 0.12)
    assert.is_true(all.shards.a.p95 < 0.0012 and all.shards.b.p95 > 0.08)
    for second = 7, 11 do
      seen:sample(second)
    end
    assert.equal("nothing", seen:read("nothing").p50[11])
    assert.equal("nothing", seen:read("nothing").shards.a.p95)
  end)

  it("keeps five minutes, and one of each shard", function()
    for second = 1, 400 do
      pool = { used = second, size = second + 1, waiting = 0 }
      seen:sample(second)
    end
    local all = seen:read()
    assert.equal(300, #all.throughput)
    assert.equal(300, #all.used)
    assert.equal(101, all.used[1])
    assert.equal(401, all.size[300])
    assert.equal(60, #all.shards.b.rate)
  end)

  it("forgets shards that are gone, and begins with those that come", function()
    seen:sample(1)
    seen.manager = { members = { { shard_id = "c", endpoints = {} } } }
    seen:sample(2)
    local all = seen:read()
    assert.is_nil(all.shards.a)
    assert.same({ 0 }, all.shards.c.rate)
  end)
end)
