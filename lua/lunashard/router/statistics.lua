--- What a router has done so far, in numbers.
-- @module lunashard.router.statistics

local histogram = require("lunashard.router.histogram")
local classify = require("lunashard.router.statement").classify

local statistics = {}

--- The latencies of a shard that nothing was sent to.
statistics.NOTHING = histogram.new()

local Statistics = {}
Statistics.__index = Statistics

--- Statistics at zero.
-- @treturn Statistics
function statistics.new()
  return setmetatable({
    shards = {}, -- shard_id -> see `new_shard`
    retries = 0,
    retries_by_reason = {}, -- SQLSTATE or error code -> n
    retries_refused = 0, -- for want of budget
    fallbacks = 0, -- on another endpoint at once: the primary for a replica, the new primary for the old one
    hedged_reads = 0, -- sent to a second endpoint
    hedges_won = 0, -- whose second endpoint answered first
    hedges_refused = 0, -- for want of budget
    scatter_queries = 0,
    transactions = 0,
  }, Statistics)
end

local function new_shard(self, shard_id)
  local shard = {
    latency = histogram.new(), -- of the statements that succeeded
    endpoints = {}, -- name -> { SELECT = n, ... }: statements that succeeded, by their commands
    failed = 0,
    failures = {}, -- endpoint ("" where none was reached) -> kind -> code -> n
  }
  self.shards[shard_id] = shard
  return shard
end

local function new_endpoint(shard, name)
  local commands = { SELECT = 0, INSERT = 0, UPDATE = 0, DELETE = 0 }
  shard.endpoints[name] = commands
  return commands
end

--- A statement on a shard succeeded.
-- @string shard_id
-- @number seconds how long it took
-- @string endpoint its name
-- @string command the statement's, as the server called it
function Statistics:record(shard_id, seconds, endpoint, command)
  local shard = self.shards[shard_id] or new_shard(self, shard_id)
  local commands = shard.endpoints[endpoint] or new_endpoint(shard, endpoint)
  commands[command] = (commands[command] or 0) + 1
  shard.latency:add(seconds)
end

local function counted(tree, name)
  local branch = tree[name] or {}
  tree[name] = branch
  return branch
end

--- A statement on a shard failed.
-- @string shard_id
-- @tparam lunashard.error err
-- @tparam ?string sql when it is at hand
function Statistics:record_failure(shard_id, err, sql)
  local shard = self.shards[shard_id] or new_shard(self, shard_id)
  local kind = sql and classify(sql) == "read" and "read" or "write"
  local codes = counted(counted(shard.failures, err.endpoint or ""), kind)
  codes[err.code] = (codes[err.code] or 0) + 1
  shard.failed = shard.failed + 1
end

--- How many statements have ended, well or not.
-- @treturn int
function Statistics:ended()
  local n = 0
  for _, shard in pairs(self.shards) do
    n = n + shard.latency.count + shard.failed
  end
  return n
end

--- Something is tried again.
-- @tparam lunashard.error err why
function Statistics:retried(err)
  local reason = err.sqlstate or err.code
  self.retries = self.retries + 1
  self.retries_by_reason[reason] = (self.retries_by_reason[reason] or 0) + 1
end

--- A copy to look at.
-- @treturn table `total_queries` (statements run on shards), `queries_by_shard`, `errors`, `errors_by_shard`,
--   `errors_by_code`, `retries`, `retries_by_reason` (by SQLSTATE, or code where there is none), `retries_refused`
--   (the budget was used up), `fallbacks` (reads that went on to the primary when a replica had failed, and writes
--   that went on to the new primary),
--   `hedged_reads` (sent to a second endpoint too), `hedges_won` (it answered first), `hedges_refused` (the budget was
--   used up), `scatter_queries`, `transactions`, `average_latency_ms`, `p50_latency_ms`, `p95_latency_ms`, `p99_latency_ms`
function Statistics:snapshot()
  local latency = histogram.new()
  for _, shard in pairs(self.shards) do
    latency:absorb(shard.latency)
  end
  local copy = {
    total_queries = 0,
    queries_by_shard = {},
    errors = 0,
    errors_by_shard = {},
    errors_by_code = {},
    retries = self.retries,
    retries_by_reason = {},
    retries_refused = self.retries_refused,
    fallbacks = self.fallbacks,
    hedged_reads = self.hedged_reads,
    hedges_won = self.hedges_won,
    hedges_refused = self.hedges_refused,
    scatter_queries = self.scatter_queries,
    transactions = self.transactions,
    average_latency_ms = latency.count > 0 and latency.sum / latency.count * 1000 or 0,
    p50_latency_ms = latency:percentile(0.50) * 1000,
    p95_latency_ms = latency:percentile(0.95) * 1000,
    p99_latency_ms = latency:percentile(0.99) * 1000,
  }
  for shard_id, shard in pairs(self.shards) do
    local queries = shard.latency.count + shard.failed
    copy.total_queries, copy.errors = copy.total_queries + queries, copy.errors + shard.failed
    copy.queries_by_shard[shard_id] = queries
    copy.errors_by_shard[shard_id] = shard.failed > 0 and shard.failed or nil
    for code, n in pairs(self:failures(shard_id)) do
      copy.errors_by_code[code] = (copy.errors_by_code[code] or 0) + n
    end
  end
  for reason, n in pairs(self.retries_by_reason) do
    copy.retries_by_reason[reason] = n
  end
  return copy
end

--- How often what went wrong on a shard.
-- @string shard_id
-- @treturn table error code -> n
function Statistics:failures(shard_id)
  local shard, total = self.shards[shard_id], {}
  for _, kinds in pairs(shard and shard.failures or {}) do
    for _, codes in pairs(kinds) do
      for code, n in pairs(codes) do
        total[code] = (total[code] or 0) + n
      end
    end
  end
  return total
end

return statistics
