local strategy = require("lunashard.strategy")

local function shards(weights)
  local list = {}
  for i, weight in ipairs(weights) do
    list[i] = { shard_id = "shard" .. i, weight = weight }
  end
  return list
end

local function even(n)
  local weights = {}
  for i = 1, n do
    weights[i] = 1
  end
  return shards(weights)
end

-- Largest deviation of a shard's share of the buckets from its weight's.
local function imbalance(list)
  local total, worst = 0, 0
  for _, shard in ipairs(list) do
    total = total + shard.weight
  end
  local shares = strategy.bind("rendezvous", list).map:shares()
  for _, shard in ipairs(list) do
    worst = math.max(worst, math.abs(shares[shard.shard_id] / (16384 * shard.weight / total) - 1))
  end
  return worst
end

describe("strategy.rendezvous", function()
  it("stays within 3 % of even shares, for many shards too", function()
    for n = 2, 16 do
      local deviation = imbalance(even(n))
      assert.is_true(deviation <= 0.03, n .. " shards: " .. deviation)
    end
    assert.is_true(imbalance(even(40)) <= 0.03)
  end)

  it("stays within 3 % of the weights", function()
    for _, weights in ipairs({ { 1, 2 }, { 1, 2, 3 }, { 1, 1, 2, 4 }, { 0.5, 1, 1.5 }, { 3, 3, 1, 1, 2 } }) do
      local deviation = imbalance(shards(weights))
      assert.is_true(deviation <= 0.03, table.concat(weights, ":") .. " deviates by " .. deviation)
    end
  end)

  it("moves 1/(N+1) of the buckets to a new shard and none between old ones", function()
    for n = 2, 8 do
      local result = strategy.bind("rendezvous", even(n)):movement(even(n + 1))
      assert.is_true(math.abs(result.fraction * (n + 1) - 1) < 0.03, n .. " shards: " .. result.fraction)
      for way in pairs(result.by) do
        assert.matches("%->shard" .. n + 1 .. "$", way)
      end
    end
  end)

  it("moves next to none between old shards where many shards need corrected weights", function()
    for n = 9, 15 do
      local others = 0
      local result = strategy.bind("rendezvous", even(n)):movement(even(n + 1))
      for way, count in pairs(result.by) do
        others = others + (way:find("->shard" .. n + 1, 1, true) and 0 or count)
      end
      assert.is_true(others < 16384 / 200, n .. " shards: " .. others)
      assert.is_true(math.abs(result.fraction * (n + 1) - 1) < 0.08, n .. " shards: " .. result.fraction)
    end
  end)

  it("spreads what a removed shard had over all others", function()
    local result = strategy.bind("rendezvous", even(4)):movement(even(3))
    for i = 1, 3 do
      local got = result.by["shard4->shard" .. i]
      assert.is_true(math.abs(got / (result.moved / 3) - 1) < 0.1, "shard" .. i .. " got " .. got)
    end
  end)

  it("does not depend on the order of the shards, nor on the unit of the weights", function()
    local list = shards({ 1, 2, 3 })
    list[1], list[3] = list[3], list[1]
    local bound = strategy.bind("rendezvous", shards({ 1, 2, 3 }))
    assert.equal(0, bound:movement(list).moved)
    assert.equal(0, bound:movement(shards({ 4, 8, 12 })).moved)
  end)
end)
