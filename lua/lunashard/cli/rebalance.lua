--- `lunashard rebalance`: moves rows between shards while they are read and written.
-- stdout has the plan or the job's state, stderr progress and what to type next.
-- @module lunashard.cli.rebalance

local actions = require("lunashard.cli.rebalance.actions")
local arguments = require("lunashard.cli.rebalance.arguments")
local cli = require("lunashard.cli")
local cluster = require("lunashard.cluster")
local follow = require("lunashard.cli.rebalance.follow")
local rebalancer = require("lunashard.rebalancer")

local command = {}

command.examples = {
  "lunashard rebalance plan -c cluster.lua                 # after a shard joined the cluster file",
  "lunashard rebalance start -c cluster.lua --throttle-ms 20",
  "lunashard rebalance start -c cluster.lua --drain shard3 --dry-run",
  "lunashard rebalance start -c cluster.lua --waves 1,10,100 --soak 600 --reverse",
  "lunashard rebalance plan -c cluster.lua --planner by_load",
  "lunashard rebalance start -c cluster.lua --table users --pin 42 --to shard3",
  "lunashard rebalance start -c cluster.lua --offline       # faster; buckets are closed while they are copied",
  "lunashard rebalance status -c cluster.lua --watch",
  "lunashard rebalance pause -c cluster.lua",
  "lunashard rebalance resume -c cluster.lua",
  "lunashard rebalance cancel -c cluster.lua",
  "lunashard rebalance rollback -c cluster.lua",
  "lunashard rebalance cleanup -c cluster.lua",
}

--- Declare the arguments.
-- @param parser
command.configure = arguments.configure

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code: 5 when somebody else runs the job
function command.run(args)
  local path = arguments.check(args)
  local opened, err = cluster.open(path)
  if not opened then
    return follow.fail(args, err)
  end
  cli.say("cluster %s (%s)", opened.name or "without a name", path)
  local self = rebalancer.new({ shard_manager = opened.manager, batch_size = args.batch_size, throttle_ms = args.throttle_ms,
    max_parallel_tasks = args.max_parallel_tasks, max_cutover = args.max_cutover, purge_delay = args.purge_delay,
    throttle = args.throttle, enable_validation = args.no_validation and false })
  local ok, code = pcall(actions[args.action], self, args)
  opened:close()
  if not ok then
    error(code, 0)
  end
  return code
end

return command
