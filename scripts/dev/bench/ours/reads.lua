--- Point reads by primary key, routing included. `tasks`, `latencies` (whether to take them), `manager`.
local harness = require("ours.harness")
local lunashard = require("lunashard")
local new_table = require("table.new")
local spread = require("spread")

local MOST = 1000000 -- latencies that a list has room for from the start, lest growing it be measured too
local SQL = "SELECT * FROM users WHERE user_id = $1"

local function read(router, keys)
  local key = math.random(keys)
  local result = assert(router:execute(SQL, { key }, { routing_key = key }))
  assert(result.rows[1].user_id == key, "the wrong row")
end

return function(options)
  local router, manager = harness.open(options)
  math.randomseed(os.time())
  local now, latencies, n = lunashard.now, options.latencies and new_table(MOST, 0), 0
  local figures = harness.window(options, options.latencies and function(state)
    local started = now()
    read(router, options.keys)
    if state.counts then
      n = n + 1
      latencies[n] = now() - started
    end
  end or function()
    read(router, options.keys)
  end)
  figures.connections = harness.connections(manager)
  if options.latencies then
    table.sort(latencies)
    figures.p50, figures.p99 = spread.quantile(latencies, 0.5), spread.quantile(latencies, 0.99)
  end
  manager:shutdown()
  return figures
end
