--- What `lunashard new strategy` writes.
-- @module lunashard.cli.new.strategy

return {
  plugin = [=[
-- $NAME: keys are spread evenly, and buckets that are named live where you say.
-- In the cluster file: strategy = { "$NAME", shard_key = "tenant_id", pinned = { [42] = "shard1" } }

return {
  api = 1, kind = "strategy", name = "$NAME",
  options = { "pinned" },

  -- Runs once for a set of options and shards; the functions below get what it returns.
  new = function(options, shards)
    return { pinned = options.pinned or {} }
  end,

  -- The bucket of a key: an integer or a short text. It depends on the key alone and never changes,
  -- for the rows are looked for where it says.
  bucket = function(state, key)
    return lunashard.hash(key, 1024)
  end,

  -- The shard of a bucket. Where a bucket lives may change, when its rows are moved.
  place = function(state, bucket, shards)
    return state.pinned[bucket] or shards[bucket % #shards + 1].shard_id
  end,
}
]=],
  spec = [=[
local lunashard = require("lunashard")
local testing = require("lunashard.testing")

describe("the strategy $NAME", function()
  local shards = { { shard_id = "shard1" }, { shard_id = "shard2" }, { shard_id = "shard3" } }

  -- Loads it as a cluster would, by its contract.
  setup(function()
    testing.load($PATH)
  end)

  local function strategy(options)
    options.shard_key, options.key_type, options.shards = "tenant_id", "int8", shards
    return lunashard.strategy.$NAME(options)
  end

  it("answers for every key, and always the same", function()
    assert(testing.try(strategy({})))
  end)

  it("gives every shard its part of the keys", function()
    local keys = {}
    for key = 1, 3000 do
      keys[key] = key
    end
    for _, count in pairs(assert(strategy({}):get_distribution(keys))) do
      assert.is_true(count > 900)
    end
  end)

  it("places a pinned bucket where it is told to", function()
    local bucket = assert(strategy({}):bucket(42))
    for _, shard in ipairs(shards) do
      assert.equal(shard.shard_id, (strategy({ pinned = { [bucket] = shard.shard_id } }):route(42)))
    end
  end)
end)
]=],
}
