--- Point reads by primary key, routing included. `tasks`, `latencies` (whether to take them), `manager`.
local harness = require("ours.harness")
local lunashard = require("lunashard")
local spread = require("spread")

local SQL = "SELECT * FROM users WHERE user_id = $1"

local function read(router, keys)
  local key = math.random(keys)
  local result = assert(router:execute(SQL, { key }, { routing_key = key }))
  assert(result.rows[1].user_id == key, "the wrong row")
end

return function(options)
  local router, manager = harness.open(options)
  math.randomseed(os.time())
  local now, taken, n = lunashard.now, {}, 0
  local figures = harness.window(options, options.latencies and function()
    local started = now()
    read(router, options.keys)
    local ended = now()
    n = n + 1
    taken[n] = { started, ended - started }
  end or function()
    read(router, options.keys)
  end)
  figures.connections = harness.connections(manager)
  if options.latencies then
    local sorted = {}
    for _, one in ipairs(taken) do
      if one[1] >= figures.begin and one[1] + one[2] <= figures.finish then
        sorted[#sorted + 1] = one[2]
      end
    end
    table.sort(sorted)
    figures.p50, figures.p99 = spread.quantile(sorted, 0.5), spread.quantile(sorted, 0.99)
  end
  manager:shutdown()
  return figures
end
