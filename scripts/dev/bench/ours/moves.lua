--- Rows that move from one shard to another and back, with a primary key and an index. `databases` are the two shards'; with
-- `tasks` others read and write meanwhile. `rebalancer` are options of the mover; of the buckets every `share`th moves [1].
local harness = require("ours.harness")
local lunashard = require("lunashard")
local spread = require("spread")

local READ = "SELECT note FROM moved WHERE user_id = $1"
local WRITE = "UPDATE moved SET n = n + 1 WHERE user_id = $1"

local function open(options)
  return harness.open(options, function(given)
    local shards = {}
    for i = 1, 2 do
      shards[i] = given.shards[i]
      shards[i].database = options.databases[i]
    end
    given.name, given.shards, given.strategy = "bench", shards, { "hash", shard_key = "user_id" }
    given.tables = { moved = { shard_key = "user_id", type = "int8" } }
  end)
end

-- The shard that has these buckets now.
local function where(manager, buckets)
  local found = assert(manager.catalog:execute(
    "SELECT DISTINCT shard_id FROM lunashard_catalog.bucket WHERE bucket = ANY ($1)", { buckets })).rows
  assert(#found == 1, "the rows are not all in one place")
  return found[1].shard_id
end

-- Buckets of the first shard at the beginning: the rows are all in them.
local function marked(manager, share)
  local list, map = {}, manager.strategy.map
  for bucket = 0, map:buckets() - 1, 2 * share do
    list[#list + 1] = ("%d"):format(bucket)
  end
  return list
end

local function traffic(router, options)
  local state = { done = 0 }
  for _ = 1, options.tasks do
    lunashard.spawn(function()
      while not state.stop do
        local key = math.random(options.keys)
        local write = math.random(4) == 1
        assert(router:execute(write and WRITE or READ, { key }, { routing_key = key, read_only = not write }))
        state.done = state.done + 1
      end
    end)
  end
  return state
end

local function rate_during(state, fn)
  local done, began = state.done, lunashard.now()
  fn()
  return (state.done - done) / (lunashard.now() - began)
end

local function pauses(rebalancer, jobs)
  local list = {}
  local rows = assert(rebalancer.catalog:execute(
    "SELECT pause_seconds AS seconds FROM lunashard_catalog.move WHERE job = ANY ($1::bigint[])", { jobs })).rows
  for i, row in ipairs(rows) do
    list[i] = row.seconds
  end
  table.sort(list)
  return list
end

local OTHER = { shard1 = "shard2", shard2 = "shard1" }

return function(options)
  local router, manager = open(options)
  local buckets = marked(manager, options.share or 1)
  local settings = { shard_manager = manager }
  for name, value in pairs(options.rebalancer or {}) do
    settings[name] = value
  end
  local rebalancer, jobs, rows = lunashard.rebalancer(settings), {}, 0
  local function move()
    local job = assert(rebalancer:create_rebalance_job({ planner = "pin", buckets = buckets,
      shard = OTHER[where(manager, buckets)] }))
    assert(rebalancer:execute_job(job.job_id))
    jobs[#jobs + 1], rows = job.job_id, rows + job.total_migrated
  end
  local figures, state = {}, options.tasks and traffic(router, options)
  if state then
    lunashard.sleep(options.warm_up)
    figures.before = rate_during(state, function()
      lunashard.sleep(options.seconds)
    end)
  end
  local began = lunashard.now()
  if state then -- there and back, for the others measure all of them from one place to the other
    figures.during = rate_during(state, function()
      move()
      move()
    end)
    state.stop = true
    lunashard.sleep(0.1)
  else
    move()
  end
  figures.seconds = lunashard.now() - began
  local list = pauses(rebalancer, jobs)
  figures.rate, figures.moves = rows / figures.seconds, #list
  figures.p50, figures.p99 = spread.quantile(list, 0.5), spread.quantile(list, 0.99)
  manager:shutdown()
  return figures
end
