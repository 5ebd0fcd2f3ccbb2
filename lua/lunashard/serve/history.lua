--- The last minutes of a cluster, one sample a second: throughput, latency, use of the pools.
-- @module lunashard.serve.history

local histogram = require("lunashard.router.histogram")
local statistics = require("lunashard.router.statistics")

local history = {}

local KEPT = 300 -- seconds, of the whole cluster
local KEPT_OF_SHARD = 60
local WINDOW = 5 -- seconds that a percentile is of: one alone has too few statements to say much
local BUCKETS = #histogram.new()

local History = {}
History.__index = History

local NAMES = { "throughput", "errors", "p50", "p95", "p99", "used", "size", "waiting" }

-- ---- percentiles of the last seconds --------------------------------------------------

-- A ring of what a histogram that only grows had counted.
local function new_window()
  local window = { recent = histogram.new(), at = 0 }
  for i = 1, WINDOW do
    window[i] = histogram.new()
  end
  return window
end

-- What was counted since the window's oldest look; that look is replaced by this one.
local function advance(window, latency)
  local recent = window.recent
  window.at = window.at % WINDOW + 1
  local oldest = window[window.at]
  for i = 1, BUCKETS do
    recent[i] = latency[i] - oldest[i]
    oldest[i] = latency[i]
  end
  recent.count, recent.max = latency.count - oldest.count, latency.max
  oldest.count = latency.count
  return recent
end

local function percentile(recent, share)
  return recent.count > 0 and recent:percentile(share) or false
end

-- ---- samples --------------------------------------------------------------------------

local function push(ring, value, kept)
  ring[#ring + 1] = value
  if #ring > kept then
    table.remove(ring, 1)
  end
end

local function shard_of(self, shard_id)
  local shard = self.shards[shard_id]
  if not shard then
    shard = { succeeded = 0, failed = 0, rate = {}, window = new_window() }
    self.shards[shard_id] = shard
  end
  return shard
end

-- A shard that nothing was sent to has counted nothing.
local UNUSED = { latency = statistics.NOTHING, failed = 0 }

local function sample_shard(self, shard_id, elapsed)
  local counted, shard = self.router.statistics.shards[shard_id] or UNUSED, shard_of(self, shard_id)
  local succeeded, failed = counted.latency.count - shard.succeeded, counted.failed - shard.failed
  shard.succeeded, shard.failed = counted.latency.count, counted.failed
  push(shard.rate, (succeeded + failed) / elapsed, KEPT_OF_SHARD)
  local recent = advance(shard.window, counted.latency)
  shard.p95 = percentile(recent, 0.95)
  return succeeded + failed, failed, recent
end

local function sample_shards(self, elapsed)
  local queries, failed, here, all = 0, 0, {}, histogram.new()
  for _, member in ipairs(self.manager.members) do
    local own_queries, own_failed, recent = sample_shard(self, member.shard_id, elapsed)
    here[member.shard_id] = true
    queries, failed = queries + own_queries, failed + own_failed
    all:absorb(recent)
  end
  for id in pairs(self.shards) do
    self.shards[id] = here[id] and self.shards[id] or nil
  end
  push(self.throughput, queries / elapsed, KEPT)
  push(self.errors, failed / elapsed, KEPT)
  push(self.p50, percentile(all, 0.50), KEPT)
  push(self.p95, percentile(all, 0.95), KEPT)
  push(self.p99, percentile(all, 0.99), KEPT)
end

local function sample_pools(self)
  local used, size, waiting = 0, 0, 0
  for _, member in ipairs(self.manager.members) do
    for _, endpoint in ipairs(member.endpoints) do
      local stats = endpoint.pool and endpoint.pool:stats()
      if stats then
        used, size, waiting = used + stats.used, size + stats.size, waiting + stats.waiting
      end
    end
  end
  push(self.used, used, KEPT)
  push(self.size, size, KEPT)
  push(self.waiting, waiting, KEPT)
end

--- Nothing yet.
-- @tparam Manager manager
-- @tparam Router router
-- @number now on the clock of `lunashard.now`
-- @treturn History
function history.new(manager, router, now)
  local self = setmetatable({ manager = manager, router = router, last = now, shards = {} }, History)
  for _, name in ipairs(NAMES) do
    self[name] = {}
  end
  return self
end

--- Look at everything once; to be called each second. Does not yield.
-- @number now
function History:sample(now)
  local elapsed = math.max(now - self.last, 0.001)
  self.last = now
  sample_shards(self, elapsed)
  sample_pools(self)
end

local function copy(ring, nothing)
  local list = {}
  for i, value in ipairs(ring) do
    if value == false then
      list[i] = nothing
    else
      list[i] = value
    end
  end
  return list
end

--- What was seen, the latest last.
-- @param nothing stands where a second had no statement to measure
-- @treturn table `seconds` (how many are kept at the most), lists of numbers `throughput` and `errors` (a second),
--   `p50`, `p95`, `p99` (seconds), `used`, `size` and `waiting` (of all pools), and `shards`: shard_id -> `rate`
--   (statements a second, in the last minute) and `p95` (of the last seconds)
function History:read(nothing)
  local all = { seconds = KEPT, shards = {} }
  for _, name in ipairs(NAMES) do
    all[name] = copy(self[name], nothing)
  end
  for id, shard in pairs(self.shards) do
    all.shards[id] = { rate = copy(shard.rate), p95 = shard.p95 == false and nothing or shard.p95 }
  end
  return all
end

return history
