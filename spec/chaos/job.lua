-- A mover of a chaos run that has accidents around its commits: lunashard run -c CLUSTER spec/chaos/job.lua SEED.
-- Goes on with the latest job.
package.path = "./?.lua;" .. package.path
local dice = require("spec.chaos.dice").new(tonumber(arg[1]), "job")
local lunashard = require("lunashard")
local signals = require("lunashard.process").signals
local system = require("lunashard.core.system")

local cluster = rawget(_G, "cluster")

-- Its sessions are ended while it waits for the answer to a commit, or just before or after.
local function lose_answer(pause)
  lunashard.spawn(function()
    lunashard.sleep(pause)
    for _, member in ipairs(cluster.manager.members) do
      member.primary.pool:execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        .. "WHERE application_name LIKE 'lunashard mover%'", nil, { deadline = lunashard.now() + 5 })
    end
  end)
end

local accidents = {
  function() system.kill(system.getpid(), signals.KILL) end,
  function() error("an accident") end,
  function() lunashard.sleep(dice:between(0, 5)) end,
  function() lose_answer(dice:between(0, 0.004)) end,
  function() lose_answer(0) end,
}

local rebalancer = lunashard.rebalancer({ shard_manager = cluster.manager })
local last, points = dice:int(1, 120), 0 -- points without an accident between
rebalancer.at = function()
  points = points + 1
  if points == last then
    last, points = dice:int(1, 120), 0
    accidents[dice:int(1, #accidents)]()
  end
end
local status = assert(rebalancer:get_job_status())
if status.status == "pending" or status.status == "running" then
  return rebalancer:execute_job(status.job_id)
end
return rebalancer:resume_job(status.job_id)
