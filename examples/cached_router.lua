-- The guide's CachedShardRouter: results kept for a while, bounded, invalidated by writes; hits and misses counted.
--
-- It makes (and replaces) the table demo_profiles on the shards of the sandbox.

local lunashard = require("lunashard")

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_profiles;
  CREATE TABLE demo_profiles (user_id bigint PRIMARY KEY, name text NOT NULL);
]]))
for user_id = 1, 50 do
  assert(router:execute("INSERT INTO demo_profiles (user_id, name) VALUES ($1, $2)", { user_id, "user " .. user_id },
    { routing_key = user_id }))
end

-- A router with result caching. Here the clock is ours, so that 60 seconds pass at once.
local clock = 0
local cached = lunashard.cache {
  router = router,
  ttl = 60, -- seconds
  max_entries = 100,
  now = function()
    return clock
  end,
}

local SELECT = "SELECT name FROM demo_profiles WHERE user_id = $1"
local function get_name(user_id)
  return assert(cached:execute(SELECT, { user_id }, { routing_key = user_id })).rows[1].name
end
local function show(what)
  local stats = cached:get_statistics()
  print(("%-32s hits %3d, misses %3d, hit rate %3.0f%%"):format(what, stats.hits, stats.misses, stats.hit_rate * 100))
  return stats
end

local statements = router:get_statistics().total_queries
for _ = 1, 10 do
  for user_id = 1, 20 do
    assert(get_name(user_id) == "user " .. user_id)
  end
end
local stats = show("10 times 20 users:")
assert(stats.misses == 20 and stats.hits == 180)
print(("Statements on the shards: %d"):format(router:get_statistics().total_queries - statements))
assert(router:get_statistics().total_queries - statements == 20)

-- A write through the cache invalidates its routing key, and no other.
assert(cached:execute("UPDATE demo_profiles SET name = $2 WHERE user_id = $1", { 7, "renamed" }, { routing_key = 7 }))
assert(get_name(7) == "renamed" and get_name(8) == "user 8")
stats = show("After an update of user 7:")
assert(stats.misses == 21)

-- A write that went another way is the program's to announce.
assert(router:execute("UPDATE demo_profiles SET name = $2 WHERE user_id = $1", { 7, "renamed again" },
  { routing_key = 7 }))
assert(get_name(7) == "renamed")
cached:invalidate(7)
assert(get_name(7) == "renamed again")
show("After invalidate(7):")

-- Entries expire.
clock = clock + 61
assert(get_name(8) == "user 8")
stats = show("61 seconds later:")
assert(stats.misses == 23)

-- Many tasks that miss the same entry run one statement.
cached:invalidate_all()
local before = cached:get_statistics()
local tasks = {}
for i = 1, 100 do
  tasks[i] = function()
    return get_name(30)
  end
end
local names = assert(lunashard.gather(tasks))
assert(names[1] == "user 30" and names[100] == "user 30")
stats = show("100 tasks, one user:")
print(("Misses: %d; waited for it: %d"):format(stats.misses - before.misses, stats.coalesced - before.coalesced))
assert(stats.misses - before.misses == 1)

-- expect: 10 times 20 users: +hits 180, misses +20, hit rate +90%%
-- expect: Statements on the shards: 20
-- expect: After an update of user 7: .- misses +21,
-- expect: 61 seconds later: .- misses +23,
-- expect: Misses: 1; waited for it: 99
