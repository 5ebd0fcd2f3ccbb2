--- Installing the catalog: our schemas on all sides, and the map of what is there.
-- Every step may be repeated, and one that was done is left alone. Until the last one the catalog's `map_version` is 0:
-- nobody uses it before, and nothing can be moved.
-- @module lunashard.catalog.install
-- @local

local buckets = require("lunashard.catalog.buckets")
local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local fingerprint = require("lunashard.catalog.fingerprint")
local parallel = require("lunashard.parallel")
local place = require("lunashard.catalog.place")
local record = require("lunashard.catalog.record")
local schema = require("lunashard.catalog.schema")
local sorted = require("lunashard.sorted")

local install = {}

local function invalid(format, ...)
  return nil, errors.new("INVALID", { message = format:format(...) })
end

-- ---- what is to be written down ----------------------------------------------------

-- What a strategy may know of the shards, for groups whose unlisted buckets it places for ever.
local function described(bound)
  local list = {}
  for i, one in ipairs(bound.shards) do
    list[i] = { shard_id = one.shard_id, weight = one.weight, region = one.region, tags = one.tags }
  end
  return cjson.encode(list)
end

local function group_of(name, bound)
  local mark, err = fingerprint.of(bound)
  if not mark then
    return nil, err
  end
  local group = { name = name, strategy = bound.name, fingerprint = mark, bound = bound, tables = {},
    key_type = fingerprint.key_type(bound.key_type), shards = described(bound), buckets = {}, owners = {} }
  local list, complete = buckets.list(bound)
  for i, one in ipairs(list) do
    group.buckets[i], group.owners[i] = buckets.text(one[1]), one[2]
  end
  group.is_open = not complete
  return group
end

--- The groups of tables as the cluster file declares them.
-- @tparam Manager manager
-- @treturn[1] {table,...} by name: `name strategy fingerprint key_type is_open buckets owners tables bound shards`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function install.groups(manager)
  local groups, by_name = {}, {}
  for _, name in ipairs(sorted.keys(manager.tables)) do
    local declared = manager.tables[name]
    if not declared.reference then
      local type_name = fingerprint.key_type(declared.type)
      if not declared.type then
        return invalid("tables.%s: declare the type of its key (int8, text, uuid, date): with a catalog it must be certain", name)
      elseif not by_name[type_name] then
        local group, err = group_of(type_name, manager.strategies.by_type[type_name])
        if not group then
          return nil, err
        end
        by_name[type_name], groups[#groups + 1] = group, group
      end
      local key = declared.shard_key
      table.insert(by_name[type_name].tables, { name = name, shard_key = type(key) == "table" and key or { key } })
    end
  end
  if #groups == 0 then
    return invalid("tables: the cluster file declares none; a catalog needs to know which tables are sharded, as in "
      .. 'tables = { users = { shard_key = "user_id", type = "int8" } }')
  end
  return groups
end

-- ---- the steps -----------------------------------------------------------------------

local CLUSTER = [[
  INSERT INTO lunashard_catalog.cluster (name) SELECT $1::text WHERE NOT EXISTS (SELECT FROM lunashard_catalog.cluster)]]

--- The cluster as the catalog has it. Yields.
-- @tparam table connection a pool or a lease
-- @tparam ?number deadline
-- @treturn[1] table `id name map_version guards guard_epoch`, or false when there is none
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function install.cluster(connection, deadline)
  local result, err = connection:execute(
    "SELECT id, name, map_version, guards, guard_epoch FROM lunashard_catalog.cluster", nil, { deadline = deadline })
  if not result then
    return nil, err
  end
  return result.rows[1] or false
end

local function install_catalog(manager, deadline)
  local pool, database = place.pool(manager), place.database(manager)
  local cluster, err = schema.transaction(pool, deadline, function(lease)
    local before, problem = schema.upgrade(lease, "catalog", deadline)
    local ok
    if before then
      ok, problem = lease:execute(CLUSTER, { manager.name }, { deadline = deadline })
    end
    if not ok then
      return nil, problem
    end
    return install.cluster(lease, deadline)
  end)
  if not cluster then
    return nil, schema.explain(err, "installing the schema lunashard_catalog", database)
  end
  return cluster
end

local IDENTITY = [[
  INSERT INTO lunashard.identity (cluster_id, shard_id)
    SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM lunashard.identity)]]
local WHO = [[SELECT cluster_id, shard_id FROM lunashard.identity]]

