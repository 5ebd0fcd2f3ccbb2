-- Rows are moved between shards for some minutes while routers work and things break; then the verdict, as a table.
--   lunashard run spec/chaos/main.lua [MINUTES] [SEED] [FAULTS] [RATE]
-- A run of more than 5 minutes is several, each on servers of its own, with seeds that follow each other. A seed says what
-- breaks and in which order, and on what; when exactly, and what else goes on then, it does not.
-- FAULTS is a list such as `router,fail_over`, of what `spec.chaos.faults` has; `all` by default. With `none` nothing
-- breaks, movers least of all: what statements wait then is what a cutover takes. RATE is how many operations each router
-- begins in a second [300].
-- Ends with 1 when anything is wrong. With LUNASHARD_CHAOS_KEEP set the servers of a run that failed are left as they are.
package.path = "./?.lua;" .. package.path -- from the root of the project
local chaos = require("spec.chaos.run")
local faults = require("spec.chaos.faults")
local leftovers = require("spec.chaos.leftovers")
local lunashard = require("lunashard")
local moving = require("spec.chaos.moving")
local table_of_runs = require("spec.chaos.report")

local minutes, seed, rate = tonumber(arg[1] or 1), tonumber(arg[2] or os.time() % 100000), tonumber(arg[4] or 300)
local wanted = arg[3] ~= "all" and arg[3] or nil
assert(minutes and seed and rate and rate > 0, "MINUTES, SEED and RATE are numbers")

local LONGEST = 5 -- minutes of one run
local STRATEGIES = { "hash", "consistent_hash", "rendezvous" }
local SHAPES = { "replicas", "network", "disk" }

local function work(run, seconds)
  moving.init(run)
  for place = 1, run.options.routers do
    run:add_router(place)
  end
  local until_then = lunashard.now() + seconds
  local breaking = lunashard.spawn(faults.keep_breaking, run, until_then, wanted)
  local moves = moving.keep_moving(run, until_then)
  assert(breaking:join())
  moving.finish(run)
  run:stop_routers()
  local map, pauses, done = moving.read_map(run)
  local found = run:judge(map.owner_of, function(shards, verdict)
    leftovers.check(shards, map.buckets, verdict)
    if done == 0 then
      verdict:blame("unproved", "not one move was done")
    end
  end)
  return { found = found, jobs = moves.jobs, moves = done, pauses = pauses }
end

local function one_run(number, seconds)
  local shape = faults.shape(wanted) or wanted == "none" and "plain" or SHAPES[number % #SHAPES + 1]
  local options = { shards = 4, used = 3, strategy = STRATEGIES[math.floor(number / #SHAPES) % #STRATEGIES + 1], keys = 300,
    routers = 3, tasks = 8, rate = rate, seed = number, shape = shape, calm = wanted == "none" }
  io.stderr:write(("soak: seed %d, %s, %s, %g s\n"):format(number, options.strategy, shape, seconds))
  local run = chaos.start(options)
  local ok, result = xpcall(work, debug.traceback, run, seconds)
  if not ok then
    result = { failed = tostring(result) }
  end
  result.options, result.faults = options, run.faults
  local is_good = ok and result.found:is_clean()
  if is_good or os.getenv("LUNASHARD_CHAOS_KEEP") == nil then
    run:destroy()
  else
    io.stderr:write("soak: the servers are left in ", run.servers.dir, "\n")
  end
  return result, is_good
end

local rounds = math.max(1, math.ceil(minutes / LONGEST))
local results, all_good = {}, true
for i = 1, rounds do
  local result, is_good = one_run(seed + i - 1, minutes * 60 / rounds)
  results[i], all_good = result, all_good and is_good
  io.stderr:write(table_of_runs({ result }))
end
io.stdout:write(table_of_runs(results))
return all_good
