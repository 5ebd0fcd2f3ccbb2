--- What `lunashard serve` knows of rebalancing: the latest job, asked of the catalog now and then.
-- @module lunashard.serve.rebalance

local job = require("lunashard.rebalancer.job")
local shard_status = require("lunashard.rebalancer.status")
local task = require("lunashard.task")

local rebalance = {}

local OFTEN, SELDOM = 1, 15 -- seconds between two looks, while a job runs and otherwise
local TIMEOUT = 5

local known = setmetatable({}, { __mode = "k" }) -- manager -> what is known

-- What is kept of a move: its buckets may be many.
local function brief(move)
  return { seq = move.seq, source = move.source, destination = move.destination, state = move.state,
    buckets = #move.buckets, rows_estimated = move.rows_estimated, rows_copied = move.rows_copied }
end

--- Ask once. Yields. What is known stays when the catalog does not answer.
-- @tparam Manager manager
-- @treturn ?table see `of`
function rebalance.refresh(manager)
  if not manager.catalog then
    return nil
  end
  local row = job.read(manager.catalog, nil, task.now() + TIMEOUT)
  if not row then
    return known[manager]
  end
  local told = job.describe(row)
  shard_status.of_shards(manager, told)
  for i, move in ipairs(told.active) do
    told.active[i] = brief(move)
  end
  told.finished_at, told.at = row.finished_at, os.time()
  known[manager] = told
  return told
end

--- What was found last. Does not yield.
-- @tparam Manager manager
-- @treturn ?table the fields of `rebalancer:get_job_status`, `finished_at` and `at` (Unix time); nil before there was a job
function rebalance.of(manager)
  return known[manager]
end

--- Ask now and then, until the cluster is closed. Yields; to be run in a task of its own.
-- @tparam table cluster
function rebalance.watch(cluster)
  local manager = cluster.manager
  while not manager.closed do
    local told, waited = rebalance.refresh(manager), 0
    local is_open = told and told.open
    repeat -- guards go on when a job begins
      task.sleep(OFTEN)
      waited = waited + OFTEN
    until is_open or waited >= SELDOM or manager.closed or manager.catalog and manager.catalog.guards
  end
end

return rebalance
