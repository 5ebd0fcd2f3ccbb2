local strategy = require("lunashard.strategy")

local function shards(n)
  local list = {}
  for i = 1, n do
    list[i] = { shard_id = "shard" .. i }
  end
  return list
end

-- Largest deviation of a shard's share of the buckets from an even one.
local function imbalance(bound)
  local worst = 0
  for _, count in pairs(bound.map:shares()) do
    worst = math.max(worst, math.abs(count * #bound.shards / 16384 - 1))
  end
  return worst
end

local function ring(n, nodes)
  return strategy.bind({ "consistent_hash", virtual_nodes_per_shard = nodes }, shards(n))
end

describe("strategy.consistent_hash", function()
  it("places by the ring of virtual nodes at hashtextextended(shard_id, i)", function()
    -- Points of shard1 and shard2 on a server; all buckets of the ring by hand.
    local points = {
      { 4208488365619418337ULL, "shard1" },
      { 4396433933001127494ULL, "shard1" },
      { 5130544789449725674ULL, "shard2" },
      { 7282022194853109316ULL, "shard1" },
      { 7497539134668931704ULL, "shard2" },
      { 11022576938827223424ULL, "shard2" },
    }
    local bound = ring(2, 3)
    for bucket = 0, 16383 do
      local start, owner = bucket * 2ULL ^ 50, points[1][2]
      for i = #points, 1, -1 do
        if points[i][1] >= start then
          owner = points[i][2]
        end
      end
      assert.equal(owner, (bound:place(bucket)))
    end
  end)

  it("uses 150 virtual nodes unless told otherwise", function()
    assert.equal(0, ring(5):movement(ring(5, 150)).moved)
    assert.is_true(ring(5):movement(ring(5, 151)).moved > 0)
  end)

  it("balances better with more virtual nodes", function()
    local sums = { [50] = 0, [150] = 0, [1000] = 0 }
    for nodes in pairs(sums) do
      for n = 3, 16 do
        sums[nodes] = sums[nodes] + imbalance(ring(n, nodes))
      end
    end
    assert.is_true(sums[1000] < sums[150] and sums[150] < sums[50])
    assert.is_true(sums[150] / 14 < 0.20, "mean of the largest deviations " .. sums[150] / 14)
    assert.is_true(sums[1000] / 14 < 0.08, "mean of the largest deviations " .. sums[1000] / 14)
  end)

  it("moves about 1/(N+1) of the buckets to a new shard and none between old ones", function()
    for n = 3, 12 do
      local result = ring(n):movement(shards(n + 1))
      assert.is_true(math.abs(result.fraction * (n + 1) - 1) < 0.25, n .. " shards: " .. result.fraction)
      for way in pairs(result.by) do
        assert.matches("%->shard" .. n + 1 .. "$", way)
      end
    end
  end)

  it("gives a shard its weight's share", function()
    local list = shards(3)
    list[1].weight = 2
    local shares = strategy.bind({ "consistent_hash", virtual_nodes_per_shard = 1000 }, list).map:shares()
    assert.is_true(math.abs(shares.shard1 - 8192) < 820, "shard1 has " .. shares.shard1)
  end)

  it("does not depend on the order of the shards", function()
    local list = shards(5)
    list[1], list[4] = list[4], list[1]
    assert.equal(0, ring(5):movement(list).moved)
  end)

  it("refuses senseless numbers of virtual nodes, and weights too small for them", function()
    for _, nodes in ipairs({ 0, -1, 1.5, 100001, "150", 0 / 0 }) do
      assert.error_matches(function()
        ring(2, nodes)
      end, "virtual_nodes_per_shard is .*, but must be a whole number from 1 to 100000")
    end
    assert.error_matches(function()
      strategy.bind("consistent_hash", { { shard_id = "a" }, { shard_id = "b", weight = 0.001 } })
    end, 'weight 0.001 of shard "b" leaves it no virtual node of 150')
  end)
end)
