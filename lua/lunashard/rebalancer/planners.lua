--- Planners: each says which buckets should live elsewhere. Pure; see `lunashard.rebalancer.plan` for the state.
--
-- - `follow`: where the strategy puts them over the present shards. Of `hash` a new shard takes an even share from each
--   of the others, and nothing moves between these
-- - `even`: as few as are needed for every shard to have its share, by `rows`, `bytes` or `buckets`
-- - `drain`: everything away from a shard
-- - `pin`: some buckets to a shard
-- - `list`: as is written down
-- @module lunashard.rebalancer.planners

local errors = require("lunashard.errors")

local planners = {}

local function refuse(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

local function ids_of(state)
  local set, total = {}, 0
  for _, shard in ipairs(state.shards) do
    set[shard.shard_id] = shard.weight or 1
    total = total + set[shard.shard_id]
  end
  return set, total
end

local function unknown_shard(what, shard_id, known)
  local near = errors.nearest(tostring(shard_id), known)
  return refuse("%s: there is no shard %s that could get buckets%s", what, tostring(shard_id),
    near and ("; did you mean %q?"):format(near) or "")
end

-- Buckets by owner, in the order of the state.
local function by_owner(state)
  local owned = {}
  for _, item in ipairs(state.buckets) do
    owned[item.shard_id] = owned[item.shard_id] or {}
    table.insert(owned[item.shard_id], item)
  end
  return owned
end

-- `count` of these items with that share of their rows, too: taken at even steps from the items in order of their rows.
local function sample(items, count)
  local sorted = {}
  for i, item in ipairs(items) do
    sorted[i] = { item = item, at = i }
  end
  table.sort(sorted, function(a, b)
    if a.item.rows ~= b.item.rows then
      return a.item.rows > b.item.rows
    end
    return a.at < b.at
  end)
  local chosen = {}
  for i = 1, count do
    chosen[i] = sorted[math.floor((i - 0.5) * #sorted / count) + 1]
  end
  table.sort(chosen, function(a, b)
    return a.at < b.at
  end)
  for i, one in ipairs(chosen) do
    chosen[i] = one.item
  end
  return chosen
end

-- Deal items out to shards so that each comes nearest to its share of `cost`, the dearest first.
local function deal(state, items, held, cost, assignments)
  local list = { unpack(items) }
  table.sort(list, function(a, b)
    return cost(a) > cost(b)
  end)
  local weights = ids_of(state)
  for _, item in ipairs(list) do
    local best
    for _, shard in ipairs(state.shards) do
      local id = shard.shard_id
      local load = ((held[id] or 0) + cost(item)) / weights[id]
      if not best or load < best.load then
        best = { load = load, id = id }
      end
    end
    held[best.id] = (held[best.id] or 0) + cost(item)
    assignments[#assignments + 1] = { bucket = item, destination = best.id }
  end
end

-- Rows alone would leave empty buckets where they are, and buckets alone would not see the rows.
local function mixed_cost(state)
  local rows = 0
  for _, item in ipairs(state.buckets) do
    rows = rows + item.rows
  end
  local per_bucket = math.max(1, rows / math.max(1, #state.buckets))
  return function(item)
    return item.rows + per_bucket
  end
end

local function held_by(state, cost)
  local held = {}
  for _, item in ipairs(state.buckets) do
    held[item.shard_id] = (held[item.shard_id] or 0) + cost(item)
  end
  return held
end

-- Strategies with nothing of their own to say: buckets of shards that are no more are dealt out, and shards that have none
-- get theirs from all who have more than their share.
local function follow_minimal(state)
  local weights, total_weight = ids_of(state)
  local owned, assignments, homeless = by_owner(state), {}, {}
  for _, item in ipairs(state.buckets) do
    if not weights[item.shard_id] then
      homeless[#homeless + 1] = item
    end
  end
  local cost = mixed_cost(state)
  deal(state, homeless, held_by(state, cost), cost, assignments)
  local fresh, wanted = {}, 0
  if #homeless == 0 then
    for _, shard in ipairs(state.shards) do
      if not owned[shard.shard_id] then
        fresh[#fresh + 1] = { id = shard.shard_id, wants = #state.buckets * weights[shard.shard_id] / total_weight, got = 0 }
        wanted = wanted + fresh[#fresh].wants
      end
    end
  end
  if #fresh == 0 then
    return assignments
  end
  local surplus, spare = {}, 0
  for _, shard in ipairs(state.shards) do
    local id = shard.shard_id
    local more = owned[id] and #owned[id] - #state.buckets * weights[id] / total_weight or 0
    if more > 0 then
      surplus[#surplus + 1], spare = { id = id, more = more }, spare + more
    end
  end
  local due = 0 -- fractions of buckets are carried over, so that none is lost
  for _, one in ipairs(surplus) do
    due = due + one.more * math.min(1, wanted / spare)
    local count = math.floor(due + 0.5)
    due = due - count
    for _, item in ipairs(sample(owned[one.id], count)) do
      local neediest
      for _, shard in ipairs(fresh) do
        if not neediest or shard.got / shard.wants < neediest.got / neediest.wants then
          neediest = shard
        end
      end
      neediest.got = neediest.got + 1
      assignments[#assignments + 1] = { bucket = item, destination = neediest.id }
    end
  end
  return assignments
end

--- Buckets to where the strategy puts them over the present shards.
-- @tparam table state
-- @treturn[1] {table,...} assignments
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when the strategy has no place for a bucket
function planners.follow(state)
  if not state.place then
    return follow_minimal(state)
  end
  local weights, assignments = ids_of(state), {}
  for _, item in ipairs(state.buckets) do
    local shard_id, err = state.place(item.bucket)
    if shard_id == nil then
      return refuse("follow: the strategy has no place for bucket %s: %s; say where it belongs with a list of moves",
        tostring(item.bucket), err and err.message or "it gave none")
    elseif not weights[shard_id] then
      return unknown_shard(("follow: bucket %s"):format(tostring(item.bucket)), shard_id, weights)
    elseif shard_id ~= item.shard_id then
      assignments[#assignments + 1] = { bucket = item, destination = shard_id }
    end
  end
  return assignments
end

--- Away from a shard, everything. Where the strategy has no place for a bucket among the others, it goes to who has the
-- least.
-- @tparam table state without the shard in `shards`
-- @tparam table options `shard`
-- @treturn[1] {table,...} assignments
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function planners.drain(state, options)
  local weights = ids_of(state)
  if next(weights) == nil then
    return refuse("drain: %s is the only shard, there is nowhere to move to", options.shard)
  end
  local assignments, left = {}, {}
  for _, item in ipairs(state.buckets) do
    if item.shard_id == options.shard then
      local shard_id = state.place and state.place(item.bucket)
      if shard_id and weights[shard_id] then
        assignments[#assignments + 1] = { bucket = item, destination = shard_id }
      else
        left[#left + 1] = item
      end
    end
  end
  local cost = mixed_cost(state)
  deal(state, left, held_by(state, cost), cost, assignments)
  return assignments
end

local COSTS = {
  rows = function(item)
    return item.rows
  end,
  bytes = function(item)
    return item.bytes
  end,
  buckets = function()
    return 1
  end,
}

-- The largest item that fits, for it needs the fewest; the items are in descending order.
local function take_fitting(items, cost, most)
  for i, item in ipairs(items) do
    local one = cost(item)
    if one > 0 and one <= most then
      return table.remove(items, i)
    end
  end
end

--- As few buckets as are needed for each shard to have its share by weight.
-- @tparam table state
-- @tparam table options `by`: `rows` [default], `bytes` or `buckets`; `tolerance`: of a share [0.02]
-- @treturn[1] {table,...} assignments
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function planners.even(state, options)
  local by = options.by or "rows"
  local cost = COSTS[by]
  if not cost then
    local near = errors.nearest(tostring(by), COSTS)
    return refuse("even: by must be rows, bytes or buckets, not %s%s", tostring(by),
      near and ("; did you mean %q?"):format(near) or "")
  end
  local weights, total_weight = ids_of(state)
  local held, total, owned = held_by(state, cost), 0, by_owner(state)
  for _, item in ipairs(state.buckets) do
    total = total + cost(item)
  end
  for _, items in pairs(owned) do
    table.sort(items, function(a, b)
      return cost(a) > cost(b)
    end)
  end
  local assignments, tolerance, homeless = {}, options.tolerance or 0.02, {}
  for _, item in ipairs(state.buckets) do
    if not weights[item.shard_id] then
      homeless[#homeless + 1] = item
    end
  end
  deal(state, homeless, held, cost, assignments)
  local stuck = {}
  while true do
    local giver, taker
    for _, shard in ipairs(state.shards) do
      local id = shard.shard_id
      local share = total * weights[id] / total_weight
      local one = { id = id, over = (held[id] or 0) - share, share = share }
      if not stuck[id] and one.over > share * tolerance and (not giver or one.over > giver.over) then
        giver = one
      end
      if not taker or one.over < taker.over then
        taker = one
      end
    end
    if not giver or taker.over >= 0 then
      return assignments
    end
    -- Up to the smaller of both, no bucket makes matters worse; where all are larger, half as far again still helps.
    local most = math.min(giver.over, -taker.over)
    local items = owned[giver.id] or {}
    local item = take_fitting(items, cost, most)
      or take_fitting(items, cost, math.min(most * 1.5, most + giver.share * tolerance))
    if item then
      held[giver.id], held[taker.id] = held[giver.id] - cost(item), (held[taker.id] or 0) + cost(item)
      assignments[#assignments + 1] = { bucket = item, destination = taker.id }
    else
      stuck[giver.id] = true
    end
  end
end

-- bucket in SQL's text -> its item
local function index(state)
  local known = {}
  for _, item in ipairs(state.buckets) do
    known[tostring(item.bucket)] = item
  end
  return known
end

--- Buckets to a shard, as is written down.
-- @tparam table state
-- @tparam table options `moves`: a list of `buckets` (or `bucket`) and `to`; each bucket once
-- @treturn[1] {table,...} assignments; buckets that are there already are left out
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` naming what is wrong with which item
function planners.list(state, options)
  if type(options.moves) ~= "table" or #options.moves == 0 then
    return refuse("list: moves must be a list such as { { buckets = { 1, 2 }, to = \"shard2\" } }")
  end
  local known, weights, assignments, seen = index(state), ids_of(state), {}, {}
  for i, move in ipairs(options.moves) do
    local buckets = type(move) == "table" and (move.buckets or { move.bucket })
    if type(buckets) ~= "table" or #buckets == 0 then
      return refuse("list: moves[%d]: names no bucket", i)
    elseif not weights[move.to] then
      return unknown_shard(("list: moves[%d]"):format(i), move.to, weights)
    end
    for _, bucket in ipairs(buckets) do
      local name = tostring(bucket)
      local item = known[name]
      if not item then
        return refuse("list: moves[%d]: the group %s has no bucket %s", i, state.group, name)
      elseif seen[name] then
        return refuse("list: moves[%d]: bucket %s is named twice", i, name)
      end
      seen[name] = true
      if item.shard_id ~= move.to then
        assignments[#assignments + 1] = { bucket = item, destination = move.to }
      end
    end
  end
  return assignments
end

--- Some buckets to one shard, as for a tenant that is to have it for its own.
-- @tparam table state
-- @tparam table options `buckets`, `shard`
-- @treturn[1] {table,...} assignments
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function planners.pin(state, options)
  local weights = ids_of(state)
  if not weights[options.shard] then
    return unknown_shard("pin", options.shard, weights)
  end
  return planners.list(state, { moves = { { buckets = options.buckets, to = options.shard } } })
end

return planners
