--- Consistent hashing: buckets on a ring of virtual nodes.
-- @module lunashard.strategies.consistent_hash

local core = require("lunashard.core.placement")
local placement = require("lunashard.placement")

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
