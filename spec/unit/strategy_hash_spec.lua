local strategy = require("lunashard.strategy")

local function shards(n)
  local list = {}
  for i = 1, n do
    list[i] = { shard_id = "shard" .. i }
  end
  return list
end

describe("strategy.hash", function()
  it("places a bucket on the shard of its remainder, in configured order", function()
    for n = 1, 16 do
      local bound = strategy.bind("hash", shards(n), { key_type = "int8" })
      for key = 1, 200 do
        local shard_id, bucket = bound:route(key)
        assert.equal("shard" .. (bucket % n + 1), shard_id)
      end
    end
  end)

  it("spreads consecutive integers and texts evenly", function()
    local bound, numbers, texts = strategy.bind("hash", shards(4)), {}, {}
    for i = 1, 40000 do
      numbers[i], texts[i] = i, "user" .. i
    end
    for _, keys in ipairs({ numbers, texts }) do
      for shard_id, count in pairs(bound:get_distribution(keys)) do
        assert.is_true(math.abs(count - 10000) < 400, shard_id .. " has " .. count)
      end
    end
  end)

  it("refuses shards of different weight, for it cannot weigh", function()
    local list = shards(2)
    list[2].weight = 2
    assert.error_matches(function()
      strategy.bind("hash", list)
    end, "shard1 has weight 1 and shard2 2; use consistent_hash or rendezvous")
    list[1].weight = 2
    assert.equal("hash", strategy.bind("hash", list).name)
  end)
end)
