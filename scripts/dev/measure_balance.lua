-- How evenly placement spreads 16384 buckets: the figures in the strategies' documentation.
-- Usage: lunashard run scripts/dev/measure_balance.lua
-- Each row is over 20 sets of shard names; "largest" is the largest deviation of a shard's share from its
-- weight's share, in per cent, on average over the sets and at worst.
local strategy = require("lunashard.strategy")

local SETS = 20

local function shards(set, weights)
  local list = {}
  for i, weight in ipairs(weights) do
    -- The first set is what most people will have.
    list[i] = { shard_id = set == 1 and "shard" .. i or ("db-%d-%02d"):format(set, i), weight = weight }
  end
  return list
end

local function even(n)
  local weights = {}
  for i = 1, n do
    weights[i] = 1
  end
  return weights
end

local function measure(name, options, weights)
  local total, sum, worst, squares, first = 0, 0, 0, 0, nil
  for _, weight in ipairs(weights) do
    total = total + weight
  end
  for set = 1, SETS do
    options[1] = name
    local bound = strategy.bind(options, shards(set, weights))
    local shares, largest = bound.map:shares(), 0
    for _, shard in ipairs(bound.shards) do
      local deviation = shares[shard.shard_id] / (16384 * shard.weight / total) - 1
      largest, squares = math.max(largest, math.abs(deviation)), squares + deviation * deviation
    end
    first = first or largest
    sum, worst = sum + largest, math.max(worst, largest)
  end
  return 100 * math.sqrt(squares / SETS / #weights), 100 * sum / SETS, 100 * worst, 100 * first
end

local function movement(name, options, n)
  local sum, least, most, between_old = 0, math.huge, 0, 0 -- the last: worst of the sets, in % of all buckets
  for set = 1, SETS do
    options[1] = name
    local result = strategy.bind(options, shards(set, even(n))):movement(shards(set, even(n + 1)))
    local share = result.fraction * (n + 1)
    sum, least, most = sum + share, math.min(least, share), math.max(most, share)
    local new = shards(set, even(n + 1))[n + 1].shard_id
    local others = 0
    for way, count in pairs(result.by) do
      others = others + (way:sub(-#new - 2) == "->" .. new and 0 or count)
    end
    between_old = math.max(between_old, 100 * others / result.total)
  end
  return sum / SETS, least, most, between_old
end

local function row(...)
  print(("%-34s %7.2f %7.2f %7.2f %7.2f"):format(...))
end

print("imbalance in %                         rms largest   worst shard1..N")
for _, nodes in ipairs({ 50, 150, 500, 1000 }) do
  for _, n in ipairs({ 3, 4, 6, 8, 12, 16 }) do
    row(("consistent_hash %4d nodes, %2d shards"):format(nodes, n),
      measure("consistent_hash", { virtual_nodes_per_shard = nodes }, even(n)))
  end
end
for _, n in ipairs({ 2, 3, 4, 6, 8, 10, 12, 16, 32 }) do
  row(("rendezvous, %2d shards"):format(n), measure("rendezvous", {}, even(n)))
end
for _, weights in ipairs({ { 1, 2 }, { 1, 2, 3 }, { 1, 1, 2, 4 }, { 1, 1, 1, 1, 4, 4 } }) do
  row("rendezvous, weights " .. table.concat(weights, ":"), measure("rendezvous", {}, weights))
end

print("\nmoved by one more shard, as a multiple of 1/(N+1): mean, least, most; between old shards in %")
for _, given in ipairs({ { "consistent_hash", 150 }, { "consistent_hash", 1000 }, { "rendezvous" } }) do
  for _, n in ipairs({ 3, 4, 8, 15 }) do
    print(("%-34s %7.3f %7.3f %7.3f %7.3f"):format(("%s %s, %d to %d shards"):format(given[1], given[2] or "", n, n + 1),
      movement(given[1], { virtual_nodes_per_shard = given[2] }, n)))
  end
end
