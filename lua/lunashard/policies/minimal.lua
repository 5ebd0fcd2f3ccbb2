--- As little as can be: a shard that has nothing takes an even share from each of the others, what shards own that are no
-- more is dealt out, and nothing else moves.
-- @module lunashard.policies.minimal

local balance = require("lunashard.rebalancer.balance")
local breath = require("lunashard.plugin.breath")

local minimal = { api = 1, kind = "policy", name = "minimal", options = {} }

-- Shards without any bucket, with how many they want; how many that are in all.
local function newcomers(state, owned, total_weight)
  local list, wanted = {}, 0
  for _, shard in ipairs(state.shards) do
    if not owned[shard.shard_id] then
      local wants = #state.buckets * (shard.weight or 1) / total_weight
      list[#list + 1] = { id = shard.shard_id, wants = wants, got = 0 }
      wanted = wanted + wants
    end
  end
  return list, wanted
end

local function neediest(fresh)
  local most = fresh[1]
  for _, shard in ipairs(fresh) do
    if shard.got / shard.wants < most.got / most.wants then
      most = shard
    end
  end
  return most
end

--- Plan. Yields.
-- @tparam table state
-- @treturn[1] {table,...} moves
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when a bucket may live nowhere
function minimal.plan(state)
  local by_id, total_weight = balance.shards(state)
  local owned, homeless = balance.owned(state), {}
  for _, item in ipairs(state.buckets) do
    if not by_id[item.owner] then
      homeless[#homeless + 1] = item
    end
  end
  local fresh, wanted = newcomers(state, owned, total_weight)
  if #homeless > 0 or #fresh == 0 then
    return balance.deal(state, homeless)
  end
  local surplus, spare = {}, 0
  for _, shard in ipairs(state.shards) do
    local id = shard.shard_id
    local more = owned[id] and #owned[id] - #state.buckets * (shard.weight or 1) / total_weight or 0
    if more > 0 then
      surplus[#surplus + 1], spare = { id = id, more = more }, spare + more
    end
  end
  local pause = breath.new()
  local moves, due = {}, 0 -- fractions of buckets are carried over, so that none is lost
  for _, one in ipairs(surplus) do
    due = due + one.more * math.min(1, wanted / spare)
    local count = math.floor(due + 0.5)
    due = due - count
    pause()
    for _, item in ipairs(balance.sample(owned[one.id], count)) do
      local shard = neediest(fresh)
      shard.got = shard.got + 1
      moves[#moves + 1] = { bucket = item.bucket, to = shard.id }
    end
  end
  return moves
end

return minimal
