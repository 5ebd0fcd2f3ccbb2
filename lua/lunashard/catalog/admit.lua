--- Does a cluster file fit the catalog? Whatever does not is refused, with what to do.
-- @module lunashard.catalog.admit
-- @local

local buckets = require("lunashard.catalog.buckets")
local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local fingerprint = require("lunashard.catalog.fingerprint")
local parallel = require("lunashard.parallel")
local place = require("lunashard.catalog.place")
local schema = require("lunashard.catalog.schema")
local sorted = require("lunashard.sorted")
local warn = require("lunashard.warn")

local admit = {}

local NOTHING = {}

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

--- Did a shard say, when it was probed, that it belongs to a cluster with a catalog?
-- @tparam Manager manager
-- @treturn ?table the member
function admit.has_managed(manager)
  for _, member in ipairs(manager.members) do
    if member.primary.managed then
      return member
    end
  end
end

-- ---- groups and tables ------------------------------------------------------------------

local function is_member(list, wanted)
  for _, one in ipairs(list) do
    if one == wanted then
      return true
    end
  end
  return false
end

--- Is a strategy the one that a group's map was made with?
-- @tparam table group of a map
-- @tparam lunashard.strategy.bound bound
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function admit.group(group, bound)
  local mark, err = fingerprint.of(bound)
  if not mark then
    return nil, err
  elseif is_member(group.fingerprints, mark) then
    return true
  elseif group.strategy and group.strategy ~= bound.name then
    return invalid("strategy: the catalog's map is that of %s, but the cluster file says %s", group.strategy, bound.name)
  end
  return invalid("strategy %s: its plug-in, options or key type are not those that the catalog's map was made with; use "
    .. "the same ones, or let `lunashard cluster upgrade` look whether every row stays where it is", bound.name)
end

local function check_table(name, declared, groups)
  local type_name = fingerprint.key_type(declared.type)
  local group = groups[type_name]
  local columns = group and group.tables[name]
  if columns == nil then
    return invalid("tables.%s is not in the catalog, so that its rows would not be moved with their bucket: run `lunashard "
      .. "cluster init` again, which adds it", name)
  end
  local key = declared.shard_key
  local own = table.concat(type(key) == "table" and key or { key }, ", ")
  if columns and table.concat(columns, ", ") ~= own then
    return invalid("tables.%s: its key is (%s) in the cluster file and (%s) in the catalog", name, own,
      table.concat(columns, ", "))
  end
  return true
end

local function check_groups(found, strategies, tables, allowed)
  for _, name in ipairs(sorted.keys(allowed.tables and {} or tables)) do
    if not tables[name].reference then
      local ok, err = check_table(name, tables[name], found.groups)
      if not ok then
        return nil, err
      end
    end
  end
  for _, name in ipairs(sorted.keys(strategies.by_type)) do
    local group = found.groups[name]
    if not group and not allowed.tables then
      return invalid("tables: the cluster has a catalog, so the cluster file must declare its tables and their keys' types "
        .. "as `lunashard cluster status` shows them")
    end
    local ok, err = true, nil
    if group and not allowed.fingerprints then
      ok, err = admit.group(group, strategies.by_type[name])
    end
    if not ok then
      return nil, err
    end
  end
  return true
end

-- ---- shards ------------------------------------------------------------------------------

local function has_endpoint(member, row)
  for _, endpoint in ipairs(member.endpoints) do
    if endpoint.host == row.host and endpoint.port == row.port then
      return true
    end
  end
  return false
end

--- Has a shard the address that the catalog knows?
-- @tparam table member
-- @tparam table row of the map's shards
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function admit.address(member, row)
  local info = member.info
  if member.endpoints and not has_endpoint(member, row) or info.database ~= row.database then
    return invalid("%s: the cluster file says %s:%d/%s, the catalog %s:%d/%s; correct the file, or, when the database has "
      .. "moved, run `lunashard cluster upgrade`, which asks the server who it is", member.info.shard_id, info.host,
      info.port, info.database, row.host, row.port, row.database)
  end
  return true
end

--- How many buckets each shard owns.
-- @tparam table found a map
-- @treturn table shard_id -> number
function admit.count_owned(found)
  local owned = {}
  for _, group in pairs(found.groups) do
    for _, shard_id in pairs(group.owners) do
      owned[shard_id] = (owned[shard_id] or 0) + 1
    end
  end
  return owned
end

--- Do shards own buckets that are not among those of the manager?
-- @tparam table owned from `count_owned`
-- @tparam table by_id the manager's members
-- @treturn ?lunashard.error `INVALID` that names them
function admit.missing(owned, by_id)
  for _, shard_id in ipairs(sorted.keys(owned)) do
    if not by_id[shard_id] then
      return errors.new("INVALID", {
        message = ("%s owns %d buckets, but is not in the cluster file: add it there"):format(shard_id, owned[shard_id]),
      })
    end
  end
