-- Distribution check (the guide's Issue 1, uneven distribution): keys and rows per shard, for good and bad shard keys.
--
-- It makes (and replaces) the table demo_visits on the shards of the sandbox.

local lunashard = require("lunashard")

local shards = assert(require("lunashard.cluster").load(cluster.path)).shards

-- The guide's alert: unbalanced when the standard deviation is above 20 % of the mean.
local function deviation(distribution)
  local n, sum, squares = 0, 0, 0
  for _, count in pairs(distribution) do
    n, sum, squares = n + 1, sum + count, squares + count * count
  end
  local mean = sum / n
  return math.sqrt(math.max(squares / n - mean * mean, 0)) / mean
end

-- Check distribution.
local function report(what, distribution, noun)
  local total = 0
  for _, count in pairs(distribution) do
    total = total + count
  end
  print(what)
  for _, shard in ipairs(shards) do
    local count = distribution[shard.shard_id]
    print(("  %s: %d %s (%.1f%%)"):format(shard.shard_id, count, noun or "keys", count / total * 100))
  end
  local off = deviation(distribution)
  print(("  deviation %.1f%%: %s"):format(off * 100, off > 0.2 and "UNBALANCED" or "balanced"))
  return off
end

-- A sample of visits: user_id is of high cardinality, country is not, and most visits come from two countries.
local user_ids, countries = {}, {}
for i = 1, 9000 do
  user_ids[i] = 500000 + i * 7
  countries[i] = i % 10 < 6 and "US" or i % 10 < 9 and "DE" or "FR"
end

local by_user = lunashard.strategy.hash { shard_key = "user_id", shards = shards }
local by_country = lunashard.strategy.hash { shard_key = "country", key_type = "text", shards = shards }
assert(report("Shard key user_id:", assert(by_user:get_distribution(user_ids))) < 0.2)
assert(report("Shard key country (low cardinality):", assert(by_country:get_distribution(countries))) > 0.2)

-- Solution for consistent hashing: increase virtual nodes.
for _, nodes in ipairs { 5, 150 } do
  local ring = lunashard.strategy.consistent_hash { shard_key = "user_id", shards = shards,
    virtual_nodes_per_shard = nodes }
  report(("Consistent hashing with %d virtual nodes:"):format(nodes), assert(ring:get_distribution(user_ids)))
end

-- Keys are one thing, rows another: one user with very many rows makes a hot spot that no sample of keys shows.
local checked = lunashard.manager { strategy = by_user }
assert(checked:initialize())
local own_router = lunashard.router { shard_manager = checked }
assert(own_router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_visits;
  CREATE TABLE demo_visits (user_id bigint NOT NULL, visit int NOT NULL, PRIMARY KEY (user_id, visit));
]]))
local rows = {}
for i = 1, 3000 do
  rows[i] = { user_ids[i], 1 }
end
for visit = 2, 2000 do
  rows[#rows + 1] = { user_ids[1], visit }
end
assert(own_router:copy_in("demo_visits", { "user_id", "visit" }, rows))

local counts = assert(own_router:scatter_gather("SELECT count(*) AS count FROM demo_visits", nil,
  { aggregation_func = lunashard.aggregate.concat() }))
local distribution = {}
for _, shard in ipairs(shards) do
  distribution[shard.shard_id] = counts.shard_results[shard.shard_id].rows[1].count
end
assert(report("Rows in demo_visits:", distribution, "rows") > 0.2)

local hot = assert(own_router:scatter_gather(
  "SELECT user_id, count(*) AS visits FROM demo_visits GROUP BY user_id ORDER BY visits DESC, user_id LIMIT 3", nil,
  { aggregation_func = lunashard.aggregate.top_n { n = 1, by = "visits desc, user_id" } }))
print(("Hot spot: user %d with %d of %d rows, on %s"):format(hot.rows[1].user_id, hot.rows[1].visits, #rows,
  assert(checked:get_shard_for_write(hot.rows[1].user_id)).shard_id))
assert(hot.rows[1].user_id == user_ids[1] and hot.rows[1].visits == 2000)

checked:shutdown()

-- expect: Shard key user_id:\n  shard1: %d+ keys %(3%d%.%d%%%)
-- expect: deviation %d%.%d%%: balanced
-- expect: Shard key country.-UNBALANCED
-- expect: with 5 virtual nodes:
-- expect: with 150 virtual nodes:.-: balanced
-- expect: Rows in demo_visits:\n  shard1: %d+ rows.-UNBALANCED
-- expect: Hot spot: user 500007 with 2000 of 4999 rows, on shard%d
