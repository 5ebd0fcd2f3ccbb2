--- Rendezvous hashing: each bucket to the shard with the highest weighted score.
-- @module lunashard.strategies.rendezvous

local core = require("lunashard.core.placement")
local placement = require("lunashard.placement")

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
