--- Writing the map down: in the catalog, and on the shards what they own of it.
-- Whatever a shard is given, it has before the catalog says so.
-- @module lunashard.catalog.record
-- @local

local errors = require("lunashard.errors")
local place = require("lunashard.catalog.place")
local schema = require("lunashard.catalog.schema")

local record = {}

--- The endpoint that the cluster file names as a shard's primary, whoever is primary now.
-- @tparam table member
-- @treturn table endpoint
function record.address(member)
  for _, endpoint in ipairs(member.endpoints) do
    if endpoint.configured_role == "primary" then
      return endpoint
    end
  end
end

-- A transaction whose statements raise what they fail with, so that one `pcall` sees it.
local function transaction(pool, deadline, fn)
  return schema.transaction(pool, deadline, function(lease)
    local ok, err = pcall(fn, function(sql, params)
      local result, problem = lease:execute(sql, params, { deadline = deadline })
      if not result then
        error(problem, 0)
      end
      return result
    end)
    if ok then
      return true
    elseif errors.is(err) and err.code ~= "CANCELED" then
      return nil, err
    end
    error(err, 0)
  end)
end

-- ---- the catalog ---------------------------------------------------------------------------

local SHARD_ROW = [[
  INSERT INTO lunashard_catalog.shard (shard_id, host, port, database, position, joined) VALUES ($1, $2, $3, $4, $5, $6)]]
local GROUP_ROW = [[
  INSERT INTO lunashard_catalog.placement_group (name, strategy, fingerprints, key_type, buckets, shards, changed)
    VALUES ($1, $2, ARRAY[$3::text], $4, $5, $6, $7)]]
local TABLE_ROW = [[INSERT INTO lunashard_catalog.grouped_table (name, grp, shard_key) VALUES ($1, $2, $3)]]
local BUCKET_ROWS = [[
  INSERT INTO lunashard_catalog.bucket (grp, bucket, shard_id, changed)
    SELECT $1, b, s, $4 FROM unnest($2::text[], $3::text[]) AS u(b, s)]]

