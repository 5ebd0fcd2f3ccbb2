--- Consistent hashing: buckets on a ring of virtual nodes.
-- A key's bucket is its row hash (that of PostgreSQL's PARTITION BY HASH) mod 16384. Bucket b stands at
-- b * 2^50 on a ring of 64-bit points and belongs to the first virtual node from there on. Virtual node i of a
-- shard stands at `hashtextextended(shard_id, i)`; a shard has `virtual_nodes_per_shard` times its `weight`, rounded.
-- Shards are told apart by `shard_id` alone: their order and address do not matter, but renaming one moves its rows.
--
-- A further shard moves about 1/(N+1) of the keys, all of them to it. How even the ring is, in per cent,
-- measured by scripts/dev/measure_balance.lua over 20 sets of names: the mean deviation from an even share (theory:
-- 100 / sqrt(virtual nodes)), and the largest of a set, on average and at worst.
--
--     virtual nodes   theory   mean (rms)    largest, 4 shards   largest, 16 shards
--     50                14.1   12.2 - 13.7   19.2, worst 28.9    28.3, worst 45.5
--     150 (default)      8.2    6.0 -  8.0    8.9, worst 16.8    15.0, worst 21.8
--     500                4.5    3.7 -  4.4    4.9, worst 11.3     8.9, worst 12.0
--     1000               3.2    2.6 -  3.2    4.1, worst  7.5     6.8, worst 10.6
--
-- Moved by a further shard, as a multiple of 1/(N+1): 0.82 to 1.22 with 150 nodes, 0.94 to 1.07 with 1000. More
-- nodes cost only the time to compute the map. `rendezvous` is more even and moves as little: prefer it unless a
-- ring is what you want.
-- @module lunashard.strategies.consistent_hash

local core = require("lunashard.core.placement")
local placement = require("lunashard.strategy.placement")

local MAX_NODES = 100000

local consistent_hash = {
  api = 1,
  kind = "strategy",
  name = "consistent_hash",
  options = { "virtual_nodes_per_shard" },
}

--- Build the map.
-- @tparam table options `virtual_nodes_per_shard` (150) of a shard of weight 1; `key_type`
-- @tparam {table,...} shards with `weight`
-- @treturn table state
function consistent_hash.new(options, shards)
  local nodes = options.virtual_nodes_per_shard == nil and 150 or options.virtual_nodes_per_shard
  if type(nodes) ~= "number" or nodes % 1 ~= 0 or nodes < 1 or nodes > MAX_NODES then
    error(("strategy consistent_hash: virtual_nodes_per_shard is %s, but must be a whole number from 1 to %d"):format(
      tostring(nodes), MAX_NODES), 0)
  end
  return { map = placement.must(core.ring_map(options.key_type, shards, nodes)) }
end

consistent_hash.bucket = placement.map_bucket
consistent_hash.place = placement.map_place

return consistent_hash
