--- To where the strategy puts it: what a new shard, another weight or another list of shards calls for. The default.
-- Of `hash`, and of strategies that say nothing of their own accord, as `minimal`.
-- @module lunashard.policies.follow

local errors = require("lunashard.errors")
local minimal = require("lunashard.policies.minimal")

local follow = { api = 1, kind = "policy", name = "follow", options = {} }

--- Plan.
-- @tparam table state
-- @treturn[1] {table,...} moves
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when the strategy has no place for a bucket
function follow.plan(state)
  if not state.place then
    return minimal.plan(state)
  end
  local moves = {}
  for _, item in ipairs(state.buckets) do
    local shard_id, err = state.place(item.bucket)
    if shard_id == nil then
      return nil, errors.new("INVALID", { message = ("the strategy has no place for bucket %s: %s; say where it belongs with a "
        .. "list of moves"):format(tostring(item.bucket), err and err.message or "it gave none") })
    elseif shard_id ~= item.owner then
      moves[#moves + 1] = { bucket = item.bucket, to = shard_id }
    end
  end
  return moves
end

return follow
