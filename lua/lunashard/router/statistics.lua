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
    queries = {},
    failed = {},
    errors_by_code = {},
    retries = 0,
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
  self.queries[shard_id] = (self.queries[shard_id] or 0) + 1
  if seconds then
    self.latency:add(seconds)
  end
  if err then
    self.failed[shard_id] = (self.failed[shard_id] or 0) + 1
    self.errors_by_code[err.code] = (self.errors_by_code[err.code] or 0) + 1
  end
end

local function copy_with_total(by_name)
  local copy, total = {}, 0
  for name, n in pairs(by_name) do
    copy[name], total = n, total + n
  end
  return copy, total
end

--- A copy to look at.
-- @treturn table `total_queries` (statements run on shards), `queries_by_shard`, `errors`, `errors_by_shard`,
--   `errors_by_code`, `retries`, `scatter_queries`, `transactions`, `average_latency_ms`, `p50_latency_ms`,
--   `p95_latency_ms`, `p99_latency_ms`
function Statistics:snapshot()
  local latency = self.latency
  local queries, total = copy_with_total(self.queries)
  local failed, errors = copy_with_total(self.failed)
  return {
    total_queries = total,
    queries_by_shard = queries,
    errors = errors,
    errors_by_shard = failed,
    errors_by_code = (copy_with_total(self.errors_by_code)),
    retries = self.retries,
    scatter_queries = self.scatter_queries,
    transactions = self.transactions,
    average_latency_ms = latency.count > 0 and latency.sum / latency.count * 1000 or 0,
    p50_latency_ms = latency:percentile(0.50) * 1000,
    p95_latency_ms = latency:percentile(0.95) * 1000,
    p99_latency_ms = latency:percentile(0.99) * 1000,
  }
end

return statistics
