-- Rows are moved between shards for some minutes while routers work and things break; then the verdict, as a table.
--   lunashard run spec/chaos/main.lua [MINUTES] [SEED] [FAULTS]
-- FAULTS is a list such as `mover,router`, of what `spec.chaos.faults` has; all by default, `none` for none.
-- Ends with 1 when anything is wrong.
package.path = "./?.lua;" .. package.path -- from the root of the project
local chaos = require("spec.chaos.run")
local faults = require("spec.chaos.faults")
local leftovers = require("spec.chaos.leftovers")
local lunashard = require("lunashard")
local moving = require("spec.chaos.moving")
local verdict = require("spec.chaos.verdict")

local minutes, seed, wanted = ...
minutes, seed = tonumber(minutes or 1), tonumber(seed or os.time() % 100000)
math.randomseed(seed)
io.stderr:write(("chaos: seed %d\n"):format(seed))

local STRATEGIES = { "hash", "consistent_hash", "rendezvous" }

local run = chaos.start({ shards = 4, used = 3, strategy = STRATEGIES[seed % #STRATEGIES + 1], keys = 300, routers = 3,
  tasks = 8, seed = seed })

local function percentile(list, share)
  return list[math.max(1, math.ceil(#list * share))] or 0
end

local function work()
  moving.init(run)
  for _ = 1, run.options.routers do
    run:add_router(run.larger_file)
  end
  local until_then = lunashard.now() + minutes * 60
  local breaking = lunashard.spawn(faults.keep_breaking, run, until_then, wanted)
  local moves = moving.keep_moving(run, until_then)
  assert(breaking:join())
  moving.finish(run)
  run:stop_routers()
  local map, pauses = moving.read_map(run)
  run.in_use = #run.servers.shards
  run.leftovers = function(shards, found)
    leftovers.check(shards, map.buckets, found)
  end
  local found = run:judge(map.owner_of)
  table.sort(pauses)
  print(("%-20s %s"):format("seed", seed))
  for _, line in ipairs({ { "strategy", run.options.strategy }, { "jobs", moves.jobs }, { "moves done", #pauses },
    { "acknowledged writes", found.acknowledged }, { "unknown outcomes", found.unknown }, { "refused", found.failed },
    { "reads", found.reads }, { "faults", run.faults or 0 } }) do
    print(("%-20s %s"):format(line[1], line[2]))
  end
  print(("%-20s p50 %.0f ms, p95 %.0f ms, p99 %.0f ms, longest %.0f ms"):format("pauses", percentile(pauses, 0.5) * 1000,
    percentile(pauses, 0.95) * 1000, percentile(pauses, 0.99) * 1000, (pauses[#pauses] or 0) * 1000))
  for _, column in ipairs(verdict.COLUMNS) do
    print(("%-20s %d"):format(column, found.counts[column]))
  end
  for _, line in ipairs(found.told) do
    print("  " .. line)
  end
  return found:is_clean() and #pauses > 0
end

local ok, clean = xpcall(work, debug.traceback)
if not ok then
  io.stderr:write("chaos: ", tostring(clean), "\n")
end
if ok and clean or os.getenv("LUNASHARD_CHAOS_KEEP") == nil then
  run:destroy()
else
  io.stderr:write("chaos: the servers are left in ", run.servers.dir, "\n")
end
return ok and clean
