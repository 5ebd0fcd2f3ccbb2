--- Hash strategy: exactly PostgreSQL's own PARTITION BY HASH.
-- For N shards there are n = N * ceil(16384 / N) buckets; a key's bucket is its row hash mod n, its
-- shard the bucket mod N in configured order. So a key lives where
-- `satisfies_hash_partition(partitioned_table, N, i - 1, key)` is true for the i-th shard, and
-- postgres_fdw partitions line up with the shards. Text keys agree for UTF8 databases and
-- deterministic collations; smallint, integer and bigint columns all hash as `int8`.
--
-- Even for any kind of key, but another number of shards sends N/(N+1) of the keys elsewhere.
-- @module lunashard.strategies.hash

local core = require("lunashard.core.placement")
local placement = require("lunashard.strategy.placement")

local hash = { api = 1, kind = "strategy", name = "hash", options = {} }

--- Build the map.
-- @tparam table options `key_type`
-- @tparam {table,...} shards of equal weight
-- @treturn table state
function hash.new(options, shards)
  placement.check_equal_weights("strategy hash", shards)
  return { map = placement.must(core.hash_map(options.key_type, shards)) }
end

hash.bucket = placement.map_bucket
hash.place = placement.map_place

return hash
