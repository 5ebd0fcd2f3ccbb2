--- What `lunashard cluster status` shows: the catalog, what each shard owns, who routes, what is open.
-- @module lunashard.catalog.overview
-- @local

local parallel = require("lunashard.parallel")

local overview = {}

local ROUTERS = [[
  SELECT name, extract(epoch FROM lease_until - clock_timestamp())::float8 AS lease_seconds, acknowledged, shards
    FROM lunashard_catalog.router ORDER BY name, router_id]]
local JOBS = [[
  SELECT id, grp AS "group", kind, strategy, status, total_rows, total_migrated, error_message
    FROM lunashard_catalog.job WHERE status IN ('pending', 'running', 'paused', 'failed') ORDER BY id DESC LIMIT 10]]
local EVENTS = [[
  SELECT to_char(at, 'YYYY-MM-DD HH24:MI:SS OF') AS at, kind, message, job
    FROM lunashard_catalog.event ORDER BY id DESC LIMIT 10]]
local ON_SHARD = [[
  SELECT s.in_transition, (SELECT count(*) FROM lunashard.move m WHERE m.fenced_at IS NOT NULL) AS fences
    FROM lunashard.state s]]

local function rows(catalog, sql, deadline)
  local result, err = catalog:execute(sql, nil, deadline)
  if not result then
    return nil, err
  end
  return result.rows
end

local function shard_list(manager, deadline)
  local catalog = manager.catalog
  local outcome = parallel.each(manager.members, function(member)
    return member.primary.pool:execute(ON_SHARD, nil, { deadline = deadline })
  end)
  local list = {}
  for i, member in ipairs(manager.members) do
    local id, said = member.shard_id, outcome.results[i]
    local row = catalog.map.shards[id]
    list[i] = { shard_id = id, address = row and ("%s:%d/%s"):format(row.host, row.port, row.database),
      state = row and row.state or "not in the catalog", buckets = catalog:owned_by(id),
      in_transition = said and said.rows[1] and said.rows[1].in_transition,
      fences = said and said.rows[1] and said.rows[1].fences,
      error = not said and outcome.errors[i].sqlstate ~= "42P01" and outcome.errors[i].message or nil }
  end
  return list
end

local function group_list(catalog)
  local list = {}
  for name, group in pairs(catalog.map.groups) do
    local one = { name = name, strategy = group.strategy, key_type = group.key_type, buckets = group.buckets,
      is_open = group.buckets == nil, tables = {}, shards = {} }
    for table_name in pairs(group.tables) do
      table.insert(one.tables, table_name)
    end
    table.sort(one.tables)
    for _, shard_id in pairs(group.owners) do
      one.shards[shard_id] = (one.shards[shard_id] or 0) + 1
    end
    list[#list + 1] = one
  end
  table.sort(list, function(a, b)
    return a.name < b.name
  end)
  return list
end

--- Read it. Yields.
-- @tparam Manager manager with a catalog
-- @tparam ?number deadline
-- @treturn[1] table `id name map_version guards guard_epoch`, `shards`, `groups`, `routers`, `jobs`, `events`: lists
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function overview.read(manager, deadline)
  local catalog = manager.catalog
  local result = { id = catalog.id, name = catalog.name, map_version = catalog.version, guards = catalog.guards,
    guard_epoch = catalog.guard_epoch, groups = group_list(catalog), shards = shard_list(manager, deadline) }
  for name, sql in pairs({ routers = ROUTERS, jobs = JOBS, events = EVENTS }) do
    local list, err = rows(catalog, sql, deadline)
    if not list then
      return nil, err
    end
    result[name] = list
  end
  return result
end

return overview
