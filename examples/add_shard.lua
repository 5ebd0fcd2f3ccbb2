-- A fourth shard joins three while rows are read and written: the plan, the job, its progress, and the way back.
--
-- It starts servers of its own and removes them in the end.

local lunashard = require("lunashard")
local process = require("lunashard.process")
local sandbox = require("lunashard.sandbox")
local system = require("lunashard.core.system")

local USERS = 3000
local PLUGINS = system.realpath((arg[0]:match("^(.*)/") or ".") .. "/plugins")

local dir = os.tmpname() -- should it be broken off: lunashard sandbox destroy --dir <this>
os.remove(dir)
assert(sandbox.start({ dir = dir, shards = 4 }))
lunashard.set_warn(function() end)

-- Cluster files with three shards and with four: in life this is one file, to which a shard is added.
local function cluster_file(shards)
  local path = ("%s/of_%d.lua"):format(dir, shards)
  assert(system.write_file(path, ([[
    local options = dofile(%q)
    options.name, options.strategy = "example", { "hash", shard_key = "user_id" }
    options.tables = { users = { shard_key = "user_id", type = "int8" } }
    options.plugins = %q
    options.shards[1].tags = { gigabytes = 400 }
    while #options.shards > %d do
      table.remove(options.shards)
    end
    return options]]):format(dir .. "/cluster.lua", PLUGINS, shards), 384))
  return path
end

local function lunashard_command(...)
  local result = assert(process.run({ argv = { assert(system.realpath("/proc/self/exe")), ... },
    env = { LUNASHARD_CLUSTER = false } }))
  assert(result.code == 0, result.stderr)
end

local function count(router)
  local result = assert(router:execute("SELECT count(*) AS n FROM users"))
  return result.rows[1].n
end

-- ---- three shards, with rows; and a catalog, which knows from now on where each bucket is ----------------------------

local everything = assert(lunashard.open(cluster_file(4)))
assert(everything.router:execute_on_all_shards("CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL)"))
everything:close()
local three = assert(lunashard.open(cluster_file(3)))
local rows = {}
for key = 1, USERS do
  rows[key] = { key, "user " .. key }
end
assert(three.router:copy_in("users", { "user_id", "name" }, rows))
three:close()
lunashard_command("cluster", "init", "-c", cluster_file(3))

-- ---- the fourth joins -------------------------------------------------------------------------------------------------

local four = assert(lunashard.open(cluster_file(4)))
local router = four.router
local rebalancer = lunashard.rebalancer({ shard_manager = four.manager, router = router })

local plan = assert(rebalancer:plan({ table_name = "users" }))
print(("Plan: %.0f of %d rows, %.0f %%, in %d moves"):format(plan.rows, plan.total_rows, plan.share * 100, #plan.moves))

-- Others go on meanwhile.
local running, written, failed = true, 0, 0
local writer = lunashard.spawn(function()
  while running do
    local key = USERS + written + failed + 1
    if router:execute("INSERT INTO users (user_id, name) VALUES ($1, 'new')", { key }) then
      written = written + 1
    else
      failed = failed + 1
    end
    lunashard.sleep(0.01)
  end
end)

local job = assert(rebalancer:create_rebalance_job({ table_name = "users", shard_key = "user_id",
  strategy = "live_migration" }))
local success, err = rebalancer:execute_job(job.job_id)
running = false
assert(writer:join())
if not success then
  error(("Rebalancing failed: %s"):format(err.message))
end
local status = assert(rebalancer:get_job_status(job.job_id))
print(("Rebalancing %s: %d rows migrated, progress %.1f %%"):format(status.status, job.total_migrated,
  status.progress_percent))
print(("Writes meanwhile: %s, %d failed; every row is there: %s"):format(written > 0 and "some" or "none", failed,
  tostring(count(router) == USERS + written)))
local fourth = assert(router:execute("SELECT count(*) AS n FROM users", nil, { shard_id = "shard4" })).rows[1].n
print(("shard4 has %s of the rows"):format(math.abs(fourth / (USERS + written) - 0.25) < 0.05 and "a quarter" or fourth))
lunashard_command("cluster", "verify", "-c", cluster_file(4))
print("Every row is where the map says")

-- ---- and back ----------------------------------------------------------------------------------------------------------

assert(rebalancer:rollback_job(job.job_id))
fourth = assert(router:execute("SELECT count(*) AS n FROM users", nil, { shard_id = "shard4" })).rows[1].n
print(("%s: shard4 has %d rows, all together %s"):format(job.status, fourth,
  count(router) == USERS + written and "as many as before" or "not"))

-- ---- a policy of one's own: examples/plugins/policies/contracts.lua ------------------------------------------------------

plan = assert(rebalancer:plan({ planner = { "contracts", tolerance = 0.01 } }))
print(("By contracts: shard1, with %d of 700 GB, would have %.0f %% of the bytes"):format(400,
  plan.shards[1].bytes_after / (plan.shards[1].bytes_after + plan.shards[2].bytes_after + plan.shards[3].bytes_after
  + plan.shards[4].bytes_after) * 100))

four:close()
assert(sandbox.destroy({ dir = dir }))

-- runs without a cluster
-- expect: Plan: %d+ of 3000 rows, 2%d %%, in %d+ moves
-- expect: Rebalancing completed: %d+ rows migrated, progress 100%.0 %%
-- expect: Writes meanwhile: some, 0 failed; every row is there: true
-- expect: shard4 has a quarter of the rows\nEvery row is where the map says
-- expect: rolled_back: shard4 has 0 rows, all together as many as before
-- expect: By contracts: shard1, with 400 of 700 GB, would have 5[5678] %% of the bytes
