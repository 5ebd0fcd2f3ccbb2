-- Shards were rented with so many gigabytes each: rows are spread by that, gently by day and at full speed by night.
-- lunashard rebalance start --planner contracts:largest=100000 --throttle contracts
return {
  api = 1, kind = "policy", name = "contracts",
  options = { "largest", "tolerance" },

  cost = function(bucket)
    return bucket.bytes
  end,

  capacity = function(shard)
    return shard.tags.gigabytes or 100
  end,

  -- Tenants with more rows than this stay where they are.
  allowed = function(bucket, shard, options)
    return shard.shard_id == bucket.owner or bucket.rows <= (options.largest or math.huge)
  end,

  throttle = function(stats)
    if stats.time.hour >= 22 or stats.time.hour < 6 then
      return 0
    end
    return stats.p95_ms > 20 and 0.2 or 0.02
  end,
}
