--- Rendezvous hashing: each bucket to the shard with the highest weighted score.
-- A key's bucket is its row hash (that of PostgreSQL's PARTITION BY HASH) mod 16384. Each shard ranks all buckets by
-- `hashtextextended(shard_id, bucket)`; its score for the one at rank r (from 0) is weight / -ln((r + 0.5) / 16384).
-- Shards are told apart by `shard_id` alone: their order and address do not matter, but renaming one moves its rows.
--
-- How even that is depends on chance, and chance on the number of buckets: with 16384 of them, independent scores
-- would leave the largest deviation from an even share at 1.7 % for 4 shards, 4 % for 8 and 6 % for 16. Ranks take a
-- third off that; shards that are still more than 3 % from their weight's share have their weight corrected until
-- they are not (up to 64 shards). Measured by scripts/dev/measure_balance.lua over 20 sets of names, in per cent: the
-- mean deviation and the largest of a set, on average and at worst.
--
--     shards            mean (rms)   largest   worst
--     2                        0.4       0.3     1.0
--     4                        1.0       1.3     3.0
--     8                        1.4       2.3     2.9
--     16                       1.7       2.9     2.9
--     32                       2.0       2.9     2.9
--     weights 1:2:3            0.9       1.1     2.3
--     1:1:1:1:4:4              1.4       2.4     3.0
--
-- That is the buckets' share; a sample of keys adds its own scatter (of 10,000 keys over 4 shards, 1.7 % rms).
-- A further shard moves 0.97 to 1.03 times 1/(N+1) of the keys. None move between old shards unless weights
-- were corrected, which happens with some sets of names; then up to 1.5 % of all did (2 and 3 shards; 0.6 % from 4 on).
-- Who wants none under any names takes `consistent_hash`.
-- @module lunashard.strategies.rendezvous

local core = require("lunashard.core.placement")
local placement = require("lunashard.strategy.placement")

local rendezvous = { api = 1, kind = "strategy", name = "rendezvous", options = {} }

--- Build the map.
-- @tparam table options `key_type`
-- @tparam {table,...} shards with `weight`
-- @treturn table state
function rendezvous.new(options, shards)
  return { map = placement.must(core.rendezvous_map(options.key_type, shards)) }
end

rendezvous.bucket = placement.map_bucket
rendezvous.place = placement.map_place

return rendezvous