local function write_group(run, group, version)
  run(GROUP_ROW, { group.name, group.strategy, group.fingerprint, group.key_type,
    not group.is_open and #group.buckets or nil, group.shards, version, n = 7 })
  for _, one in ipairs(group.tables) do
    run(TABLE_ROW, { one.name, group.name, one.shard_key })
  end
  run(BUCKET_ROWS, { group.name, group.buckets, group.owners, version })
end

local function write_shard(run, member, position, joined)
  local at = record.address(member)
  run(SHARD_ROW, { member.shard_id, at.host, at.port, member.info.database, position, joined })
end

local function next_version(run)
  return run("SELECT lunashard_catalog.next_version() AS version").rows[1].version
end

--- The whole map, in place of what an installation that did not end has left. Yields.
-- @tparam Manager manager
-- @tparam {table,...} groups from `install.groups`
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function record.all(manager, groups, deadline)
  return transaction(place.pool(manager), deadline, function(run)
    run("DELETE FROM lunashard_catalog.placement_group")
    run("DELETE FROM lunashard_catalog.shard")
    for i, member in ipairs(manager.members) do
      write_shard(run, member, i, true)
    end
    for _, group in ipairs(groups) do
      write_group(run, group, 1)
    end
  end)
end

-- ---- a shard -------------------------------------------------------------------------------

local SHARD_GROUP = [[
  INSERT INTO lunashard.placement_group (name, fingerprints, buckets, shards, tables)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (name) DO UPDATE SET fingerprints = excluded.fingerprints, tables = excluded.tables]]
local OWN = "INSERT INTO lunashard.bucket (grp, bucket, version) SELECT $1, b, 1 FROM unnest($2::text[]) b"

local function table_names(group)
  local names = {}
  for i, one in ipairs(group.tables) do
    names[i] = one.name
  end
  return names
end

local function give(run, member, group)
  local own = {}
  for i, owner in ipairs(group.owners) do
    own[#own + 1] = owner == member.shard_id and group.buckets[i] or nil
  end
  run("DELETE FROM lunashard.bucket WHERE grp = $1", { group.name })
  run("DELETE FROM lunashard.departed WHERE grp = $1", { group.name })
  run(SHARD_GROUP, { group.name, { group.fingerprint }, not group.is_open and #group.buckets or nil, group.shards,
    table_names(group), n = 5 })
  run(OWN, { group.name, own })
end

--- A shard learns what it owns of all groups. Yields.
-- @tparam table member
-- @tparam {table,...} groups from `install.groups`
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function record.hand_over_all(member, groups, deadline)
  return transaction(member.primary.pool, deadline, function(run)
    run("DELETE FROM lunashard.bucket")
    run("DELETE FROM lunashard.departed")
    run("DELETE FROM lunashard.placement_group")
    for _, group in ipairs(groups) do
      give(run, member, group)
    end
    run("UPDATE lunashard.identity SET joined = true")
    run("SELECT lunashard.advance()")
  end)
end

local function on_each(manager, deadline, fn)
  for _, member in ipairs(manager.members) do
    local ok, err = transaction(member.primary.pool, deadline, function(run)
      fn(run, member)
    end)
    if not ok then
      return nil, errors.wrap(err, { shard_id = member.shard_id })
    end
  end
  return true
end

-- ---- what comes later ------------------------------------------------------------------------

--- A shard that has our schema learns which groups there are. Yields.
-- @tparam Manager manager with a catalog
-- @tparam table member
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function record.introduce(manager, member, deadline)
  local ok, err = transaction(member.primary.pool, deadline, function(run)
    for name, group in pairs(manager.catalog.map.groups) do
      local names = {}
      for table_name in pairs(group.tables) do
        names[#names + 1] = table_name
      end
      run(SHARD_GROUP, { name, group.fingerprints, group.buckets, group.shards, names, n = 5 })
    end
  end)
  if not ok then
    return nil, errors.wrap(err, { shard_id = member.shard_id })
  end
  return true
end

--- A shard that has our schema joins the cluster, owning nothing. Yields.
-- @tparam Manager manager with a catalog
-- @tparam table member
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function record.join(manager, member, deadline)
  local ok, err = record.introduce(manager, member, deadline)
  if not ok then
    return nil, err
  end
  return transaction(place.pool(manager), deadline, function(run)
    local present = run("SELECT max(position) AS last, bool_or(shard_id = $1) AS known FROM lunashard_catalog.shard",
      { member.shard_id }).rows[1]
    if not present.known then
      write_shard(run, member, (present.last or 0) + 1, false)
      next_version(run)
    end
  end)
end

--- A shard has the rows of all reference tables: from now on writes to these go there, too. Yields.
-- @tparam Manager manager with a catalog
-- @string shard_id
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function record.has_references(manager, shard_id, deadline)
  return transaction(place.pool(manager), deadline, function(run)
    run("UPDATE lunashard_catalog.shard SET joined = true WHERE shard_id = $1", { shard_id })
    next_version(run)
  end)
end

--- Another group. Yields.
-- @tparam Manager manager with a catalog
-- @tparam table group from `install.groups`
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function record.add_group(manager, group, deadline)
  local ok, err = on_each(manager, deadline, function(run, member)
    give(run, member, group)
    run("SELECT lunashard.advance()")
  end)
  if not ok then
    return nil, err
  end
  return transaction(place.pool(manager), deadline, function(run)
    write_group(run, group, next_version(run))
  end)
end

--- Another table of a group. Yields.
-- @tparam Manager manager with a catalog
-- @tparam table one `group`, `name`, `shard_key`
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function record.add_table(manager, one, deadline)
  local ok, err = on_each(manager, deadline, function(run)
    run("UPDATE lunashard.placement_group SET tables = tables || $2::text WHERE name = $1 AND $2::text <> ALL (tables)",
      { one.group, one.name })
  end)
  if not ok then
    return nil, err
  end
  return transaction(place.pool(manager), deadline, function(run)
    run(TABLE_ROW, { one.name, one.group, one.shard_key })
    next_version(run)
  end)
end

--- The present address of a shard. Yields.
-- @tparam Manager manager
-- @tparam table member
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function record.address_of(manager, member, deadline)
  local at = record.address(member)
  return transaction(place.pool(manager), deadline, function(run)
    run("UPDATE lunashard_catalog.shard SET host = $2, port = $3, database = $4 WHERE shard_id = $1",
      { member.shard_id, at.host, at.port, member.info.database })
    next_version(run)
  end)
end

--- The present version of a group's strategy, in place of the one before. Yields.
-- @tparam Manager manager
-- @string group
-- @string mark from `fingerprint.of`
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function record.fingerprint(manager, group, mark, deadline)
  local ok, err = on_each(manager, deadline, function(run)
    run("UPDATE lunashard.placement_group SET fingerprints = ARRAY[$2::text] WHERE name = $1", { group, mark })
  end)
  if not ok then
    return nil, err
  end
  return transaction(place.pool(manager), deadline, function(run)
    run("UPDATE lunashard_catalog.placement_group SET fingerprints = ARRAY[$2::text] WHERE name = $1", { group, mark })
    next_version(run)
  end)
end

return record
