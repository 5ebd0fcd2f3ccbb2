--- All rows of all shards in order.
local harness = require("ours.harness")
local lunashard = require("lunashard")
local rusage = require("rusage")

local function read(router, sql)
  local n, last = 0, 0
  for row in router:stream(sql, nil, { order_by = "user_id" }) do
    n = n + 1
    assert(row.user_id > last, "out of order")
    last = row.user_id
  end
  return n
end

return function(options)
  local router, manager = harness.open(options)
  read(router, options.sql .. " LIMIT 1000") -- connects, and compiles
  collectgarbage()
  local memory, started, cpu = rusage.memory("VmRSS"), lunashard.now(), rusage.own_cpu()
  local n = read(router, options.sql)
  local seconds = lunashard.now() - started
  cpu = rusage.own_cpu() - cpu
  assert(n == options.rows, "not all rows")
  local growth = rusage.memory("VmHWM") - memory
  manager:shutdown()
  return { rate = n / seconds, seconds = seconds, cpu = cpu / n, growth = growth }
end
