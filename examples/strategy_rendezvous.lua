-- Rendezvous hashing: every bucket to the shard with the highest score; near-perfect balance, weights, least movement.
--
-- It makes (and replaces) the table demo_rendezvous on the shards of the sandbox.

local lunashard = require("lunashard")

local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
local manager = lunashard.manager {
  strategy = lunashard.strategy.rendezvous { shard_key = "user_id", shards = shards },
}
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_rendezvous;
  CREATE TABLE demo_rendezvous (user_id bigint PRIMARY KEY, name text NOT NULL);
]]))

local USERS = 12000
local keys, rows = {}, {}
for user_id = 1, USERS do
  keys[user_id], rows[user_id] = user_id, { user_id, "user " .. user_id }
end
local loaded = assert(router:copy_in("demo_rendezvous", { "user_id", "name" }, rows))
for _, one in ipairs(manager.shards) do
  local count = loaded.rows_by_shard[one.shard_id]
  local off = count / (USERS / #shards) - 1
  print(("  %s: %d users (%+.1f%% off an even share)"):format(one.shard_id, count, off * 100))
  assert(math.abs(off) < 0.05)
end
local shard, bucket = assert(manager:get_shard_for_write(7))
local user = assert(router:execute("SELECT name FROM demo_rendezvous WHERE user_id = $1", { 7 }, { routing_key = 7 }))
print(("User 7 is in bucket %d on %s: %s"):format(bucket, shard.shard_id, user.rows[1].name))
assert(user.shard_id == shard.shard_id)

-- One shard more, one shard less: only what must move does.
local function report(what, movement, is_needed)
  print(("%s moves %d of %d users (%.1f%%)"):format(what, movement.moved, movement.total, movement.fraction * 100))
  for way, count in pairs(movement.by) do
    assert(is_needed(way:match("^(.-)%->(.*)$")), ("%d users would move %s for nothing"):format(count, way))
  end
end
local more, added = { unpack(shards) }, "shard" .. #shards + 1
more[#more + 1] = { shard_id = added }
report("Adding " .. added, assert(manager.strategy:movement(more, keys)), function(_, to)
  return to == added
end)
local fewer, removed = { unpack(shards, 1, #shards - 1) }, shards[#shards].shard_id
report("Removing " .. removed, assert(manager.strategy:movement(fewer, keys)), function(from)
  return from == removed
end)

-- Weights are kept within 3 % over the buckets.
local weighted, total_weight = {}, 0
for i, one in ipairs(shards) do
  weighted[i] = { shard_id = one.shard_id, weight = i }
  total_weight = total_weight + i
end
local strategy = lunashard.strategy.rendezvous { shard_key = "user_id", shards = weighted }
local distribution = assert(strategy:get_distribution(keys))
for _, one in ipairs(weighted) do
  local share = distribution[one.shard_id] / USERS
  print(("  weight %d: %s gets %.1f%%, its weight is %.1f%%"):format(one.weight, one.shard_id, share * 100,
    one.weight / total_weight * 100))
  assert(math.abs(share / (one.weight / total_weight) - 1) < 0.08)
end

manager:shutdown()

-- expect: shard1: [34]%d%d%d users
-- expect: shard2: [34]%d%d%d users
-- expect: shard3: [34]%d%d%d users
-- expect: User 7 is in bucket %d+ on shard%d: user 7
-- expect: Adding shard4 moves [23]%d%d%d of 12000 users %(2%d%.%d%%%)
-- expect: Removing shard3 moves [34]%d%d%d of 12000 users %(3%d%.%d%%%)
-- expect: weight 1: shard1 gets 1%d%.%d%%, its weight is 16%.7%%
-- expect: weight 3: shard3 gets [45]%d%.%d%%, its weight is 50%.0%%
