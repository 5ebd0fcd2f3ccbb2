--- What a router has done so far, in numbers.
-- @module lunashard.router.statistics

local histogram = require("lunashard.router.histogram")

local statistics = {}

local Statistics = {}
Statistics.__index = Statistics

--- Statistics at zero.
-- @treturn Statistics
function statistics.new()
  return setmetatable({
    shards = {}, -- shard_id -> { queries, failed }
    errors_by_code = {},
    failed = 0,
    retries = 0,
    retries_by_reason = {}, -- SQLSTATE or error code -> n
    retries_refused = 0, -- for want of budget
    fallbacks = 0, -- on another endpoint at once: the primary for a replica, the new primary for the old one
    hedged_reads = 0, -- sent to a second endpoint
    hedges_won = 0, -- whose second endpoint answered first
    hedges_refused = 0, -- for want of budget
    scatter_queries = 0,
    transactions = 0,
    latency = histogram.new(),
  }, Statistics)
end

--- A statement on a shard ended.
-- @string shard_id
-- @tparam ?number seconds how long it took, when it succeeded
-- @tparam ?lunashard.error err
function Statistics:record(shard_id, seconds, err)
  local shard = self.shards[shard_id]
  if not shard then
    shard = { queries = 0, failed = 0 }
    self.shards[shard_id] = shard
  end
  shard.queries = shard.queries + 1
  if seconds then
    self.latency:add(seconds)
  end
  if err then
    shard.failed = shard.failed + 1
    self.failed = self.failed + 1
    self.errors_by_code[err.code] = (self.errors_by_code[err.code] or 0) + 1
  end
end

--- How many statements have ended, well or not.
-- @treturn int
function Statistics:ended()
  return self.latency.count + self.failed
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
  local latency = self.latency
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
    copy.total_queries, copy.errors = copy.total_queries + shard.queries, copy.errors + shard.failed
    copy.queries_by_shard[shard_id] = shard.queries
    copy.errors_by_shard[shard_id] = shard.failed > 0 and shard.failed or nil
  end
  for _, name in ipairs({ "errors_by_code", "retries_by_reason" }) do
    for reason, n in pairs(self[name]) do
      copy[name][reason] = n
    end
  end
  return copy
end

return statistics
