-- Consistent hashing: virtual nodes on a ring, weights, and how little moves when a shard is added.
--
-- It makes (and replaces) the table demo_ring on the shards of the sandbox.

local lunashard = require("lunashard")

local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
local strategy = lunashard.strategy.consistent_hash {
  shard_key = "user_id",
  shards = shards,
  virtual_nodes_per_shard = 150, -- more = better distribution
}
local manager = lunashard.manager { strategy = strategy }
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_ring;
  CREATE TABLE demo_ring (user_id bigint PRIMARY KEY, name text NOT NULL);
]]))

-- Real rows, each on the shard that owns its key.
local USERS = 12000
local keys, rows = {}, {}
for user_id = 1, USERS do
  keys[user_id], rows[user_id] = user_id, { user_id, "user " .. user_id }
end
local loaded = assert(router:copy_in("demo_ring", { "user_id", "name" }, rows))
for _, one in ipairs(manager.shards) do
  local count = loaded.rows_by_shard[one.shard_id]
  print(("  %s: %d users (%.1f%%)"):format(one.shard_id, count, count / USERS * 100))
end
local user = assert(router:execute("SELECT * FROM demo_ring WHERE user_id = $1", { 12345 % USERS },
  { routing_key = 12345 % USERS }))
assert(user.row_count == 1, "a row is not where its key routes")

-- What would move if a fourth shard came, by the ring and by hash mod N.
local more, added = { unpack(shards) }, "shard" .. #shards + 1
more[#more + 1] = { shard_id = added }
local movement = assert(manager.strategy:movement(more, keys))
print(("Adding %s moves %d of %d users (%.1f%%; 1/%d is %.1f%%), all of them to %s"):format(added, movement.moved,
  movement.total, movement.fraction * 100, #more, 100 / #more, added))
for way, count in pairs(movement.by) do
  assert(way:match("%->(.*)$") == added, ("%d users would move between old shards: %s"):format(count, way))
end
assert(movement.fraction < 0.35)

local by_hash = lunashard.strategy.hash { shard_key = "user_id", shards = shards }:movement(more, keys)
print(("hash would move %.1f%%"):format(by_hash.fraction * 100))

-- Higher capacity servers get more data: the first shard twice.
local weighted = {}
for i, shard in ipairs(shards) do
  weighted[i] = { shard_id = shard.shard_id, weight = i == 1 and 2.0 or 1.0 }
end
local distribution = assert(lunashard.strategy.consistent_hash { shard_key = "user_id", shards = weighted }
  :get_distribution(keys))
for _, shard in ipairs(weighted) do
  local count = distribution[shard.shard_id]
  print(("  weight %g: %s gets %.1f%%"):format(shard.weight, shard.shard_id, count / USERS * 100))
end
local share = distribution[weighted[1].shard_id] / USERS
assert(share > 0.40 and share < 0.60, "twice the weight should be about half of three shards' keys")

-- More virtual nodes, better balance: about 1 / sqrt(nodes).
for _, nodes in ipairs { 10, 50, 150, 500, 1000 } do
  local counts = assert(lunashard.strategy.consistent_hash {
    shard_key = "user_id", shards = shards, virtual_nodes_per_shard = nodes,
  }:get_distribution(keys))
  local fullest = 0
  for _, count in pairs(counts) do
    fullest = math.max(fullest, count)
  end
  print(("  %4d virtual nodes: the fullest shard has %.1f%% more than its share"):format(nodes,
    (fullest / (USERS / #shards) - 1) * 100))
end

manager:shutdown()

-- expect: shard1: %d+ users %([23]%d%.%d%%%)
-- expect: shard2: %d+ users %([234]%d%.%d%%%)
-- expect: shard3: %d+ users %([234]%d%.%d%%%)
-- expect: Adding shard4 moves [23]%d%d%d of 12000 users %(2%d%.%d%%; 1/4 is 25%.0%%%), all of them to shard4
-- expect: hash would move 7%d%.%d%%
-- expect: weight 2: shard1 gets [45]%d%.%d%%
-- expect: 10 virtual nodes
-- expect: 1000 virtual nodes: the fullest shard has %d%.%d%% more
