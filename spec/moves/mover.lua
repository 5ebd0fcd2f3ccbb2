-- A mover in a process of its own, that ends or stops itself at a point:
--     lunashard run -c CLUSTER spec/moves/mover.lua JOB POINT NTH [SIGNAL [MAX_CUTOVER]]
local lunashard = require("lunashard")
local signals = require("lunashard.process").signals
local system = require("lunashard.core.system")

local id, point, nth, signal = tonumber(arg[1]), arg[2], tonumber(arg[3]), arg[4] or "KILL"

local rebalancer = lunashard.rebalancer({ shard_manager = rawget(_G, "manager"), max_parallel_tasks = 1, batch_size = 20,
  max_cutover = tonumber(arg[5]) or 30 })
local seen = 0
rebalancer.at = function(at)
  seen = seen + (at == point and 1 or 0)
  if at == point and seen == nth then
    system.kill(system.getpid(), signals[signal])
  end
end
return rebalancer:execute_job(id)
