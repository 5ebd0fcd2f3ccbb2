--- Reading the map: from the catalog, or, while that cannot be reached, from what the shards say that they own.
-- A map is `{ id, name, version, guards, guard_epoch, quiet, shards, joined, groups }`: `quiet`, for how many seconds guards
-- had been on or off when it was read (from the catalog); `shards` by id; `joined`, by id, whether a shard has the rows
-- of reference tables; `groups` by name with `fingerprints`, `buckets` (how many, nil for an open group), `shards` (JSON
-- text), `tables`, `owners` and `versions` by the bucket's text; versions are there when they are not 1.
-- @module lunashard.catalog.map
-- @local

local breath = require("lunashard.plugin.breath")
local errors = require("lunashard.errors")
local parallel = require("lunashard.parallel")
local schema = require("lunashard.catalog.schema")
local task = require("lunashard.task")

local map = {}

--- The query, asked now and then, that tells whether there is anything new: every change of the map has a version.
-- @table LOOK
map.LOOK = [[
  SELECT id, name, map_version, guards, guard_epoch,
    extract(epoch FROM clock_timestamp() - guards_changed)::float8 AS quiet FROM lunashard_catalog.cluster]]

--- Is a map what its catalog has?
-- @tparam table known `id`, `version`, `guards`, `guard_epoch`
-- @tparam table row from @{LOOK}
-- @treturn boolean
function map.is_present(known, row)
  return row.id == known.id and row.map_version == known.version and row.guards == known.guards
    and row.guard_epoch == known.guard_epoch
end

-- All of a map is read from one snapshot.
local MODE = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"

local SHARDS = [[SELECT shard_id, host, port, database, position, state, joined FROM lunashard_catalog.shard]]
local GROUPS = [[
  SELECT name, strategy, fingerprints, key_type, buckets, shards::text AS shards FROM lunashard_catalog.placement_group]]
local TABLES = [[SELECT name, grp, shard_key FROM lunashard_catalog.grouped_table ORDER BY name]]
-- In pieces, for a row of the answer is dearer than an element of an array.
local BUCKETS = [[
  SELECT grp, shard_id, version, array_agg(bucket) AS buckets
    FROM (SELECT grp, shard_id, version, bucket, row_number() OVER (PARTITION BY grp, shard_id, version) / 2000 AS piece
            FROM lunashard_catalog.bucket WHERE changed > $1) b GROUP BY grp, shard_id, version, piece]]

-- What the owners and versions of a group are after some changes; the former ones stay as they are.
local function changed_copy(known)
  local owners, versions = {}, {}
  for bucket, shard_id in pairs(known and known.owners or {}) do
    owners[bucket] = shard_id
  end
  for bucket, version in pairs(known and known.versions or {}) do
    versions[bucket] = version
  end
  return owners, versions
end

local function read_groups(run, known, since)
  local groups, touched = {}, {}
  for _, row in ipairs(run(GROUPS).rows) do
    local before = known and known.groups[row.name]
    groups[row.name] = { name = row.name, strategy = row.strategy, fingerprints = row.fingerprints,
      key_type = row.key_type, buckets = row.buckets, shards = row.shards, tables = {},
      owners = before and before.owners or {}, versions = before and before.versions or {} }
  end
  for _, row in ipairs(run(TABLES).rows) do
    groups[row.grp].tables[row.name] = row.shard_key
  end
  local pause = breath.new()
  for _, row in ipairs(run(BUCKETS, { since }).rows) do
    pause()
    local group = groups[row.grp]
    if not touched[group] then
      touched[group] = true
      group.owners, group.versions = changed_copy(group)
    end
    local version = row.version ~= 1 and row.version or nil
    for _, bucket in ipairs(row.buckets) do
      group.owners[bucket], group.versions[bucket] = row.shard_id, version
    end
  end
  return groups
end

-- The known map, when it is the present one: whoever waits for a cutover asks many times.
local function same(pool, known, deadline)
  local seen = pool:execute(map.LOOK, nil, { deadline = deadline, pipeline = false })
  local row = seen and seen.rows[1]
  if not row or not map.is_present(known, row) then
    return nil
  end
  local found = {}
  for name, value in pairs(known) do
    found[name] = value
  end
  found.quiet = row.quiet
  return found
