--- A slow query to all shards at once, and to each shard alone, in turn. `shards`: as many databases of the first
-- server stand for shards; without it, the cluster's own.
local harness = require("ours.harness")
local lunashard = require("lunashard")
local spread = require("spread")

local function database_shards(count)
  return function(given)
    local server = given.shards[1]
    given.shards = {}
    for i = 1, count do
      local shard = {}
      for name, value in pairs(server) do
        shard[name] = value
      end
      shard.shard_id, shard.database = ("shard%02d"):format(i), ("bench_%d"):format(i)
      given.shards[i] = shard
    end
  end
end

local function timed(times, fn, ...)
  local started = lunashard.now()
  assert(fn(...))
  times[#times + 1] = lunashard.now() - started
end

return function(options)
  local router, manager = harness.open(options, options.shards and database_shards(options.shards))
  local together, alone = {}, {}
  local function turn()
    timed(together, router.scatter_gather, router, options.sql)
    for _, shard in ipairs(manager.shards) do
      local id = shard.shard_id
      alone[id] = alone[id] or {}
      timed(alone[id], router.execute, router, options.sql, nil, { shard_id = id })
    end
  end
  turn() -- opens the connections
  turn()
  together, alone = {}, {}
  local finish = lunashard.now() + options.seconds
  repeat
    turn()
  until lunashard.now() > finish
  local slowest = 0
  for _, times in pairs(alone) do
    slowest = math.max(slowest, spread.of(times).median)
  end
  manager:shutdown()
  return { together = spread.of(together).median, slowest = slowest, turns = #together }
end
