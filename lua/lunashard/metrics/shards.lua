--- What is measured of a cluster: statements, pools, health, plug-ins.
-- Nothing is counted here: what routers, pools and health records count anyway is read when somebody asks. Every series
-- of a shard and an endpoint is there from the start, at 0.
-- @module lunashard.metrics.shards

local keys = require("lunashard.metrics.keys")
local lag_limit = require("lunashard.manager.lag_limit")
local statistics = require("lunashard.router.statistics")
local text = require("lunashard.metrics.text")

local shards = {}

local labels = text.labels

-- Powers of two of a second, 0.12 ms to 32 s: bounds of the histograms that routers keep, so that nothing is guessed.
local FIRST, LAST = -13, 5
local BOUNDS = {}
for power = FIRST, LAST do
  BOUNDS[#BOUNDS + 1] = ("%.14g"):format(2 ^ power)
end

local READS = { SELECT = true, SHOW = true, FETCH = true, EXPLAIN = true }
local WRITES = { INSERT = true, UPDATE = true, DELETE = true, MERGE = true, COPY = true }

-- ---- statements ---------------------------------------------------------------------

local function write_queries(out, members, counted)
  out:family("shard_queries_total", "counter", "Statements that ended, by shard and outcome (type: success or error).")
  for _, member in ipairs(members) do
    local shard = counted.shards[member.shard_id]
    out:sample(labels("shard", member.shard_id, "type", "success"), shard and shard.latency.count or 0)
    out:sample(labels("shard", member.shard_id, "type", "error"), shard and shard.failed or 0)
  end
  out:family("shard_query_duration_seconds", "histogram", "How long statements took that succeeded, waits included.")
  local counts = {}
  for _, member in ipairs(members) do
    local shard = counted.shards[member.shard_id]
    local latency = shard and shard.latency or statistics.NOTHING
    out:histogram(labels("shard", member.shard_id), BOUNDS, latency:cumulative(FIRST, LAST, counts), latency.count,
      latency.sum)
  end
end

-- Of the endpoints that there are, and of those that there were: a counter does not vanish when its endpoint does.
local function names_of_endpoints(member, shard)
  local names, seen = {}, {}
  local function add(name)
    if not seen[name] then
      seen[name], names[#names + 1] = true, name
    end
  end
  for _, endpoint in ipairs(member.endpoints) do
    add(endpoint.name)
  end
  if shard then
    for name in pairs(shard.endpoints) do
      add(name)
    end
    for name in pairs(shard.failures) do
      add(name)
    end
  end
  return names
end

local function sum(counts)
  local n = 0
  for _, one in pairs(counts or {}) do
    n = n + one
  end
  return n
end

local function write_statements(out, members, counted)
  out:family("shard_statements_total", "counter",
    "Statements that ended, by shard, endpoint (empty when none was reached), type (read, write, other) and outcome.")
  for _, member in ipairs(members) do
    local id, shard = member.shard_id, counted.shards[member.shard_id]
    for _, name in ipairs(names_of_endpoints(member, shard)) do
      local n = { read = 0, write = 0, other = 0 }
      for command, count in pairs(shard and shard.endpoints[name] or {}) do
        local kind = READS[command] and "read" or WRITES[command] and "write" or "other"
        n[kind] = n[kind] + count
      end
      local failed = shard and shard.failures[name] or {}
      for _, kind in ipairs({ "read", "write", "other" }) do
        out:sample(labels("shard", id, "endpoint", name, "type", kind, "outcome", "success"), n[kind])
        if kind ~= "other" then
          out:sample(labels("shard", id, "endpoint", name, "type", kind, "outcome", "error"), sum(failed[kind]))
        end
      end
    end
  end
end

local CODES = { "TIMEOUT", "UNKNOWN_OUTCOME", "SHARD_DOWN", "POOL_EXHAUSTED", "SQL" }

local function write_errors(out, members, counted)
  out:family("shard_errors_total", "counter", "Statements that failed, by shard and error code.")
  for _, member in ipairs(members) do
    local failures = counted:failures(member.shard_id)
    for _, code in ipairs(CODES) do
      out:sample(labels("shard", member.shard_id, "code", code), failures[code] or 0)
      failures[code] = nil
    end
    for code, n in pairs(failures) do
      out:sample(labels("shard", member.shard_id, "code", code), n)
    end
  end
end

local function write_router(out, counted)
  out:family("lunashard_retries_total", "counter", "Statements tried again, by SQLSTATE or error code.")
  for reason, n in pairs(counted.retries_by_reason) do
    out:sample(labels("reason", reason), n)
  end
  for _, one in ipairs({
    { "lunashard_retries_refused_total", "Retries not made, for the budget was used up.", "retries_refused" },
    { "lunashard_fallbacks_total", "Statements that went on to another endpoint at once.", "fallbacks" },
    { "lunashard_hedged_reads_total", "Reads that were sent to a second endpoint.", "hedged_reads" },
    { "lunashard_hedges_won_total", "Reads that the second endpoint answered first.", "hedges_won" },
    { "lunashard_hedges_refused_total", "Reads not sent twice, for the budget was used up.", "hedges_refused" },
    { "lunashard_scatter_queries_total", "Calls that went to several shards.", "scatter_queries" },
    { "lunashard_transactions_total", "Transactions that were begun.", "transactions" },
  }) do
    out:family(one[1], "counter", one[2])
    out:sample("", counted[one[3]])
  end
end

-- ---- health -------------------------------------------------------------------------

local function write_health(out, members)
  out:family("shard_healthy", "gauge", "1 when the shard's primary is well and takes writes, otherwise 0.")
  for _, member in ipairs(members) do
    out:sample(labels("shard", member.shard_id), member.primary.health.is_healthy and not member.write_refusal)
  end
end

local function lag_of(name)
  return function(endpoint)
    return endpoint.role == "replica" and endpoint.health[name] or nil
  end
end

local OF_ENDPOINT = {
  { "shard_endpoint_healthy", "1 when the endpoint is well, otherwise 0.", function(endpoint)
    return endpoint.health.is_healthy
  end },
  { "shard_endpoint_fenced", "1 when the endpoint gets no traffic: it was the primary once.", function(endpoint)
    return endpoint.fenced ~= nil
  end },
  { "shard_endpoint_readable", "1 when reads may go there: it is well and not too far behind.", function(endpoint, member)
    return endpoint.health.is_healthy and (endpoint.role ~= "replica"
      or lag_limit.is_within(endpoint.health, member.max_lag_seconds, member.max_lag_bytes)) or false
  end },
  { "shard_endpoint_consecutive_failures", "Failures in a row.", function(endpoint)
    return endpoint.health.consecutive_failures
  end },
  { "shard_endpoint_error_rate", "Recent share of failures, 0 to 1.", function(endpoint)
    return endpoint.health.error_rate
  end },
  { "shard_replica_lag_seconds", "How far a replica is behind, in seconds.", lag_of("lag_seconds") },
  { "shard_replica_lag_bytes", "How far a replica is behind, in bytes of the log.", lag_of("lag_bytes") },
}

local function write_endpoints(out, members)
  for _, one in ipairs(OF_ENDPOINT) do
    out:family(one[1], "gauge", one[2])
    for _, member in ipairs(members) do
      for _, endpoint in ipairs(member.endpoints) do
        local value = one[3](endpoint, member)
        if value ~= nil then
          out:sample(labels("shard", member.shard_id, "endpoint", endpoint.name), value)
        end
      end
    end
  end
  out:family("shard_endpoint_role", "gauge", "1 for the role that the endpoint has: primary or replica.")
  for _, member in ipairs(members) do
    for _, endpoint in ipairs(member.endpoints) do
      for _, role in ipairs({ "primary", "replica" }) do
        out:sample(labels("shard", member.shard_id, "endpoint", endpoint.name, "role", role), endpoint.role == role)
      end
    end
  end
end

-- ---- pools --------------------------------------------------------------------------

local OF_POOL = {
  { "size", "gauge", "Connections, those being made included." },
  { "used", "gauge", "Connections in use." },
  { "idle", "gauge", "Connections that wait for work." },
  { "connecting", "gauge", "Connections being made." },
  { "waiting", "gauge", "Statements and leases that wait for a connection." },
  { "max_size", "gauge", "Connections that there may be." },
  { "in_flight", "gauge", "Statements and leases that run or wait." },
  { "lanes", "gauge", "Connections that statements share now.", "shared_connections" },
  { "queries", "counter", "Statements handed to connections.", "statements_total" },
  { "errors", "counter", "Statements that failed on a connection.", "errors_total" },
  { "connects", "counter", "Connections made.", "connects_total" },
  { "connect_failures", "counter", "Connections that could not be made.", "connect_failures_total" },
  { "shared", "counter", "Statements that ran on shared connections.", "shared_statements_total" },
  { "batched", "counter", "Reads that ran in batches.", "batched_reads_total" },
  { "batches", "counter", "Batches of reads.", "batches_total" },
  { "reruns", "counter", "Statements run again for the sake of others on a shared connection.", "reruns_total" },
  { "refused", "counter", "Statements refused, for too many waited.", "refused_total" },
  { "cancels", "counter", "Statements that the server was asked to cancel.", "cancels_total" },
}

local WAIT_BOUNDS = {} -- see LUNA_POOL_WAITS
for power = -13, 5, 2 do
  WAIT_BOUNDS[#WAIT_BOUNDS + 1] = ("%.14g"):format(2 ^ power)
end

local function write_waits(out, list)
  out:family("shard_pool_wait_seconds", "histogram", "How long work waited for a connection.")
  local counts = {}
  for _, pool in ipairs(list) do
    local seen, waits = 0, pool.stats.waits or {}
    for i = 1, #WAIT_BOUNDS + 1 do
      seen = seen + (waits[i] or 0)
      counts[i] = seen
    end
    out:histogram(pool.labels, WAIT_BOUNDS, counts, seen, pool.stats.wait_time)
  end
end

local function write_pools(out, members)
  local list = {}
  for _, member in ipairs(members) do
    for _, endpoint in ipairs(member.endpoints) do
      if endpoint.pool then
        local stats = endpoint.pool:stats()
        stats.in_flight = endpoint.pool:load()
        list[#list + 1] = { labels = labels("shard", member.shard_id, "endpoint", endpoint.name), stats = stats }
      end
    end
  end
  for _, one in ipairs(OF_POOL) do
    out:family("shard_pool_" .. (one[4] or one[1]), one[2], one[3])
    for _, pool in ipairs(list) do
      out:sample(pool.labels, pool.stats[one[1]])
    end
  end
  write_waits(out, list)
end

-- ---- the rest -----------------------------------------------------------------------

local OF_PLUGIN = {
  { "generation", "gauge", "How often the plug-in was loaded.", "generation" },
  { "failures", "counter", "Calls of the plug-in that failed.", "failures_total" },
}

local function write_plugins(out, manager)
  local list = manager.plugins and manager.plugins:status() or {}
  local function labels_of(one)
    return labels("kind", one.kind or "", "name", one.name or "", "path", one.path)
  end
  out:family("lunashard_plugin_active", "gauge", "1 when the plug-in is in use, 0 when it failed or was put out of use.")
  for _, one in ipairs(list) do
    out:sample(labels_of(one), one.state == "active")
  end
  for _, field in ipairs(OF_PLUGIN) do
    out:family("lunashard_plugin_" .. field[4], field[2], field[3])
    for _, one in ipairs(list) do
      out:sample(labels_of(one), one[field[1]] or 0)
    end
  end
end

local function write_keys(out, manager)
  local found = keys.of(manager)
  out:family("keys_per_shard", "gauge", "Rows of sharded tables, as the servers estimate them.")
  for _, member in ipairs(manager.members) do
    out:sample(labels("shard", member.shard_id), found and found.shards[member.shard_id] or 0)
  end
end

--- Write them.
-- @tparam Writer out
-- @tparam Manager manager
-- @tparam ?Router router
function shards.write(out, manager, router)
  local members = manager.members
  local counted = router and router.statistics or statistics.new()
  write_queries(out, members, counted)
  write_statements(out, members, counted)
  write_errors(out, members, counted)
  write_router(out, counted)
  write_health(out, members)
  write_endpoints(out, members)
  write_pools(out, members)
  write_plugins(out, manager)
  write_keys(out, manager)
end

return shards