end

--- Read the map from the catalog: what has changed since the one that is known. Yields.
-- @tparam Pool pool of the catalog
-- @tparam ?table known a map that was read before
-- @tparam ?number deadline
-- @treturn[1] table a new map, false when there is none (yet)
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function map.read(pool, known, deadline)
  local present = known and not known.silent and same(pool, known, deadline)
  if present then
    return present
  end
  local version, err = schema.version(pool, "catalog", deadline)
  if not version then
    return nil, err
  elseif version == 0 then
    return false
  end
  local ok
  ok, err = schema.check_present(version, "catalog")
  if not ok then
    return nil, err
  end
  return schema.transaction(pool, deadline, function(lease)
    local function run(sql, params)
      local result, problem = lease:execute(sql, params, { deadline = deadline })
      if not result then
        error(problem, 0)
      end
      return result
    end
    local result
    ok, result = pcall(function()
      local cluster = run(map.LOOK).rows[1]
      if not cluster or cluster.map_version == 0 then
        return false
      end
      -- Of another cluster, or one that was restored from a backup, nothing that is known holds.
      if known and (known.id ~= cluster.id or known.version > cluster.map_version) then
        known = nil
      end
      local found = { id = cluster.id, name = cluster.name, version = cluster.map_version, guards = cluster.guards,
        guard_epoch = cluster.guard_epoch, quiet = cluster.quiet, shards = {}, joined = {} }
      for _, row in ipairs(run(SHARDS).rows) do
        found.shards[row.shard_id], found.joined[row.shard_id] = row, row.joined
      end
      found.groups = read_groups(run, known, known and known.version or 0)
      return found
    end)
    if ok then
      return result
    elseif errors.is(result) then
      return nil, result
    end
    error(result, 0)
  end, MODE)
end

-- ---- from the shards --------------------------------------------------------------------

local ON_SHARD = {
  identity = "SELECT cluster_id, shard_id, joined FROM lunashard.identity",
  groups = "SELECT name, fingerprints, buckets, shards::text AS shards, tables FROM lunashard.placement_group",
  buckets = "SELECT grp, bucket, version FROM lunashard.bucket",
  departed = "SELECT grp, bucket FROM lunashard.departed",
}

local function ask_shard(member, deadline)
  local version, err = schema.version(member.primary.pool, "shard", deadline)
  if not version then
    return nil, err
  elseif version == 0 then
    return {}
  end
  local present
  present, err = schema.check_present(version, "shard", member.shard_id)
  if not present then
    return nil, err
  end
  return schema.transaction(member.primary.pool, deadline, function(lease)
    local ok, problem, found = true, nil, {}
    for name, sql in pairs(ON_SHARD) do
      if ok then
        ok, problem = lease:execute(sql, nil, { deadline = deadline })
        found[name] = ok and ok.rows
      end
    end
    if not ok then
      return nil, problem
    end
    found.identity = found.identity[1]
    return found
  end, MODE)
end

local function claim(group, row, shard_id)
  local before = group.claimed[row.bucket]
  if before and before ~= shard_id then
    return nil, errors.new("INVALID", {
      message = ("%s and %s both say that they own bucket %s of group %s: repair that before anything else"):format(before,
        shard_id, row.bucket, group.name),
    })
  end
  group.claimed[row.bucket] = shard_id
  if row.version >= (group.versions[row.bucket] or (group.owners[row.bucket] and 1 or 0)) then
    group.owners[row.bucket] = shard_id
    group.versions[row.bucket] = row.version ~= 1 and row.version or nil
  end
  return true
end

