--- A shard whose endpoints are configured anew.
-- Endpoints are known by their addresses: the same address is the same endpoint, with its pool and what is known of
-- its health. Which of them is primary is found out, not configured; that changes here only when the primary got
-- another address, or when automatic failover is off.
-- @module lunashard.manager.reload.endpoints

local changes = require("lunashard.manager.reload.changes")
local errors = require("lunashard.errors")
local failover = require("lunashard.manager.failover")
local shard = require("lunashard.manager.shard")
local task = require("lunashard.task")

local endpoints = {}

-- Of a shard as a whole; the rest belongs to its connections.
local SHARD_FIELDS = { "weight", "region", "tags", "metadata" }

-- These change nothing of how a connection is made, so that no server has to be asked.
local UNTRIED = { pool_size = true, pipeline = true, read_batches = true }

local PAUSE = 0.2 -- seconds between two trials of a login

local function name_of(given)
  return given.host .. ":" .. given.port
end

-- An entry for one address: the endpoint there, or a new one.
local function plan_entry(member, role, given, cfg, list)
  local name = name_of(given)
  local present = member:endpoint(name)
  if not present then
    list:add("endpoint_added", member.shard_id, name, role .. " added")
    return { endpoint = shard.endpoint(role, given, member.shard_id, cfg), given = given, role = role, trial = true }
  end
  local entry = { endpoint = present, given = given, role = role }
  for _, one in ipairs(shard.differences(present, given)) do
    if one.name == "database" then
      return nil, ("%s: database: cannot be changed while the manager works; that takes a new start"):format(name)
    elseif not UNTRIED[one.name] then
      entry.trial = true
    end
    list:add("endpoint", member.shard_id, name, changes.text(one.name, one.from, one.to))
  end
  return entry
end

-- Which entry is primary from now on; nil and why when that cannot be.
local function plan_primary(member, entries, cfg, list)
  local configured = entries[1]
  for _, entry in ipairs(entries) do
    if entry.endpoint == member.primary and (cfg.enable_auto_failover or entry == configured) then
      return entry
    end
  end
  local known = member:endpoint(configured.endpoint.name) ~= nil
  if known and cfg.enable_auto_failover then
    return nil, ("%s is the primary now, and is missing; promote %s first, or keep it among the replicas"):format(
      member.primary.name, configured.endpoint.name)
  end
  configured.trial, configured.must_write = true, true
  list:add("primary", member.shard_id, configured.endpoint.name, "primary, in place of " .. member.primary.name)
  return configured
end

--- What is to become of a shard. Changes nothing.
-- @tparam table member
-- @tparam table given checked options of the shard
-- @tparam table cfg from `config.manager`
-- @tparam List list of changes, to be added to
-- @treturn[1] table `member`, `given`, `entries` (the configured primary first), `primary` (an entry), `acting` (the
--   endpoint that is primary before), `removed`
-- @treturn[2] nil
-- @treturn[2] string why not
function endpoints.plan(member, given, cfg, list)
  local plan = { member = member, given = given, entries = {}, removed = {}, acting = member.primary }
  for _, name in ipairs(SHARD_FIELDS) do
    if not changes.same(member.info[name], given[name]) then
      list:add("shard", member.shard_id, nil, changes.text(name, member.info[name], given[name]))
    end
  end
  local wanted, all = {}, { { "primary", given } }
  for _, replica in ipairs(given.replicas or {}) do
    all[#all + 1] = { "replica", replica }
  end
  for i, one in ipairs(all) do
    local entry, message = plan_entry(member, one[1], one[2], cfg, list)
    if not entry then
      return nil, message
    end
    plan.entries[i], wanted[entry.endpoint] = entry, true
  end
  local message
  plan.primary, message = plan_primary(member, plan.entries, cfg, list)
  if not plan.primary then
    return nil, message
  end
  for _, endpoint in ipairs(member.endpoints) do
    if not wanted[endpoint] then
      plan.removed[#plan.removed + 1] = endpoint
      list:add("endpoint_removed", member.shard_id, endpoint.name, endpoint.role .. " removed")
    end
  end
  return plan
end

local function system_identifier_of(member)
  local known = member.failover and member.failover.known.system_identifier
  return known or member.primary.health.system_identifier
end

--- Ask a server whether the new options will do. Yields.
-- One that does not answer may do so later, and is only refused where it is to be the primary.
-- @tparam table member
-- @tparam table entry
-- @tparam table cfg from `config.manager`
-- @number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function endpoints.try(member, entry, cfg, deadline)
  local endpoint = shard.endpoint(entry.role, entry.given, member.shard_id, cfg)
  local function refuse(code, message, cause)
    return nil, errors.new(code, {
      message = "nothing was changed: " .. message,
      shard_id = member.shard_id,
      endpoint = endpoint.name,
      cause = cause,
    })
  end
  local found, err = shard.look(endpoint, deadline)
  -- A password that was changed a moment ago reaches a replica a little later.
  while not found and err.code == "AUTH" and entry.role == "replica" and task.now() + PAUSE < deadline do
    task.sleep(PAUSE)
    found, err = shard.look(endpoint, deadline)
  end
  if not found then
    if err.code == "AUTH" or entry.must_write then
      return refuse(err.code, err.message, err)
    end
    return true
  end
  local expected = system_identifier_of(member)
  if expected and found.system_identifier ~= expected then
    return refuse("INVALID", ("its system identifier is %s, that of the shard %s: it is no copy of this shard"):format(
      found.system_identifier, expected))
  elseif entry.must_write and found.in_recovery then
    return refuse("INVALID", "it is a standby, so it cannot be the primary; promote it first")
  end
  return true
end

--- An endpoint is used no more. What runs there goes on.
-- @tparam Manager manager
-- @tparam table endpoint
function endpoints.retire(manager, endpoint)
  manager.retired[endpoint] = true
  shard.retire(endpoint)
end

local function describe(member, given)
  for _, name in ipairs(SHARD_FIELDS) do
    member.info[name] = given[name]
  end
end

--- Do what was planned. Does not yield.
-- @tparam Manager manager
-- @tparam table plan
-- @tparam table cfg from `config.manager`
function endpoints.apply(manager, plan, cfg)
  local member, list, replicas = plan.member, {}, {}
  local primary = plan.primary.endpoint
  for i, entry in ipairs(plan.entries) do
    local endpoint = entry.endpoint
    endpoint.configured_role = entry.role
    endpoint.role = endpoint == primary and "primary" or "replica"
    list[i] = endpoint
    shard.reconfigure(endpoint, entry.given, cfg)
    if manager.initialized then
      shard.open(endpoint, manager.term)
    end
    if endpoint ~= primary and not member.fenced[endpoint] then
      replicas[#replicas + 1] = endpoint
    end
  end
  member.endpoints, member.primary, member.replicas = list, primary, replicas
  member:adopt(cfg)
  describe(member, plan.given)
  failover.reconfigured(manager, member, plan.entries[1].endpoint.name)
  for _, endpoint in ipairs(plan.removed) do
    member.fenced[endpoint] = nil
    endpoints.retire(manager, endpoint)
  end
end

return endpoints
