-- The strategy that `plugin.lua` measures: an ordinary one, made of Lua.
return {
  api = 1,
  kind = "strategy",
  name = "bench_tier",
  new = function(_, shards)
    return { n = #shards }
  end,
  bucket = function(_, key)
    return tonumber(key % 1024)
  end,
  place = function(state, bucket, shards)
    return shards[bucket % state.n + 1].shard_id
  end,
}