-- Add what one shard says to the map.
local function merge(found, said, member)
  local identity = said.identity
  if found.id and found.id ~= identity.cluster_id or identity.shard_id ~= member.shard_id then
    return nil, errors.new("INVALID", {
      shard_id = member.shard_id,
      message = ("the database that the cluster file calls %s is the shard %s of the cluster %s"):format(member.shard_id,
        identity.shard_id, identity.cluster_id),
    })
  end
  found.id = identity.cluster_id
  if found.joined[member.shard_id] == nil then
    found.joined[member.shard_id] = identity.joined
  end
  for _, row in ipairs(said.groups) do
    local group = found.groups[row.name]
    if not group then
      group = { name = row.name, fingerprints = row.fingerprints, buckets = row.buckets, shards = row.shards, tables = {},
        owners = {}, versions = {}, claimed = {} }
      for _, name in ipairs(row.tables) do
        group.tables[name] = false -- the key's columns are the catalog's to know
      end
      found.groups[row.name] = group
    end
  end
  for _, row in ipairs(said.buckets) do
    local group = found.groups[row.grp]
    local ok, err = nil, errors.new("INVALID", {
      message = ("%s owns buckets of a group %s that it does not know"):format(member.shard_id, row.grp),
    })
    if group then
      ok, err = claim(group, row, member.shard_id)
    end
    if not ok then
      return nil, err
    end
  end
  return true
end

local function copy_known(known)
  local found = { id = known and known.id, name = known and known.name, version = known and known.version or 0,
    guards = true, guard_epoch = known and known.guard_epoch or 0, shards = known and known.shards or {},
    joined = {}, groups = {} }
  for shard_id, has_joined in pairs(known and known.joined or {}) do
    found.joined[shard_id] = has_joined
  end
  for name, group in pairs(known and known.groups or {}) do
    local owners, versions = changed_copy(group)
    found.groups[name] = { name = name, strategy = group.strategy, fingerprints = group.fingerprints,
      key_type = group.key_type, buckets = group.buckets, shards = group.shards, tables = group.tables, owners = owners,
      versions = versions, claimed = {} }
  end
  return found
end

--- What each shard says its version is. Yields.
-- Read before the map, so that a version never vouches for what the map does not have yet.
-- @tparam Manager manager
-- @tparam ?number deadline
-- @treturn table shard_id -> number, of those that answered and own something
function map.shard_versions(manager, deadline)
  local limit = math.min(deadline or math.huge, task.now() + manager.options.health_check_timeout)
  local outcome = parallel.each(manager.members, function(member)
    local result, err = member.primary.pool:execute("SELECT version FROM lunashard.state", nil,
      { deadline = limit, read_only = true })
    return result and result.rows[1] and result.rows[1].version or nil, err or errors.new("INVALID", { message = "no state" })
  end)
  local versions = {}
  for i, member in ipairs(manager.members) do
    versions[member.shard_id] = outcome.results[i]
  end
  return versions
end

-- Shards that own buckets no more of which nobody says to be the owner: they have gone to a shard that is silent, or are on their
-- way. The map still leads there, where a guard for the whole shard would find all well.
local function givers(found, answers)
  local set = {}
  for _, group in pairs(found.groups) do
    for bucket, shard_id in pairs(group.owners) do
      if answers[shard_id] and group.claimed[bucket] ~= shard_id then
        set[shard_id] = true
      end
    end
  end
  for shard_id, said in pairs(answers) do
    for _, row in ipairs(said.departed) do
      local group = found.groups[row.grp]
      if group and not group.owners[row.bucket] then
        set[shard_id] = true
      end
    end
  end
  return set
end

--- Put the map together from the shards that answer. Yields.
-- What none of them owns stays where it was known to be, or is not in the map.
-- @tparam Manager manager
-- @tparam ?table known a map that was read before
-- @tparam ?number deadline
-- @treturn[1] table a map with `guards = true`; `silent`: names of shards that did not answer
-- @treturn[1] nil
-- @treturn[1] table as of `shard_versions`, without those of shards to which the map leads for what they do not own
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function map.from_shards(manager, known, deadline)
  local versions = map.shard_versions(manager, deadline)
  local outcome = parallel.each(manager.members, function(member)
    return ask_shard(member, deadline)
  end)
  local found, answers, silent = copy_known(known), {}, {}
  for i, member in ipairs(manager.members) do
    local said = outcome.results[i]
    if not said then
      silent[#silent + 1] = member.shard_id
    elseif said.identity then
      answers[member.shard_id] = said
      local ok, err = merge(found, said, member)
      if not ok then
        return nil, err
      end
    end
  end
  if not found.id then
    return nil, outcome.errors[1] or errors.new("SHARD_DOWN", { message = "no shard could be asked what it owns" })
  end
  for shard_id in pairs(givers(found, answers)) do
    versions[shard_id] = nil
  end
  found.silent = silent
  return found, nil, versions
end

return map
