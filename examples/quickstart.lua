-- The guide's Quick Start: users on three shards, one read from its shard, a total over all of them.
--
--   lunashard run -c <cluster.lua> examples/quickstart.lua
--
-- With -c, `manager` and `router` are open already; the cluster file names the shards and the
-- strategy. Without a cluster file a script builds the same two objects:
--
--   local manager = lunashard.manager { shards = { ... }, strategy = lunashard.strategy.hash { ... } }
--   assert(manager:initialize())
--   local router = lunashard.router { shard_manager = manager }

local lunashard = require("lunashard")

assert(router, "give a cluster file: lunashard run -c cluster.lua examples/quickstart.lua")

-- A table on every shard.
assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS users;
  CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL, is_active boolean NOT NULL);
]]))

-- Rows go to the shard that owns their key.
for user_id = 12340, 12399 do
  assert(router:execute("INSERT INTO users (user_id, name, is_active) VALUES ($1, $2, $3)",
    { user_id, "user " .. user_id, user_id % 3 ~= 0 }, { routing_key = user_id }))
end

-- Single-shard query (fast).
local result = assert(router:execute("SELECT * FROM users WHERE user_id = $1", { 12345 }, { routing_key = 12345 }))
local user = result.rows[1]
print(("Found user: %d, %s, on %s"):format(user.user_id, user.name, result.shard_id))

-- Multi-shard query (scatter-gather), combined by a function as in the guide.
local total = assert(router:scatter_gather("SELECT count(*) AS count FROM users WHERE is_active = $1", { true }, {
  aggregation_func = function(results)
    local sum = 0
    for _, shard_result in ipairs(results) do
      sum = sum + shard_result.rows[1].count
      print(("  %s counts %d"):format(shard_result.shard_id, shard_result.rows[1].count))
    end
    return { total = sum }
  end,
}))
print(("Total active users: %d"):format(total.rows[1].total))

-- The same by an aggregate that is shipped.
total = assert(router:scatter_gather("SELECT count(*) AS count FROM users", nil,
  { aggregation_func = lunashard.aggregate.sum("count") }))
print(("Total users: %d"):format(total.rows[1].count))

-- expect: Found user: 12345, user 12345, on shard%d
-- expect: Total active users: 40
-- expect: Total users: 60
