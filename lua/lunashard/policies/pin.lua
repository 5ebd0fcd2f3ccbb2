--- Some buckets to one shard, as for a tenant that is to have it for its own.
-- @module lunashard.policies.pin

local pin = { api = 1, kind = "policy", name = "pin", options = { "buckets", "shard" } }

--- Plan.
-- @tparam table _ the state
-- @tparam table options `buckets`, `shard`
-- @treturn {table,...} moves
function pin.plan(_, options)
  return { { buckets = options.buckets, to = options.shard } }
end

return pin
