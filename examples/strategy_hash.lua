-- Hash-based sharding: even distribution, O(1) look-up, and the very placement of PostgreSQL's own PARTITION BY HASH.
--
-- It makes (and replaces) the tables demo_hash and demo_hash_parent on the shards of the sandbox.

local lunashard = require("lunashard")

-- Define shards: those of the cluster file. Create the hash strategy, initialize the manager.
local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
local strategy = lunashard.strategy.hash { shard_key = "user_id", key_type = "int8", shards = shards }
local manager = lunashard.manager { strategy = strategy }
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_hash, demo_hash_parent;
  CREATE TABLE demo_hash (user_id bigint PRIMARY KEY, name text NOT NULL);
  CREATE TABLE demo_hash_parent (user_id bigint) PARTITION BY HASH (user_id);
]]))

-- Route one key. Its bucket never changes; the shard is the bucket's.
local shard, bucket = manager:get_shard_for_write(12345)
print(("User 12345 is on %s (bucket %d)"):format(shard.shard_id, bucket))

-- 42, 42.0, 42LL and "42" are one key.
for _, key in ipairs { 42, 42.0, 42LL, 42ULL, "42" } do
  assert(manager:get_shard_for_write(key).shard_id == manager:get_shard_for_write(42).shard_id)
end

-- Real rows: each goes to the shard that owns its key.
local USERS = 6000
local function users()
  local user_id = 0
  return function()
    user_id = user_id + 1
    if user_id <= USERS then
      return { user_id, "user " .. user_id }
    end
  end
end
assert(router:copy_in("demo_hash", { "user_id", "name" }, users()))

local keys = {}
for user_id = 1, USERS do
  keys[user_id] = user_id
end
local expected = assert(manager.strategy:get_distribution(keys))
local counted = assert(router:scatter_gather("SELECT count(*) AS count FROM demo_hash", nil,
  { aggregation_func = lunashard.aggregate.concat() }))
for _, one in ipairs(manager.shards) do
  local count = counted.shard_results[one.shard_id].rows[1].count
  print(("  %s: %d users (%.1f%%)"):format(one.shard_id, count, count / USERS * 100))
  assert(count == expected[one.shard_id], "get_distribution and the tables disagree")
end

-- PostgreSQL agrees for every row: satisfies_hash_partition() is what its own partitions use.
for remainder, one in ipairs(manager.shards) do
  local result = assert(router:execute([[
    SELECT count(*) AS misplaced FROM demo_hash
    WHERE NOT satisfies_hash_partition('demo_hash_parent'::regclass, $1::int, $2::int, user_id)
  ]], { #manager.shards, remainder - 1 }, { shard_id = one.shard_id }))
  assert(result.rows[1].misplaced == 0, one.shard_id .. " holds rows that PostgreSQL would place elsewhere")
end
print(("PostgreSQL's satisfies_hash_partition agrees about all %d rows"):format(USERS))

-- The price of hash mod N: one more shard moves most keys. (See strategy_consistent_hash.lua.)
local more = { unpack(shards) }
more[#more + 1] = { shard_id = "shard" .. #shards + 1 }
local movement = manager.strategy:movement(more, keys)
print(("Adding a shard would move %d of %d users (%.0f%%)"):format(movement.moved, movement.total,
  movement.fraction * 100))

manager:shutdown()

-- expect: User 12345 is on shard%d %(bucket %d+%)
-- expect: shard1: %d+ users %(3%d%.%d%%%)
-- expect: shard2: %d+ users %(3%d%.%d%%%)
-- expect: shard3: %d+ users %(3%d%.%d%%%)
-- expect: agrees about all 6000 rows
-- expect: Adding a shard would move 4%d%d%d of 6000 users %(7%d%%%)
