--- What policies that plan are made of: shares, who may have what, evening out. See `lunashard.rebalancer.plan` for the
-- state. Moves are lists of `bucket` and `to`.
-- @module lunashard.rebalancer.balance

local errors = require("lunashard.errors")
local options_of = require("lunashard.options")

local balance = {}

local function refuse(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

local function nothing() end

-- ---- what there is ----------------------------------------------------------------------

--- The shards that can get buckets, by id, and the sum of their weights.
-- @tparam table state
-- @treturn table shard_id -> shard
-- @treturn number
function balance.shards(state)
  local by_id, total = {}, 0
  for _, shard in ipairs(state.shards) do
    by_id[shard.shard_id] = shard
    total = total + (shard.weight or 1)
  end
  return by_id, total
end

--- Buckets by owner, in the order of the state.
-- @tparam table state
-- @treturn table shard_id -> a list of items
function balance.owned(state)
  local owned = {}
  for _, item in ipairs(state.buckets) do
    owned[item.owner] = owned[item.owner] or {}
    table.insert(owned[item.owner], item)
  end
  return owned
end

--- `count` of these items with that share of their rows, too: taken at even steps from the items in order of their rows.
-- @tparam {table,...} items
-- @int count
-- @treturn {table,...} in the order of `items`
function balance.sample(items, count)
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

--- May a bucket live on a shard, as far as residency goes? Rows of a region stay in their region where the strategy is
-- strict.
-- @tparam table state
-- @tparam table item of `state.buckets`
-- @tparam table shard of `state.shards`
-- @treturn boolean
function balance.resides(state, item, shard)
  return not state.residency or item.region == nil or item.region == shard.region
end

-- ---- the rules of a policy ------------------------------------------------------------------

local function amount(value, what, of)
  if type(value) ~= "number" or value ~= value or value < 0 or value == math.huge then
    error(errors.new("INVALID", { message = ("%s of %s: expected a number, 0 or more, got %s"):format(what, of,
      options_of.describe(value)) }), 0)
  end
  return value
end

--- Rows alone would leave empty buckets where they are, and buckets alone would not see the rows.
-- @tparam table state
-- @treturn func cost(item) -> number
function balance.mixed_cost(state)
  local rows = 0
  for _, item in ipairs(state.buckets) do
    rows = rows + item.rows
  end
  local per_bucket = math.max(1, rows / math.max(1, #state.buckets))
  return function(item)
    return item.rows + per_bucket
  end
end

-- What each bucket costs, how much each shard can take, and what may live where; each asked once.
local function rules_of(state, opts)
  local cost, capacity = opts.cost or balance.mixed_cost(state), opts.capacity
  local rules = { costs = {}, capacities = {}, pause = opts.pause or nothing, tolerance = opts.tolerance or 0.02 }
  for i, item in ipairs(state.buckets) do
    rules.costs[item] = amount(cost(item), "the cost", "bucket " .. tostring(item.bucket))
    if i % 256 == 0 then
      rules.pause()
    end
  end
  for _, shard in ipairs(state.shards) do
    rules.capacities[shard.shard_id] = amount(capacity and capacity(shard) or not capacity and (shard.weight or 1),
      "the capacity", "shard " .. shard.shard_id)
  end
  local answers = {}
  function rules.allowed(item, shard)
    local known = answers[item]
    if not known then
      known = {}
      answers[item] = known
    end
    if known[shard] == nil then
      known[shard] = balance.resides(state, item, shard) and (not opts.allowed or opts.allowed(item, shard)) and true or false
    end
    return known[shard]
  end
  rules.is_free = not opts.allowed and not state.residency
  return rules
end

-- ---- dealing out ------------------------------------------------------------------------------

-- To whoever comes nearest to its share by that, the dearest first.
local function deal(state, items, rules, held, moves)
  local list = {} -- of more than some thousand, unpack would fail
  for i, item in ipairs(items) do
    list[i] = item
  end
  table.sort(list, function(a, b)
    return rules.costs[a] > rules.costs[b]
  end)
  for i, item in ipairs(list) do
    local best
    for _, shard in ipairs(state.shards) do
      local id = shard.shard_id
      local capacity = rules.capacities[id]
      if capacity > 0 and rules.allowed(item, shard) then
        local load = ((held[id] or 0) + rules.costs[item]) / capacity
        if not best or load < best.load then
          best = { load = load, id = id }
        end
      end
    end
    if not best then
      return refuse("bucket %s%s, now on %s, may live on no other shard", tostring(item.bucket),
        item.region and (" (region %s)"):format(item.region) or "", item.owner)
    end
    held[best.id] = (held[best.id] or 0) + rules.costs[item]
    moves[#moves + 1] = { bucket = item.bucket, to = best.id }
    if i % 256 == 0 then
      rules.pause()
    end
  end
  return moves
end

local function held_by(state, rules)
  local held = {}
  for _, item in ipairs(state.buckets) do
    held[item.owner] = (held[item.owner] or 0) + rules.costs[item]
  end
  return held
end

--- Deal buckets out to the shards, so that each comes nearest to its share.
-- @tparam table state
-- @tparam {table,...} items of `state.buckets`
-- @tparam[opt] table opts `cost`, `capacity`, `allowed`, as for `even`
-- @treturn[1] {table,...} moves
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` naming a bucket that may live nowhere
function balance.deal(state, items, opts)
  local rules = rules_of(state, opts or {})
  return deal(state, items, rules, held_by(state, rules), {})
end

-- ---- evening out ---------------------------------------------------------------------------------

-- Shards that could exchange buckets with each other, directly or by others: shares are those of such a circle.
local function circles(state, rules)
  if rules.is_free then
    return { state.shards }
  end
  local parent = {}
  for i in ipairs(state.shards) do
    parent[i] = i
  end
  local function root(i)
    while parent[i] ~= i do
      i = parent[i]
    end
    return i
  end
  for n, item in ipairs(state.buckets) do
    local first
    for i, shard in ipairs(state.shards) do
      if rules.allowed(item, shard) then
        first = first or i
        parent[root(i)] = root(first)
      end
    end
    if n % 256 == 0 then
      rules.pause()
    end
  end
  local lists, order = {}, {}
  for i, shard in ipairs(state.shards) do
    local circle = root(i)
    if not lists[circle] then
      lists[circle] = {}
      order[#order + 1] = lists[circle]
    end
    table.insert(lists[circle], shard)
  end
  return order
end

-- The largest item that fits, for it needs the fewest; the items are in descending order.
local function take_fitting(items, taker, most, rules)
  for i, item in ipairs(items) do
    local one = rules.costs[item]
    if one > 0 and one <= most and (rules.is_free or rules.allowed(item, taker)) then
      return table.remove(items, i)
    end
  end
end

-- Up to the smaller of what is over and what is wanting, no bucket makes matters worse; where all are larger, half as far
-- again still helps.
local function choose(items, giver, takers, rules)
  for _, taker in ipairs(takers) do
    local most = math.min(giver.over, -taker.over)
    local item = take_fitting(items, taker.shard, most, rules)
      or take_fitting(items, taker.shard, math.min(most * 1.5, most + giver.share * rules.tolerance), rules)
    if item then
      return item, taker.shard.shard_id
    end
  end
end

local function sides(circle, held, shares, stuck, tolerance)
  local giver, takers = nil, {}
  for _, shard in ipairs(circle) do
    local id = shard.shard_id
    local one = { shard = shard, share = shares[id], over = (held[id] or 0) - shares[id] }
    if not stuck[id] and one.over > 0 and one.over > one.share * tolerance and (not giver or one.over > giver.over) then
      giver = one
    end
    if one.over < 0 then
      takers[#takers + 1] = one
    end
  end
  table.sort(takers, function(a, b)
    return a.over < b.over
  end)
  return giver, takers
end

local function level(circle, owned, held, rules, moves)
  local total, capacity, shares, stuck = 0, 0, {}, {}
  for _, shard in ipairs(circle) do
    total, capacity = total + (held[shard.shard_id] or 0), capacity + rules.capacities[shard.shard_id]
  end
  for _, shard in ipairs(circle) do
    shares[shard.shard_id] = capacity > 0 and total * rules.capacities[shard.shard_id] / capacity or 0
  end
  while capacity > 0 do
    local giver, takers = sides(circle, held, shares, stuck, rules.tolerance)
    if not giver or not takers[1] then
      return
    end
    local id = giver.shard.shard_id
    local item, to = choose(owned[id] or {}, giver, takers, rules)
    if item then
      held[id], held[to] = held[id] - rules.costs[item], (held[to] or 0) + rules.costs[item]
      moves[#moves + 1] = { bucket = item.bucket, to = to }
      if #moves % 64 == 0 then
        rules.pause()
      end
    else
      stuck[id] = true
    end
  end
end

--- As few buckets as are needed for each shard to have its share. Buckets that may not live where they are go elsewhere;
-- giants stay where they are, and are told of in `state.left`.
-- @tparam table state
-- @tparam[opt] table opts
--
-- - `cost`: function(bucket) -> number, what a bucket weighs [its rows, and a little besides]
-- - `capacity`: function(shard) -> number, how much a shard can take in proportion to others [its weight]
-- - `allowed`: function(bucket, shard) -> boolean; residency holds besides
-- - `tolerance`: of a share [0.02]; `pause`: called now and then
-- @treturn[1] {table,...} moves
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function balance.even(state, opts)
  local rules = rules_of(state, opts or {})
  local by_id = balance.shards(state)
  local homeless, owned = {}, {}
  state.left = state.left or {}
  for i, item in ipairs(state.buckets) do
    local shard = by_id[item.owner]
    if not shard or not (rules.is_free or rules.allowed(item, shard)) or rules.capacities[item.owner] == 0 then
      homeless[#homeless + 1] = item
    elseif item.is_giant then
      state.left[#state.left + 1] = item
    else
      owned[item.owner] = owned[item.owner] or {}
      table.insert(owned[item.owner], item)
    end
    if i % 256 == 0 then
      rules.pause()
    end
  end
  for _, items in pairs(owned) do
    table.sort(items, function(a, b)
      return rules.costs[a] > rules.costs[b]
    end)
    rules.pause()
  end
  local held = held_by(state, rules)
  for _, item in ipairs(homeless) do
    held[item.owner] = held[item.owner] - rules.costs[item]
  end
  local moves, err = deal(state, homeless, rules, held, {})
  if not moves then
    return nil, err
  end
  for _, circle in ipairs(circles(state, rules)) do
    level(circle, owned, held, rules, moves)
  end
  return moves
end

return balance
