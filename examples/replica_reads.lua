-- Reads from replicas: spread over those that are well, never staler than allowed, and after what was just written.
--
-- It starts servers of its own, a primary and two replicas, one of which is held back for a while; and removes them.

local lunashard = require("lunashard")
local sandbox = require("lunashard.sandbox")
local load_cluster_file = require("lunashard.cluster").load

local dir = os.tmpname() .. "-replicas"
assert(sandbox.start({ dir = dir, shards = 1, replicas = 2 }))

-- ---- the superuser's part: a table, and holding the replay of the last replica ------------------------------------

local superuser = assert(load_cluster_file(dir .. "/cluster.lua"))
superuser.shards[1].user = "postgres"
local admin = lunashard.manager(superuser)
assert(admin:initialize())
local held = admin:member("shard1").replicas[2]
assert(lunashard.router(admin):execute_on_all_shards(
  "CREATE TABLE notes (id bigint PRIMARY KEY, body text); GRANT ALL ON notes TO app"))

local function hold(how)
  assert(held.pool:execute(how == "hold" and "SELECT pg_wal_replay_pause()" or "SELECT pg_wal_replay_resume()"))
end

-- ---- the application's -----------------------------------------------------------------------------------------------

local options = assert(load_cluster_file(dir .. "/cluster.lua"))
options.health_check_interval = 0.2
local manager = lunashard.manager(options)
assert(manager:initialize())
local router = lunashard.router({ shard_manager = manager })

local roles = { [manager.shards[1].host .. ":" .. manager.shards[1].port] = "the primary", [held.name] = "the held replica" }

-- Which endpoints answer 30 reads, and how many of these see a note.
local function look(what, id, opts)
  local seen, counts, names = 0, {}, {}
  opts.routing_key, opts.read_only = id, true
  for _ = 1, 30 do
    local result = assert(router:execute("SELECT body FROM notes WHERE id = $1", { id }, opts))
    local who = roles[result.endpoint] or "the other replica"
    seen = seen + result.row_count
    counts[who] = (counts[who] or 0) + 1
  end
  for who in pairs(counts) do
    names[#names + 1] = who
  end
  table.sort(names)
  print(("%-34s seen by %2d of 30, read from %s"):format(what, seen, table.concat(names, " and ")))
  return counts, seen
end

local function wait_until(condition)
  local deadline = lunashard.now() + 20
  while not condition() do
    assert(lunashard.now() < deadline, "waited in vain")
    lunashard.sleep(0.05)
  end
end

local function lag()
  for _, endpoint in ipairs(manager:get_shard_status("shard1").endpoints) do
    if endpoint.endpoint == held.name then
      return endpoint.lag_seconds or math.huge
    end
  end
end

local function write(id)
  return assert(router:execute("INSERT INTO notes VALUES ($1, $2)", { id, "note " .. id }, { routing_key = id }))
end

wait_until(function() -- both replicas have the table
  return lag() == 0 and look("at first", 0, {})["the held replica"]
end)

hold("hold")
local written = write(1)
look("some replica lags", 1, {}) -- may be stale
local _, seen = look("after = written", 1, { after = written })
assert(seen == 30, "a read did not see what was written")

wait_until(function() -- until the health checks know how far behind it is
  write(math.random(2, 2 ^ 40))
  return lag() > 0.5
end)
_, seen = look("max_replica_lag = 0.5", 1, { max_replica_lag = 0.5 })
assert(seen == 30)

hold("let go")
wait_until(function()
  return lag() == 0
end)
look("all have caught up", 1, {})

-- Options may change while all this works: both replicas go, and come back.
local without = assert(load_cluster_file(dir .. "/cluster.lua"))
without.shards[1].replicas, without.health_check_interval = nil, 0.2
for _, change in ipairs(assert(manager:reload(without))) do
  print("changed: " .. (change.message:gsub("%(.-%)", "(...)")))
end
look("without replicas", 1, {})
assert(manager:reload(options))

manager:shutdown()
admin:shutdown()
assert(sandbox.destroy({ dir = dir }))

-- runs without a cluster
-- expect: at first +seen by  0 of 30
-- expect: after = written +seen by 30 of 30
-- expect: max_replica_lag = 0.5 +seen by 30 of 30
-- expect: all have caught up +seen by 30 of 30
-- expect: changed: shard1 %(%.%.%.%): replica removed
-- expect: without replicas +seen by 30 of 30, read from the primary
