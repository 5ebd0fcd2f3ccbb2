local errors = require("lunashard.errors")
local histogram = require("lunashard.router.histogram")
local statistics = require("lunashard.router.statistics")

describe("a histogram", function()
  it("finds percentiles within a tenth, compared with sorting all samples", function()
    local seed = os.time()
    math.randomseed(seed)
    local h, samples = histogram.new(), {}
    for i = 1, 5000 do
      samples[i] = 10 ^ (math.random() * 4 - 4) -- 0.1 ms to 1 s
      h:add(samples[i])
    end
    table.sort(samples)
    for _, share in ipairs({ 0.5, 0.95, 0.99 }) do
      local exact = samples[math.ceil(share * #samples)]
      local found = h:percentile(share)
      assert.is_true(math.abs(found - exact) / exact < 0.1, ("seed %d: %g against %g"):format(seed, found, exact))
    end
  end)

  it("is 0 without samples and never more than the largest", function()
    local h = histogram.new()
    assert.equal(0, h:percentile(0.99))
    h:add(0.0105)
    assert.is_true(h:percentile(0.99) <= 0.0105)
  end)

  it("takes what is shorter or longer than its buckets", function()
    local h = histogram.new()
    h:add(0)
    h:add(1e12)
    assert.equal(2, h.count)
    assert.equal(1e12, h.max)
  end)
end)

describe("statistics", function()
  it("count statements and errors by shard and by code", function()
    local s = statistics.new()
    s:record("shard1", 0.010, "h:1", "SELECT")
    s:record("shard1", 0.030, "h:2", "INSERT")
    s:record_failure("shard2", errors.new("TIMEOUT"))
    local seen = s:snapshot()
    assert.equal(3, seen.total_queries)
    assert.same({ shard1 = 2, shard2 = 1 }, seen.queries_by_shard)
    assert.equal(1, seen.errors)
    assert.same({ TIMEOUT = 1 }, seen.errors_by_code)
    assert.same({ shard2 = 1 }, seen.errors_by_shard)
    assert.is_true(math.abs(seen.average_latency_ms - 20) < 1e-9)
  end)

  it("give a copy that does not change any more", function()
    local s = statistics.new()
    local before = s:snapshot()
    s:record("shard1", 0.010, "h:1", "SELECT")
    assert.equal(0, before.total_queries)
    assert.is_nil(before.queries_by_shard.shard1)
  end)
end)
