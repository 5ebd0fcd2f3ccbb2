--- The first look at every endpoint: is it there, what is it, does it fit.
-- @module lunashard.manager.probe

local errors = require("lunashard.errors")
local health = require("lunashard.manager.health")
local parallel = require("lunashard.parallel")
local task = require("lunashard.task")
local warn = require("lunashard.warn")

local probe = {}

-- These place keys without hashing their text, so the server's encoding does not matter.
local NEVER_HASH = { range = true, geographic = true, directory = true }

--- Monotonic seconds.
-- @function now
probe.now = task.now

local function describe(endpoint)
  return ("%s of %s (%s)"):format(endpoint.role, endpoint.shard_id, endpoint.name)
end

local function reason(err)
  return ("%s: %s"):format(err.code, err.message)
end

-- Ping one endpoint, note its health and warn of what an operator should know.
local function ping(endpoint, timeout)
  local found, err = endpoint.pool:ping(task.now() + timeout)
  endpoint.health.last_check = os.time()
  if not found then
    health.failure(endpoint.health, err, task.now(), true)
    warn.emit(("%s is unhealthy: %s"):format(describe(endpoint), reason(err)))
    return nil, err
  end
  health.success(endpoint.health, found.latency)
  if found.in_recovery and endpoint.role == "primary" then
    warn.emit(describe(endpoint) .. " is a standby: it will refuse writes")
  elseif not found.in_recovery and endpoint.role == "replica" then
    warn.emit(describe(endpoint) .. " is not a standby: what it holds may differ from its primary")
  end
  endpoint.server_encoding = found.server_encoding
  return found
end

local function has_text(key_type)
  if type(key_type) == "table" then
    for _, one in ipairs(key_type) do
      if one == "text" then
        return true
      end
    end
  end
  return key_type == "text"
end

local function text_tables(tables)
  local list = {}
  for name, declared in pairs(tables) do
    if not declared.reference and has_text(declared.type) then
      list[#list + 1] = name
    end
  end
  table.sort(list)
  return list
end

local COLLATION = [[
  SELECT c.collname AS name
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
  WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attname = ANY ($2) AND NOT c.collisdeterministic]]

-- Would this server hash text keys as we do? Only a live one can be asked.
local function check_text_keys(member, tables, names, deadline)
  local encoding = member.primary.server_encoding
  if encoding ~= "UTF8" then
    return nil, errors.new("INVALID", {
      shard_id = member.shard_id,
      message = ("text keys need a database in UTF8, this one is in %s"):format(encoding),
    })
  end
  for _, name in ipairs(names) do
    local key = tables[name].shard_key
    local columns = type(key) == "table" and key or { key }
    local found, err = member.primary.pool:execute(COLLATION, { name, columns }, { deadline = deadline })
    if not found then
      return nil, err
    elseif found.rows[1] then
      return nil, errors.new("INVALID", {
        shard_id = member.shard_id,
        message = ("the key of table %s has the collation %s, under which texts that differ are equal; "
          .. "a shard key needs a deterministic one"):format(name, found.rows[1].name),
      })
    end
  end
  return true
end

local function is_live(member)
  return member.primary.health.is_healthy
end

local function check_keys(manager, members, timeout)
  local names = text_tables(manager.tables)
  if #names == 0 and not has_text(manager.strategy.key_type) or NEVER_HASH[manager.strategy.name] then
    return true
  end
  for _, member in ipairs(members) do
    if is_live(member) then
      local ok, err = check_text_keys(member, manager.tables, names, task.now() + timeout)
      if not ok then
        return nil, err
      end
    end
  end
  return true
end

--- Probe every endpoint of some shards at the same time. Yields.
-- @tparam Manager manager
-- @tparam {table,...} members with open pools
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` when the manager's `require_all` is set and a primary
--   is down; `INVALID` when a shard cannot hold the declared text keys
function probe.all(manager, members)
  local endpoints, failed = {}, {}
  for _, member in ipairs(members) do
    for _, endpoint in ipairs(member.endpoints) do
      endpoints[#endpoints + 1] = endpoint
    end
  end
  local timeout = manager.options.connection_timeout
  local outcomes = parallel.each(endpoints, function(endpoint)
    return ping(endpoint, timeout)
  end)
  for i, endpoint in ipairs(endpoints) do
    if outcomes.errors[i] and endpoint.role == "primary" then
      failed[#failed + 1] = { shard_id = endpoint.shard_id, error = outcomes.errors[i] }
    end
  end
  if #failed > 0 and manager.options.require_all then
    return nil, errors.new("SHARDS_FAILED", {
      message = ("%d of %d shards are not available"):format(#failed, #members),
      failed = failed,
      total = #members,
    })
  end
  return check_keys(manager, members, timeout)
end

return probe
