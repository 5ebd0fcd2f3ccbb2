-- Big tenants have a shard of their own, all others share what is left.
local tiers = require("tiers")

return {
  api = 1, kind = "strategy", name = "big_tenants",
  options = {},

  new = function(_, shards)
    local rest = {}
    for i = 1, #shards - 1 do
      rest[i] = shards[i].shard_id
    end
    return { rest = rest, own = shards[#shards].shard_id }
  end,

  bucket = function(_, key)
    return tiers.is_big(key) and "big" or lunashard.hash(key, 1024)
  end,

  place = function(state, bucket)
    return bucket == "big" and state.own or state.rest[bucket % #state.rest + 1]
  end,
}
