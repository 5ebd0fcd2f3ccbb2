-- Range-based sharding: each shard owns ranges of keys, BETWEEN asks only the shards concerned, and growth appends a range.
--
-- It makes (and replaces) the table demo_range on the shards of the sandbox.

local lunashard = require("lunashard")

local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
assert(#shards == 3, "this example is written for three shards, as the sandbox has")
local first, second, third = shards[1].shard_id, shards[2].shard_id, shards[3].shard_id

local ranges = {
  [first] = { 0, 1000000 }, -- users 0 to 1M
  [second] = { 1000001, 2000000 }, -- users 1M to 2M
  [third] = { 2000001, nil }, -- users from 2M
}
local manager = lunashard.manager {
  strategy = lunashard.strategy.range { shard_key = "user_id", shards = shards, ranges = ranges },
}
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_range;
  CREATE TABLE demo_range (user_id bigint PRIMARY KEY, name text NOT NULL);
]]))

-- Bounds are inclusive.
for _, user_id in ipairs { 0, 1000000, 1000001, 2000000, 2000001, 987654321 } do
  local shard, range = assert(manager:get_shard_for_write(user_id))
  print(("User %9d is on %s (range %s)"):format(user_id, shard.shard_id, range))
end
local shard, err = manager:get_shard_for_write(-1)
assert(shard == nil and err.code == "NO_SHARD")
print("User -1 has no range: " .. tostring(err))

-- A user every 500: 6001 rows from 0 to 3M.
local rows = {}
for user_id = 0, 3000000, 500 do
  rows[#rows + 1] = { user_id, "user " .. user_id }
end
local loaded = assert(router:copy_in("demo_range", { "user_id", "name" }, rows))
for _, one in ipairs(manager.shards) do
  print(("  %s: %d users"):format(one.shard_id, loaded.rows_by_shard[one.shard_id]))
end

-- SELECT ... WHERE user_id BETWEEN low AND high, on the shards that can have such rows and no others.
local function count_between(low, high)
  local concerned = assert(manager.strategy:shards_for_range(low, high))
  local before = router:get_statistics().queries_by_shard
  local result = assert(router:scatter_gather(
    "SELECT count(*) AS count FROM demo_range WHERE user_id BETWEEN $1 AND $2", { low, high },
    { shard_ids = concerned, aggregation_func = lunashard.aggregate.sum("count") }))
  local after, asked = router:get_statistics().queries_by_shard, 0
  for _, one in ipairs(manager.shards) do
    asked = asked + ((after[one.shard_id] or 0) > (before[one.shard_id] or 0) and 1 or 0)
  end
  print(("BETWEEN %d AND %d: %d users; asked %d of %d shards (%s)"):format(low, high, result.rows[1].count, asked,
    #manager.shards, table.concat(concerned, ", ")))
  assert(asked == #concerned)
  return result.rows[1].count
end
assert(count_between(100000, 200000) == 201)
assert(count_between(900000, 1100000) == 401)
assert(count_between(0, 3000000) == #rows)

-- Mistakes in the ranges are found when the strategy is made, not when a row is lost.
local ok, message = pcall(lunashard.strategy.range, {
  shard_key = "user_id", shards = shards, ranges = { [first] = { 0, 1000 }, [second] = { 1000, 2000 } },
})
assert(not ok)
print("Refused: " .. message:gsub("^.-: ", "", 1))

-- Growth: close the open range above its greatest key and append the next one. Nothing moves.
local more = { unpack(shards) }
more[#more + 1] = { shard_id = "shard" .. #shards + 1 }
local grown = lunashard.strategy.range {
  shard_key = "user_id",
  shards = more,
  ranges = { [first] = ranges[first], [second] = ranges[second], [third] = { 2000001, 3000000 },
    [more[#more].shard_id] = { 3000001, nil } },
}
local keys = {}
for i, row in ipairs(rows) do
  keys[i] = row[1]
end
local movement = assert(manager.strategy:movement(grown, keys))
print(("Appending a range for %s moves %d of %d users; user 3000001 will be on %s"):format(more[#more].shard_id,
  movement.moved, movement.total, (assert(grown:route(3000001)))))
assert(movement.moved == 0)

manager:shutdown()

-- expect: User +0 is on shard1
-- expect: User +1000000 is on shard1
-- expect: User +1000001 is on shard2
-- expect: User +2000001 is on shard3
-- expect: User %-1 has no range: NO_SHARD
-- expect: shard1: 2001 users\n  shard2: 2000 users\n  shard3: 2000 users
-- expect: BETWEEN 100000 AND 200000: 201 users; asked 1 of 3 shards %(shard1%)
-- expect: BETWEEN 900000 AND 1100000: 401 users; asked 2 of 3 shards %(shard1, shard2%)
-- expect: BETWEEN 0 AND 3000000: 6001 users; asked 3 of 3 shards
-- expect: Refused: .-overlap
-- expect: moves 0 of 6001 users; user 3000001 will be on shard4
