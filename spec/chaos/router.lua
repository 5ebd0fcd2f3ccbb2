-- One router process of a chaos run:
-- lunashard run -c CLUSTER spec/chaos/router.lua HISTORY PROCESS NUMBER KEYS TASKS RATE SEED.
-- Works until SIGTERM, with RATE operations a second at the most.
package.path = "./?.lua;" .. package.path
local history = require("spec.chaos.history")
local lunashard = require("lunashard")
local signal = require("lunashard.core.signal")
local signals = require("lunashard.process").signals
local worker = require("spec.chaos.worker")
local workload = require("spec.chaos.workload")

local path, process = arg[1], arg[2]
local number, keys, tasks, rate, seed = tonumber(arg[3]), tonumber(arg[4]), tonumber(arg[5]), tonumber(arg[6]), tonumber(arg[7])
math.randomseed(seed)

local writer = history.open(path, process)
local stopping = false
local workers = {}
for i = 1, tasks do
  workers[i] = lunashard.spawn(function()
    local one = worker.new(_G.router, writer, { keys = keys, timeout = 10, process = process .. "." .. i,
      number = number * 100 + i })
    while not stopping do
      local began = lunashard.now()
      workload.step(one)
      lunashard.sleep(math.max(0, began + math.random() * 2 * tasks / rate - lunashard.now()))
    end
  end)
end
signal.catch(signals.TERM)
while not stopping do
  lunashard.sleep(0.05)
  stopping = signal.take() ~= nil
end
for _, one in ipairs(workers) do
  assert(one:join(30))
end
writer:close()