end

--- Does what a manager has fit a map?
-- @tparam table found from `map`
-- @tparam table strategies from `binding.bind`
-- @tparam table tables as declared
-- @tparam {table,...} members
-- @tparam[opt] table allowed what may differ: `shards` (some are missing), `addresses`, `fingerprints`, `tables` (there
--   are new ones)
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function admit.check(found, strategies, tables, members, allowed)
  allowed = allowed or NOTHING
  local by_id = {}
  for _, member in ipairs(members) do
    by_id[member.info.shard_id] = member
    local row = found.shards[member.info.shard_id]
    local ok, err = true, nil
    if row and not allowed.addresses then
      ok, err = admit.address(member, row)
    end
    if not ok then
      return nil, err
    end
  end
  local err = not allowed.shards and admit.missing(admit.count_owned(found), by_id)
  if err then
    return nil, err
  end
  return check_groups(found, strategies, tables, allowed)
end

-- ---- who the servers say that they are ----------------------------------------------------

--- Is the database that a member stands for the shard of that name in this cluster? Yields.
-- @tparam table endpoint of the member
-- @string cluster_id
-- @tparam ?boolean owner it owns buckets: then it must say so
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function admit.identity(endpoint, cluster_id, owner, deadline)
  local version, err = schema.version(endpoint.pool, "shard", deadline)
  local result
  if version == 0 then
    if owner then
      return invalid("%s: the database owns buckets, but has no schema lunashard: it is another database than it was",
        endpoint.shard_id)
    end
    return true
  elseif version then
    result, err = endpoint.pool:execute("SELECT cluster_id, shard_id FROM lunashard.identity", nil, { deadline = deadline })
  end
  if not result then
    return nil, err
  end
  local row = result.rows[1]
  if row and (row.cluster_id ~= cluster_id or row.shard_id ~= endpoint.shard_id) then
    return invalid("the database that the cluster file calls %s is the shard %s of %s", endpoint.shard_id, row.shard_id,
      row.cluster_id == cluster_id and "this cluster" or "another cluster")
  elseif not row and owner then
    return invalid("%s: the database owns buckets, but does not say which shard it is", endpoint.shard_id)
  end
  return true
end

--- The same for all members that answer. Yields.
-- @tparam Manager manager
-- @tparam table found a map
-- @tparam ?number deadline
-- @treturn[1] {table,...} the endpoints that could be asked; the others are when they are probed
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function admit.identities(manager, found, deadline)
  local owned, live = admit.count_owned(found), {}
  for _, member in ipairs(manager.members) do
    live[#live + 1] = member.primary.health.is_healthy and member or nil
  end
  local outcome = parallel.each(live, function(member)
    return admit.identity(member.primary, found.id, owned[member.shard_id], deadline)
  end)
  local asked = {}
  for i, member in ipairs(live) do
    local err = outcome.errors[i]
    if err and err.code == "INVALID" then
      return nil, err
    end
    asked[#asked + 1] = not err and member.primary or nil
  end
  return asked
end

--- May a cluster be static whose catalog, where it would be, there is none (yet)? Yields.
-- Not when a shard belongs to a cluster: only an installation that did not end leaves it so.
-- @tparam Manager manager
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function admit.static(manager, deadline)
  local member = admit.has_managed(manager)
  if not member then
    return true
  end
  local version, err = schema.version(place.pool(manager), "catalog", deadline)
  if not version then
    return nil, err
  elseif version == 0 then
    return invalid("%s belongs to a cluster with a catalog, which is not in %s: name its place with the option catalog",
      member.shard_id, place.describe(manager))
  end
  warn.emit("the catalog's installation was not finished, so that the cluster is used without it; run `lunashard cluster "
    .. "init` again")
  return true
end

-- ---- strategies -----------------------------------------------------------------------------

--- The shards over which open groups were placed when the catalog was made: their strategies go on with these.
-- @tparam table found a map
-- @treturn table group -> list of shards
function admit.recorded(found)
  local recorded = {}
  for name, group in pairs(found.groups) do
    if group.buckets == nil then
      recorded[name] = assert(cjson.decode(group.shards))
    end
  end
  return recorded
end

--- The buckets that a group must have, for a map that may lack some.
-- @tparam table group of a map
-- @tparam lunashard.strategy.bound bound
-- @treturn[1] table set of texts
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`: they cannot be told
function admit.expected(group, bound)
  local set, n = {}, group.buckets
  if n == nil then
    return set
  elseif bound.map then
    for bucket = 0, n - 1 do
      set[("%d"):format(bucket)] = true
    end
    return set
  end
  local list = buckets.list(bound)
  if #list ~= n then
    return invalid("the catalog cannot be reached, and the cluster file's strategy has %d buckets, not the %d of the map",
      #list, n)
  end
  for _, one in ipairs(list) do
    set[buckets.text(one[1])] = true
  end
  return set
end

return admit
