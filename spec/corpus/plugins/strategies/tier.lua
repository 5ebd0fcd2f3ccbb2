-- Tenants by tier: a few big ones have a shard of their own.
local big = { [42] = "s2", [7] = "s3" }

return {
  api = 1,
  kind = "strategy",
  name = "tier",
  options = { "spread" },

  new = function(options, shards)
    return { spread = options.spread or 64, count = #shards }
  end,

  bucket = function(state, key)
    if big[tonumber(key)] then
      return "tenant " .. tostring(key)
    end
    return lunashard.hash(key, state.spread)
  end,

  place = function(state, bucket, shards)
    if type(bucket) == "string" then
      return big[tonumber(string.match(bucket, "%d+"))]
    end
    for i = 1, state.count do
      if bucket % state.count == i - 1 then
        return shards[i].shard_id
      end
    end
    return nil, "no shard for bucket " .. bucket
  end,
}
