--- Everything away from a shard. Where the strategy has no place for a bucket among the others, it goes to who has the least.
-- @module lunashard.policies.drain

local balance = require("lunashard.rebalancer.balance")
local errors = require("lunashard.errors")

local drain = { api = 1, kind = "policy", name = "drain", options = { "shard" } }

--- Plan.
-- @tparam table state without the shard in `shards`
-- @tparam table options `shard`
-- @treturn[1] {table,...} moves
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when there is no other shard, or none that may have a bucket
function drain.plan(state, options)
  local by_id = balance.shards(state)
  if next(by_id) == nil then
    return nil, errors.new("INVALID", { message = ("%s is the only shard, there is nowhere to move to"):format(options.shard) })
  end
  local moves, left = {}, {}
  for _, item in ipairs(state.buckets) do
    if item.owner == options.shard then
      local shard_id = state.place and state.place(item.bucket)
      if shard_id and by_id[shard_id] and balance.resides(state, item, by_id[shard_id]) then
        moves[#moves + 1] = { bucket = item.bucket, to = shard_id }
      else
        left[#left + 1] = item
      end
    end
  end
  local dealt, err = balance.deal(state, left)
  if not dealt then
    return nil, err
  end
  for _, move in ipairs(dealt) do
    moves[#moves + 1] = move
  end
  return moves
end

return drain
