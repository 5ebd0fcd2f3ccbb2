--- What the measurements of our side share.
local lunashard = require("lunashard")
local rusage = require("rusage")

local harness = {}

--- Open the benchmark's cluster. Yields.
-- @tparam table options `cluster`, its file; `manager`, options on top of the file's
-- @tparam[opt] func change gets the options of the manager
-- @treturn router
function harness.open(options, change)
  local given = assert(require("lunashard.cluster").load(options.cluster))
  for name, value in pairs(options.manager or {}) do
    given[name] = value
  end
  if change then
    change(given)
  end
  local manager = lunashard.manager(given)
  assert(manager:initialize())
  return lunashard.router({ shard_manager = manager }), manager
end

--- Connections that the manager has open now.
-- @treturn number
function harness.connections(manager)
  local n = 0
  for _, shard in ipairs(manager.shards) do
    n = n + manager:get_pool_stats(shard.shard_id).size
  end
  return n
end

--- Let tasks call a function over and over, and count the calls of a stretch of time. Yields.
-- @tparam table options `tasks`, `warm_up` and `seconds`
-- @tparam func work gets a table whose field `counts` is true during that stretch
-- @treturn table `count`, `rate` (a second), `cpu` (seconds for each)
function harness.window(options, work)
  local done, stop, tasks, state = 0, false, {}, { counts = false }
  for i = 1, options.tasks do
    tasks[i] = lunashard.spawn(function()
      while not stop do
        work(state)
        done = done + 1
      end
    end)
  end
  lunashard.sleep(options.warm_up)
  state.counts = true
  local done_before, cpu_before, begin = done, rusage.own_cpu(), lunashard.now()
  lunashard.sleep(options.seconds)
  local count, cpu, finish = done - done_before, rusage.own_cpu() - cpu_before, lunashard.now()
  stop, state.counts = true, false
  for _, task in ipairs(tasks) do
    assert(task:join())
  end
  return { count = count, rate = count / (finish - begin), cpu = cpu / count }
end

return harness
