-- One router process of a chaos run: lunashard run -c CLUSTER spec/chaos/router.lua HISTORY PROCESS KEYS TASKS SEED.
-- Works until SIGTERM.
package.path = "./?.lua;" .. package.path
local history = require("spec.chaos.history")
local lunashard = require("lunashard")
local signal = require("lunashard.core.signal")
local signals = require("lunashard.process").signals
local workload = require("spec.chaos.workload")

local path, process, keys, tasks, seed = ...
math.randomseed(tonumber(seed))

local writer = history.open(path, process)
local stopping = false
local workers = {}
for i = 1, tonumber(tasks) do
  workers[i] = lunashard.spawn(function()
    local worker = workload.new(_G.router, writer, { keys = tonumber(keys), timeout = 10, process = process .. "." .. i })
    while not stopping do
      worker:step()
    end
  end)
end
signal.catch(signals.TERM)
while not stopping do
  lunashard.sleep(0.05)
  stopping = signal.take() ~= nil
end
for _, worker in ipairs(workers) do
  assert(worker:join(30))
end
writer:close()
