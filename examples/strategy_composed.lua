-- Composed strategies: pins and a directory before hashing, and a threshold that lets a cluster grow without moving rows.
--
-- It makes (and replaces) the table demo_composed on the shards of the sandbox.

local lunashard = require("lunashard")
local strategy = lunashard.strategy

local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
assert(#shards == 3, "this example is written for three shards, as the sandbox has")
local first, second, third = shards[1].shard_id, shards[2].shard_id, shards[3].shard_id

-- The first that knows the key answers: two pinned users, a directory of larger customers, and for all others the
-- two shards of old, by range (keys below 1,000,000), or all three, by the ring (keys from there on).
local manager = lunashard.manager {
  shards = shards,
  strategy = strategy.first_of {
    shard_key = "user_id",
    key_type = "int8",
    strategy.pins { [42] = third, [4242] = first },
    strategy.directory { entries = { [500] = second, [501] = second } },
    strategy.threshold {
      below = 1000000,
      old = strategy.range { ranges = { [first] = { nil, 499999 }, [second] = { 500000, nil } } },
      new = strategy.consistent_hash { virtual_nodes_per_shard = 150 },
    },
  },
}
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_composed;
  CREATE TABLE demo_composed (user_id bigint PRIMARY KEY, name text NOT NULL);
]]))

local function show(user_id, why)
  local shard, bucket = assert(manager:get_shard_for_write(user_id))
  print(("User %7d is on %s (bucket %s): %s"):format(user_id, shard.shard_id, tostring(bucket), why))
  return shard.shard_id
end
assert(show(42, "pinned") == third)
assert(show(4242, "pinned") == first)
assert(show(500, "in the directory") == second)
assert(show(502, "below the threshold, old range") == first)
assert(show(999999, "below the threshold, old range") == second)
show(1000000, "from the threshold on, the ring over all shards")

-- Old users fill two shards; new ones fill all three.
local rows = {}
for i = 1, 3000 do
  rows[i] = { i * 333, "old user" }
  rows[3000 + i] = { 1000000 + i, "new user" }
end
assert(router:copy_in("demo_composed", { "user_id", "name" }, rows))
local counts = assert(router:scatter_gather([[
  SELECT count(*) FILTER (WHERE name = 'old user') AS old_users, count(*) FILTER (WHERE name = 'new user') AS new_users
  FROM demo_composed]], nil, { aggregation_func = lunashard.aggregate.concat() }))
for _, shard in ipairs(manager.shards) do
  local row = counts.shard_results[shard.shard_id].rows[1]
  print(("  %s: %4d old users, %4d new users"):format(shard.shard_id, row.old_users, row.new_users))
  assert(row.new_users > 600)
end
assert(counts.shard_results[third].rows[1].old_users == 0, "an old user went to the new shard")

-- Every row is found where it routes.
local found = 0
for i = 1, #rows, 100 do
  found = found + assert(router:execute("SELECT 1 FROM demo_composed WHERE user_id = $1", { rows[i][1] },
    { routing_key = rows[i][1] })).row_count
end
print(("Found %d of %d sampled users where they route"):format(found, #rows / 100))
assert(found == #rows / 100)

manager:shutdown()

-- expect: User +42 is on shard3 .-pinned
-- expect: User +4242 is on shard1 .-pinned
-- expect: User +500 is on shard2 .-in the directory
-- expect: User +502 is on shard1 .-old range
-- expect: User +999999 is on shard2 .-old range
-- expect: User +1000000 is on shard%d
-- expect: shard1: 1501 old users, +%d+ new users
-- expect: shard2: 1499 old users, +%d+ new users
-- expect: shard3: +0 old users, +%d+ new users
-- expect: Found 60 of 60