local function check_identity(found, member, cluster)
  if found.cluster_id ~= cluster.id then
    return nil, errors.new("INVALID", {
      shard_id = member.shard_id,
      message = ("%s belongs to another cluster (%s), not to this one (%s)"):format(member.shard_id, found.cluster_id,
        cluster.id),
    })
  elseif found.shard_id ~= member.shard_id then
    return nil, errors.new("INVALID", {
      shard_id = member.shard_id,
      message = ("the database that the cluster file calls %s is the shard %s of this cluster"):format(member.shard_id,
        found.shard_id),
    })
  end
  return true
end

--- Install our schema on one shard, and say whose it is. Yields.
-- @tparam table member
-- @tparam table cluster with its `id`
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function install.shard(member, cluster, deadline)
  local opts = { deadline = deadline }
  local ok, err = schema.transaction(member.primary.pool, deadline, function(lease)
    local done, problem = schema.upgrade(lease, "shard", deadline)
    if done then
      done, problem = lease:execute(IDENTITY, { cluster.id, member.shard_id }, opts)
    end
    if done then
      done, problem = lease:execute(WHO, nil, opts)
    end
    if not done then
      return nil, problem
    end
    return check_identity(done.rows[1], member, cluster)
  end)
  if not ok then
    return nil, schema.explain(err, "installing the schema lunashard", member.info.database)
  end
  return true
end

local function on_all(manager, fn)
  local outcome, failed = parallel.each(manager.members, fn), {}
  for i, member in ipairs(manager.members) do
    if outcome.errors[i] then
      failed[#failed + 1] = { shard_id = member.shard_id, error = outcome.errors[i] }
    end
  end
  if #failed == 1 then
    return nil, errors.wrap(failed[1].error, { shard_id = failed[1].shard_id })
  elseif #failed > 0 then
    return nil, errors.new("SHARDS_FAILED", {
      message = ("%d of %d shards failed"):format(#failed, #manager.members),
      failed = failed,
      total = #manager.members,
    })
  end
  return true
end

--- Do something on all shards at once; the first failure is the answer. Yields.
-- @tparam Manager manager
-- @tparam func fn `fn(member)` -> value | nil, err
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error that of the only shard that failed, or `SHARDS_FAILED`
install.on_all = on_all

--- Install the catalog for a static cluster, with the map of its strategies. Yields.
-- It looks at no rows: see `verify`. A catalog that is there already is left alone.
-- @tparam Manager manager initialized, static
-- @tparam ?number deadline
-- @treturn[1] table `installed`: false when it was there, `cluster` (its id), `groups`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function install.run(manager, deadline)
  local groups, err = install.groups(manager)
  local cluster
  if groups then
    cluster, err = install_catalog(manager, deadline)
  end
  if not cluster then
    return nil, err
  elseif cluster.map_version > 0 then
    return { installed = false, cluster = cluster.id, groups = groups }
  end
  local ok
  ok, err = on_all(manager, function(member)
    return install.shard(member, cluster, deadline)
  end)
  if ok then
    ok, err = record.all(manager, groups, deadline)
  end
  if ok then
    ok, err = on_all(manager, function(member)
      return record.hand_over_all(member, groups, deadline)
    end)
  end
  if ok then
    ok, err = place.pool(manager):execute("UPDATE lunashard_catalog.cluster SET map_version = 1 WHERE map_version = 0", nil,
      { deadline = deadline })
  end
  if not ok then
    return nil, err
  end
  return { installed = true, cluster = cluster.id, groups = groups }
end

local function drop(pool, side, deadline)
  return schema.transaction(pool, deadline, function(lease)
    return schema.drop(lease, side, deadline)
  end)
end

--- Remove our schemas from all shards and from the catalog. Yields. Looks at nothing: see `catalog.remove`.
-- The map is made invalid first, the catalog goes last, so that a run that failed midway can be repeated.
-- @tparam Manager manager
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function install.drop(manager, deadline)
  local pool = place.pool(manager)
  local version, err = schema.version(pool, "catalog", deadline)
  local ok = version
  if version and version > 0 then
    ok, err = pool:execute("UPDATE lunashard_catalog.cluster SET map_version = 0", nil, { deadline = deadline })
  end
  if ok then
    ok, err = on_all(manager, function(member)
      return drop(member.primary.pool, "shard", deadline)
    end)
  end
  if not ok then
    return nil, err
  end
  return drop(pool, "catalog", deadline)
end

return install
