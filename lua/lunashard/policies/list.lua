--- Buckets to shards, as is written down.
-- @module lunashard.policies.list

local list = { api = 1, kind = "policy", name = "list", options = { "moves" } }

--- Check the options.
-- @tparam table options `moves`: a list of `buckets` (or `bucket`) and `to`
-- @treturn table options
function list.new(options)
  if type(options.moves) ~= "table" or #options.moves == 0 then
    error("list: moves must be a list such as { { buckets = { 1, 2 }, to = \"shard2\" } }", 0)
  end
  return options
end

--- Plan.
-- @tparam table _ the state
-- @tparam table options from `new`
-- @treturn {table,...} moves
function list.plan(_, options)
  return options.moves
end

return list
