--- What there is to say of shards, as plain tables: for people, programs and JSON.
-- @module lunashard.manager.status

local health = require("lunashard.manager.health")
local lag_limit = require("lunashard.manager.lag_limit")
local task = require("lunashard.task")

local status = {}

local function alert(list, member, kind, endpoint, message, ...)
  list[#list + 1] = {
    kind = kind,
    shard_id = member.shard_id,
    endpoint = endpoint.name,
    message = message:format(...),
  }
end

-- What is wrong with one endpoint, in the order of weight.
local function alerts_of_endpoint(list, member, endpoint)
  local record = endpoint.health
  local who = ("%s %s"):format(endpoint.role, endpoint.name)
  if not record.is_healthy and record.status ~= "unchecked" or record.status == "degraded" then
    alert(list, member, "health", endpoint, "%s is %s%s%s", who, record.status,
      record.failing_since and (" for %.0f s"):format(task.now() - record.failing_since) or "",
      record.last_error and ": " .. tostring(record.last_error) or "")
  end
  if endpoint.fenced then
    alert(list, member, "fenced", endpoint, "%s gets no traffic: %s", who, endpoint.fenced)
  elseif endpoint.role == "replica" and record.is_healthy
    and not lag_limit.is_within(record, member.max_lag_seconds, member.max_lag_bytes) then
    local seconds, bytes = record.lag_seconds, record.lag_bytes
    alert(list, member, "lag", endpoint, "%s is behind by %s%s, more than reads allow (max_replica_lag)", who,
      seconds and ("%.1f s"):format(seconds) or "an unknown time", bytes and (" and %.0f bytes"):format(bytes) or "")
  end
end

local function alerts_of(member)
  local list = {}
  if member.write_refusal then
    alert(list, member, "writes", member.primary, "writes are refused: %s", member.write_refusal)
  end
  for _, endpoint in ipairs(member.endpoints) do
    alerts_of_endpoint(list, member, endpoint)
  end
  return list
end

local function of_endpoint(endpoint)
  local one = health.snapshot(endpoint.health)
  one.endpoint, one.role, one.configured_role = endpoint.name, endpoint.role, endpoint.configured_role
  one.fenced = endpoint.fenced
  return one
end

--- The state of one shard.
-- @tparam Manager manager
-- @tparam table member
-- @treturn table see `manager:get_shard_status`
function status.of_shard(manager, member)
  local one = {
    shard_id = member.shard_id,
    region = member.info.region,
    weight = member.info.weight,
    primary = member.primary.name,
    write_refusal = member.write_refusal,
    health = health.snapshot(member.primary.health),
    pool = member.primary.pool and manager:get_pool_stats(member.shard_id),
    endpoints = {},
    alerts = alerts_of(member),
  }
  for i, endpoint in ipairs(member.endpoints) do
    one.endpoints[i] = of_endpoint(endpoint)
  end
  return one
end

--- The state of all shards.
-- @tparam Manager manager
-- @treturn table see `manager:get_cluster_status`
function status.of_cluster(manager)
  local all = { healthy_shards = 0, total_shards = #manager.members, error_rate = 0, shards = {}, alerts = {},
    plugins = {} }
  for _, member in ipairs(manager.members) do
    local record = member.primary.health
    all.healthy_shards = all.healthy_shards + (record.is_healthy and not member.write_refusal and 1 or 0)
    all.error_rate = all.error_rate + record.error_rate / #manager.members
    local one = status.of_shard(manager, member)
    all.shards[member.shard_id] = one
    for _, found in ipairs(one.alerts) do
      all.alerts[#all.alerts + 1] = found
    end
  end
  for _, one in ipairs(manager.plugins and manager.plugins:status() or {}) do
    all.plugins[#all.plugins + 1] = one
    if one.problem then
      all.alerts[#all.alerts + 1] = { kind = "plugin", message = one.problem }
    end
  end
  return all
end

return status
