--- Everything that `lunashard serve` knows of its cluster, as one table: for /status and for the page.
-- @module lunashard.serve.status

local cjson = require("cjson.safe")
local events = require("lunashard.events")
local history = require("lunashard.serve.history")
local keys = require("lunashard.metrics.keys")
local rebalance = require("lunashard.serve.rebalance")
local stats = require("lunashard.stats")
local task = require("lunashard.task")
local verdict = require("lunashard.serve.verdict")

local status = {}

local INTERVAL = 1 -- seconds between two samples
local EVENTS = 50 -- that are remembered
local TOP = 8 -- statements and buckets

local watched = setmetatable({}, { __mode = "k" }) -- cluster -> Watch

local Watch = {}
Watch.__index = Watch

-- The same again and again, as from a job that fails each time, is one line with a number.
local function remember(self, event)
  local before = self.events[1]
  if before and before.message == event.message and before.kind == event.kind then
    before.time, before.times = os.time(), before.times + 1
    return
  end
  table.insert(self.events, 1, {
    time = os.time(),
    times = 1,
    kind = event.kind,
    shard_id = event.shard_id,
    endpoint = event.endpoint,
    from = event.from,
    to = event.to,
    message = event.message,
  })
  self.events[EVENTS + 1] = nil
end

local function look(self)
  while true do
    task.sleep(INTERVAL)
    self.history:sample(task.now())
  end
end

--- Begin to sample a cluster each second and to remember its events.
-- @tparam lunashard.cluster cluster
-- @treturn Watch with `stop`
function status.watch(cluster)
  local self = setmetatable({ cluster = cluster, events = {}, started = task.now() }, Watch)
  self.history = history.new(cluster.manager, cluster.router, self.started)
  self.unsubscribe = events.subscribe(function(event)
    remember(self, event)
  end)
  self.looker = task.daemon(look, self)
  watched[cluster] = self
  return self
end

--- End that. May be called again.
function Watch:stop()
  if watched[self.cluster] == self then
    watched[self.cluster] = nil
    self.looker:cancel()
    self.unsubscribe()
  end
end

local function add_pools(all, manager)
  all.shard_ids = {}
  for i, member in ipairs(manager.members) do
    all.shard_ids[i] = member.shard_id
    for j, endpoint in ipairs(member.endpoints) do
      all.shards[member.shard_id].endpoints[j].pool = endpoint.pool and endpoint.pool:stats()
    end
  end
end

--- Read it. Does not yield and asks no server.
-- @tparam lunashard.cluster cluster
-- @treturn table what `manager:get_cluster_status` gives (each endpoint with its `pool`), and `name`, `environment`,
--   `file`, `version`, `time` (Unix time), `shard_ids` (in the order of the file), `verdict` (`level`, `sentence`),
--   `statistics` (see `router:get_statistics`), `runtime` (see `lunashard.stats`; `lua_memory_bytes`), `keys` (see
--   `lunashard.metrics.keys`; nil before they were counted), `top_statements`, `top_buckets`, `slow_statements` (as the
--   router's `get_...` give them), `jobs`, `rebalance` (see `lunashard.serve.rebalance`; nil before there was a job); of a
--   cluster that is watched also `uptime`, `history` (see `lunashard.serve.history`; null where there was nothing to
--   measure) and `events`, the latest first, each with
--   its `time` and how many `times` in a row it was
function status.read(cluster)
  local manager = cluster.manager
  local all = manager:get_cluster_status()
  add_pools(all, manager)
  all.name, all.environment, all.file = cluster.name, manager.options.environment, cluster.path
  all.version = require("lunashard").version
  all.time = os.time()
  all.statistics = cluster.router:get_statistics()
  all.runtime = stats.read()
  all.runtime.lua_memory_bytes = collectgarbage("count") * 1024
  all.keys = keys.of(manager)
  all.top_statements, all.top_buckets = cluster.router:get_top_statements(TOP), cluster.router:get_top_buckets(TOP)
  all.slow_statements = cluster.router:get_slow_statements()
  all.jobs = cluster.jobs and cluster.jobs:status() or {}
  all.rebalance = rebalance.of(manager)
  local watch = watched[cluster]
  if watch then
    all.uptime = task.now() - watch.started
    all.history = watch.history:read(cjson.null)
    all.events = { unpack(watch.events) }
  end
  all.verdict = verdict.of(all)
  return all
end

return status
