--- Whether shards may be used: the first look at their servers, and whether they hash text as we do.
-- @module lunashard.manager.admission

local errors = require("lunashard.errors")
local monitor = require("lunashard.manager.monitor")
local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

local admission = {}

-- These place keys without hashing their text, so the server's encoding does not matter.
local NEVER_HASH = { range = true, geographic = true, directory = true }

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

--- The first look at some shards. Yields.
-- @tparam Manager manager
-- @tparam {table,...} members with open pools and a monitor each
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` when the manager's `require_all` is set and a primary
--   is down; `INVALID` when a shard cannot hold the declared text keys
function admission.check(manager, members)
  parallel.each(members, function(member)
    return monitor.check_now(manager, member)
  end)
  local failed = {}
  for _, member in ipairs(members) do
    if not is_live(member) then
      failed[#failed + 1] = { shard_id = member.shard_id, error = member.primary.health.last_error }
    end
  end
  if #failed > 0 and manager.options.require_all then
    return nil, errors.new("SHARDS_FAILED", {
      message = ("%d of %d shards are not available"):format(#failed, #members),
      failed = failed,
      total = #members,
    })
  end
  return check_keys(manager, members, manager.options.connection_timeout)
end

return admission
