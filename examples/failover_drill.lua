-- A drill: the primary of a shard is killed in the middle of writes, its replica takes over, the old one comes back.
--
-- It starts servers of its own and removes them in the end. What it prints is a timeline: what was done to the servers
-- (>>), what Lunashard noticed and did (events of `on_health`), and how many writes were acknowledged meanwhile.
-- In the end every acknowledged write is looked for.

local lunashard = require("lunashard")
local sandbox = require("lunashard.sandbox")

local WRITERS, EVERY = 6, 0.5 -- tasks for each shard; seconds between two lines

local dir = os.tmpname() -- should the drill be broken off: lunashard sandbox destroy --dir <this>
os.remove(dir)
assert(sandbox.start({ dir = dir, shards = 2, replicas = 1 }))
local options = assert(require("lunashard.cluster").load(dir .. "/cluster.lua"))

local started = lunashard.now()
local function say(format, ...)
  print(("%5.1f s  %s"):format(lunashard.now() - started, format:format(...)))
end

-- ---- once, as superuser: commits wait for the replica, and Lunashard may promote it -----------------------------

local function execute_as_superuser(...)
  local superuser = assert(require("lunashard.cluster").load(dir .. "/cluster.lua"))
  for _, shard in ipairs(superuser.shards) do
    shard.user = "postgres"
  end
  local manager = lunashard.manager(superuser)
  assert(manager:initialize())
  local router = lunashard.router({ shard_manager = manager })
  for _, sql in ipairs({ ... }) do
    assert(router:execute_on_all_shards(sql))
  end
  manager:shutdown()
end

execute_as_superuser("CREATE TABLE drill (user_id bigint)", "GRANT ALL ON drill TO app",
  "GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO app",
  "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")

-- ---- the cluster, and what it tells -------------------------------------------------------------------------------

lunashard.set_warn(function() end) -- the same lines as the events'
options.health_check_interval, options.health_check_timeout, options.max_consecutive_failures = 0.5, 1, 2
options.promote = true
options.on_health = function(event)
  say("   %s", event.message)
end
local manager = lunashard.manager(options)
assert(manager:initialize())
local router = lunashard.router({ shard_manager = manager, query_timeout = 2 })

local told = { acknowledged = {}, refused = {}, unknown = {} }
local counts, next_id, running = {}, 0, true

local function new_id(shard_id)
  repeat
    next_id = next_id + 1
  until manager:get_shard_for_write(next_id).shard_id == shard_id
  return next_id
end

local function write(shard_id)
  while running do
    local id = new_id(shard_id)
    local result, err = router:execute("INSERT INTO drill VALUES ($1)", { id }, { routing_key = id })
    if result then
      table.insert(told.acknowledged, id)
      counts[result.shard_id] = (counts[result.shard_id] or 0) + 1
    else
      table.insert(err.code == "UNKNOWN_OUTCOME" and told.unknown or told.refused, id)
    end
    lunashard.sleep(0.02)
  end
end

local function report()
  while running do
    counts = {}
    lunashard.sleep(EVERY)
    local parts = {}
    for i, info in ipairs(manager.shards) do
      local n = counts[info.shard_id] or 0
      parts[i] = ("%s %3d %-20s"):format(info.shard_id, n, ("#"):rep(math.min(math.ceil(n / 10), 20)))
    end
    say("   writes: %s", table.concat(parts, " "))
  end
end

local tasks = { lunashard.spawn(report) }
for _, info in ipairs(manager.shards) do
  for _ = 1, WRITERS do
    tasks[#tasks + 1] = lunashard.spawn(write, info.shard_id)
  end
end

local function wait_until(condition)
  local deadline = lunashard.now() + 30
  while not condition() do
    assert(lunashard.now() < deadline, "waited in vain")
    lunashard.sleep(0.02)
  end
end

local function endpoint(shard_id, role)
  for _, one in ipairs(manager:get_shard_status(shard_id).endpoints) do
    if one.role == role then
      return one
    end
  end
end

-- ---- the drill -------------------------------------------------------------------------------------------------------

local old = endpoint("shard1", "primary").endpoint
say(">> %d tasks write to each of two shards; the primary of shard1 is %s", WRITERS, old)
lunashard.sleep(1.2)

say(">> kill -9 of %s", old)
assert(sandbox.kill({ dir = dir }, "shard1"))
wait_until(function()
  return endpoint("shard1", "primary").endpoint ~= old
end)
say(">> the primary of shard1 is %s now", endpoint("shard1", "primary").endpoint)
lunashard.sleep(1.2)

say(">> the old primary %s returns and still takes itself for one", old)
assert(sandbox.start({ dir = dir }))
lunashard.sleep(1.2)

say(">> it is rewound and follows the new one")
assert(sandbox.rejoin({ dir = dir }, "shard1"))
wait_until(function()
  local status = endpoint("shard1", "replica")
  return status and status.endpoint == old and status.is_healthy
end)
lunashard.sleep(1.2)

running = false
for _, task in ipairs(tasks) do
  assert(task:join(10))
end

-- ---- was it true what the tasks were told? -------------------------------------------------------------------------

local there = {}
for row in router:stream("SELECT user_id FROM drill") do
  there[row.user_id] = (there[row.user_id] or 0) + 1
end
local function count(ids, times)
  local n = 0
  for _, id in ipairs(ids) do
    n = n + ((there[id] or 0) == times and 1 or 0)
  end
  return n
end
print(("acknowledged: %d, there exactly once: %d"):format(#told.acknowledged, count(told.acknowledged, 1)))
print(("refused: %d, not there: %d"):format(#told.refused, count(told.refused, 0)))
print(("of unknown outcome: %d, there: %d, not there: %d"):format(#told.unknown, count(told.unknown, 1),
  count(told.unknown, 0)))
assert(count(told.acknowledged, 1) == #told.acknowledged and count(told.refused, 0) == #told.refused)
print("Every answer was true.")

manager:shutdown()
assert(sandbox.destroy({ dir = dir }))

-- runs without a cluster
-- expect: >> kill %-9 of 127.0.0.1:%d+
-- expect: is the primary now, in place of
-- expect: >> the primary of shard1 is 127.0.0.1:%d+ now
-- expect: >> the old primary
-- expect: gets no traffic
-- expect: >> it is rewound
-- expect: is a replica again
-- expect: Every answer was true.
