-- A process that runs a rebalance job and ends itself, without a word to anybody, at a point of a move:
-- `lunashard run -c cluster.lua spec/support/job_process.lua POINT [resume]`. Points have the names that movers give
-- them: see `lunashard.rebalancer.session` and `flip`.
local lunashard = require("lunashard")
local plan = require("lunashard.rebalancer.plan")
local signals = require("lunashard.process").signals
local system = require("lunashard.core.system")

plan.LIMITS.buckets = 1500
local cluster = rawget(_G, "cluster")
local rebalancer = lunashard.rebalancer({ shard_manager = cluster.manager, max_parallel_tasks = 1 })
rebalancer.at = function(point)
  if point == arg[1] then
    system.kill(system.getpid(), signals.KILL)
  end
end
local job = arg[2] and rebalancer:get_job_status() or rebalancer:create_rebalance_job({ table_name = "users" })
local id = assert(job).job_id
print("job " .. id)
return rebalancer:execute_job(id)
