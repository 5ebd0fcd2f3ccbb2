--- Rows that move from one shard to another and back: `rows` of them, with a primary key and an index. `databases` are the
-- two shards'; with `tasks` others read and write meanwhile, and the job is throttled.
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

-- The shard that has the rows now, and its buckets.
local function where(manager)
  local found = assert(manager.catalog:execute([[
    SELECT shard_id, array_agg(bucket) AS buckets FROM lunashard_catalog.bucket WHERE bucket = ANY ($1) GROUP BY 1
  ]], { manager.marked })).rows
  assert(#found == 1, "the rows are not all in one place")
  return found[1].shard_id, found[1].buckets
end

-- Buckets of the first shard at the beginning: the rows that move are all in them.
local function marked(manager)
  local list, map = {}, manager.strategy.map
  for bucket = 0, map:buckets() - 1, 2 do
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

local function pauses(rebalancer, job)
  local list = {}
  local rows = assert(rebalancer.catalog:execute(
    "SELECT pause_seconds AS seconds FROM lunashard_catalog.move WHERE job = $1::bigint", { job })).rows
  for i, row in ipairs(rows) do
    list[i] = row.seconds
  end
  table.sort(list)
  return list
end

return function(options)
  local router, manager = open(options)
  manager.marked = marked(manager)
  local source, buckets = where(manager)
  local rebalancer = lunashard.rebalancer({ shard_manager = manager, throttle_ms = options.throttle_ms })
  local job = assert(rebalancer:create_rebalance_job({ planner = "pin", buckets = buckets,
    shard = source == "shard1" and "shard2" or "shard1" }))
  local figures, state = {}, options.tasks and traffic(router, options)
  if state then
    lunashard.sleep(options.warm_up)
    figures.before = rate_during(state, function()
      lunashard.sleep(options.seconds)
    end)
  end
  local began = lunashard.now()
  local function move()
    assert(rebalancer:execute_job(job.job_id))
  end
  if state then
    figures.during = rate_during(state, move)
    state.stop = true
    lunashard.sleep(0.1)
  else
    move()
  end
  figures.seconds = lunashard.now() - began
  local list = pauses(rebalancer, job.job_id)
  figures.rate, figures.moves = job.total_migrated / figures.seconds, #list
  figures.p50, figures.p99 = spread.quantile(list, 0.5), spread.quantile(list, 0.99)
  manager:shutdown()
  return figures
end
