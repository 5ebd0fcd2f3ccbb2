--- What is for the same shard, together.
-- @module lunashard.router.groups

local groups = {}

--- Group items by the shards that they are for.
-- @tparam Manager manager
-- @tparam {string,...} shard_ids that of each item
-- @treturn {table,...} in the shards' configured order `{ member = , indexes = }`: a shard and its items' numbers
function groups.by_shard(manager, shard_ids)
  local by_shard, list = {}, {}
  for i, shard_id in ipairs(shard_ids) do
    local indexes = by_shard[shard_id]
    if not indexes then
      indexes = {}
      by_shard[shard_id] = indexes
    end
    indexes[#indexes + 1] = i
  end
  for _, member in ipairs(manager.members) do
    if by_shard[member.shard_id] then
      list[#list + 1] = { member = member, indexes = by_shard[member.shard_id] }
    end
  end
  return list
end

return groups
