--- `lunashard cluster init` and `upgrade`: what is to be done, and doing it.
-- Both look first and change afterwards: every row must be where the map says. Running them again does what is missing.
-- @module lunashard.catalog.setup
-- @local

local admit = require("lunashard.catalog.admit")
local catalog = require("lunashard.catalog")
local errors = require("lunashard.errors")
local fingerprint = require("lunashard.catalog.fingerprint")
local install = require("lunashard.catalog.install")
local map = require("lunashard.catalog.map")
local place = require("lunashard.catalog.place")
local record = require("lunashard.catalog.record")
local schema = require("lunashard.catalog.schema")
local verify = require("lunashard.catalog.verify")

local setup = {}

local EXAMPLES = 3

-- ---- the ground ------------------------------------------------------------------------

--- Initialize a manager for work on the catalog itself: it does not use it yet. Yields.
-- @tparam Manager manager not initialized
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED`: every shard is needed
function setup.open(manager)
  manager.is_unattached = true
  manager.options.require_all = true
  return manager:initialize()
end

local function misplaced(report)
  local parts = {}
  for _, one in ipairs(report.tables) do
    for _, way in ipairs(one.misplaced) do
      parts[#parts + 1] = ("%d of %s on %s%s"):format(way.rows, one.table, way.from,
        way.to and " belong to " .. way.to or " belong nowhere")
    end
  end
  local more = #parts > EXAMPLES and ", ..." or ""
  return errors.new("PLACEMENT_CHANGED", {
    message = ("%d rows are not where the map says: %s%s; nothing was changed"):format(report.misplaced,
      table.concat(parts, ", ", 1, math.min(#parts, EXAMPLES)), more),
    hint = "`lunashard cluster verify` shows how to bring them home.",
    report = report,
  })
end

local function check_rows(manager, opts, result)
  local report, err = verify.run(manager, opts)
  if not report then
    return nil, err
  end
  result.verified = report
  if report.misplaced > 0 then
    return nil, misplaced(report)
  end
  return true
end

local function no_open_job(pool, deadline)
  local result, err = pool:execute(
    "SELECT id FROM lunashard_catalog.job WHERE status IN ('pending', 'running', 'paused') ORDER BY id LIMIT 1", nil,
    { deadline = deadline })
  if not result then
    return nil, err
  elseif result.rows[1] then
    return nil, errors.new("JOB_OPEN", { message = ("rebalance job %s is open: finish or cancel it first"):format(
      tostring(result.rows[1].id)) })
  end
  return true
end

setup.no_open_job = no_open_job

-- ---- init: what is missing -----------------------------------------------------------------

local function table_list(group)
  local names = {}
  for i, one in ipairs(group.tables) do
    names[i] = one.name
  end
  return table.concat(names, ", ")
end

local function describe_group(group)
  return group.is_open and ("record the group %s (%s), whose buckets are placed by strategy %s"):format(group.name,
      table_list(group), group.strategy)
    or ("record %d buckets of the group %s (%s)"):format(#group.buckets, group.name, table_list(group))
end

local function plan_all(manager, groups, plan)
  plan:add("create the schema lunashard_catalog in %s", place.describe(manager))
  for _, member in ipairs(manager.members) do
    plan:add("create the schemas lunashard and lunashard_staging on %s", member.shard_id)
  end
  for _, group in ipairs(groups) do
    plan:add("%s", describe_group(group))
  end
end

-- What a catalog that is there lacks.
local function plan_missing(manager, groups, found, plan)
  plan.shards, plan.groups, plan.tables = {}, {}, {}
  for _, member in ipairs(manager.members) do
    if not found.shards[member.shard_id] then
      table.insert(plan.shards, member)
      plan:add("create the schemas lunashard and lunashard_staging on %s, and record it, owning nothing", member.shard_id)
    end
  end
  for _, group in ipairs(groups) do
    local known = found.groups[group.name]
    if not known then
      table.insert(plan.groups, group)
      plan:add("%s", describe_group(group))
    end
    for _, one in ipairs(known and group.tables or {}) do
      local key = known.tables[one.name]
      if not key then
        table.insert(plan.tables, { group = group.name, name = one.name, shard_key = one.shard_key })
        plan:add("record the table %s of the group %s", one.name, group.name)
      elseif table.concat(key, ", ") ~= table.concat(one.shard_key, ", ") then
        return nil, errors.new("INVALID", {
          message = ("tables.%s: its key is (%s) in the cluster file and (%s) in the catalog"):format(one.name,
            table.concat(one.shard_key, ", "), table.concat(key, ", ")),
        })
      end
    end
  end
  return true
end

local Plan = {}
Plan.__index = Plan

function Plan:add(format, ...)
  self.steps[#self.steps + 1] = format:format(...)
end

-- ---- init: doing it ------------------------------------------------------------------------

-- Until one fails.
local function each(list, fn)
  for _, one in ipairs(list) do
    local ok, err = fn(one)
    if not ok then
      return nil, err
    end
  end
  return true
end

local function extend(manager, plan, deadline)
  local ok, err = each(plan.shards, function(member)
    local installed, problem = install.shard(member, manager.catalog, deadline)
    if not installed then
      return nil, problem
    end
    return record.join(manager, member, deadline)
  end)
  if ok then
    ok, err = each(plan.groups, function(group)
      return record.add_group(manager, group, deadline)
    end)
  end
  if ok then
    ok, err = each(plan.tables, function(one)
      return record.add_table(manager, one, deadline)
    end)
  end
  return ok, err
end

local GRANTS = {
  "GRANT USAGE ON SCHEMA lunashard_catalog TO %s",
  "GRANT SELECT ON ALL TABLES IN SCHEMA lunashard_catalog TO %s",
  "GRANT INSERT, UPDATE, DELETE ON lunashard_catalog.router TO %s",
  "GRANT INSERT ON lunashard_catalog.event TO %s",
}

local function grant(manager, role, deadline)
  local quoted = require("lunashard.router.statement").quote_ident(role)
  return schema.transaction(place.pool(manager), deadline, function(lease)
    return each(GRANTS, function(sql)
      return lease:execute(sql:format(quoted), nil, { deadline = deadline })
    end)
  end)
end

local function prepare(manager, plan, opts)
  local groups, err = install.groups(manager)
  if not groups then
    return nil, err
  end
  local found
  found, err = map.read(place.pool(manager), nil, opts.deadline)
  if found == nil then
    return nil, err
  end
  local ok = true
  if found then
    ok, err = catalog.attach(manager, opts.deadline, { tables = true })
    if ok then
      ok, err = plan_missing(manager, groups, found, plan)
    end
    plan.extends = true
  else
    plan_all(manager, groups, plan)
  end
  return ok and true, err
end

--- Install the catalog, or what it lacks. Yields.
-- @tparam Manager manager opened by `open`
-- @tparam[opt] table opts `dry_run`; `grant`: roles that routers log in as; `deadline`; `on_progress(text)`
-- @treturn[1] table `cluster` (id), `steps` (texts), `changed`, `verified` (see `verify.run`)
-- @treturn[2] nil, nothing was changed, or what was done is done again by another run
-- @treturn[2] lunashard.error `PLACEMENT_CHANGED` with its `report` when rows are misplaced, `AUTH` with what to grant, ...
function setup.init(manager, opts)
  opts = opts or {}
  local plan, result = setmetatable({ steps = {} }, Plan), {}
  local ok, err = prepare(manager, plan, opts)
  if ok then
    for _, role in ipairs(opts.grant or {}) do
      plan:add("grant to %s what routers need in the catalog", role)
    end
    ok, err = check_rows(manager, opts, result)
  end
  if ok and plan.extends and #plan.steps > 0 then
    ok, err = no_open_job(place.pool(manager), opts.deadline)
  end
  if not ok then
    return nil, err
  end
  result.steps, result.changed = plan.steps, #plan.steps > 0 and not opts.dry_run
  if opts.dry_run then
    return result
  elseif plan.extends then
    ok, err = extend(manager, plan, opts.deadline)
    result.cluster = manager.catalog.id
  else
    ok, err = install.run(manager, opts.deadline)
    result.cluster = ok and ok.cluster
  end
  for _, role in ipairs(ok and opts.grant or {}) do
    if ok then
      ok, err = grant(manager, role, opts.deadline)
    end
  end
  return ok and result or nil, err
end

-- ---- upgrade --------------------------------------------------------------------------------

local function pending_migrations(manager, plan, deadline)
  local sides = { { "catalog", place.pool(manager), place.describe(manager) } }
  for _, member in ipairs(manager.members) do
    sides[#sides + 1] = { "shard", member.primary.pool, member.shard_id }
  end
  plan.migrations = {}
  for _, side in ipairs(sides) do
    local version, err = schema.version(side[2], side[1], deadline)
    if not version then
      return nil, err
    elseif version > 0 and version < #schema.sides[side[1]].migrations then
      table.insert(plan.migrations, side)
      plan:add("bring the schema %s in %s from version %d to %d", schema.sides[side[1]].name, side[3], version,
        #schema.sides[side[1]].migrations)
    end
  end
  return true
end

local function migrate(plan, deadline)
  return each(plan.migrations, function(side)
    return schema.transaction(side[2], deadline, function(lease)
      return schema.upgrade(lease, side[1], deadline)
    end)
  end)
end

local function plan_addresses(manager, found, plan)
  plan.moved = {}
  for _, member in ipairs(manager.members) do
    local row = found.shards[member.shard_id]
    if row and not admit.address(member, row) then
      local at = record.address(member)
      table.insert(plan.moved, member)
      plan:add("record that %s is at %s:%d/%s now, which says that it is", member.shard_id, at.host, at.port,
        member.info.database)
    end
  end
end

local function plan_fingerprints(manager, found, plan)
  plan.marks = {}
  for name, group in pairs(found.groups) do
    local bound = manager.strategies.by_type[name]
    if bound and not admit.group(group, bound) then
      local mark, err = fingerprint.of(bound)
      if not mark then
        return nil, err
      elseif group.strategy ~= bound.name then
        return admit.group(group, bound)
      end
      table.insert(plan.marks, { group = name, mark = mark })
      plan:add("record the present version of strategy %s for the group %s: routers with another one serve it no more",
        bound.name, name)
    end
  end
  return true
end

local function upgrade_rows(manager, plan, deadline)
  local ok, err = each(plan.moved, function(member)
    return record.address_of(manager, member, deadline)
  end)
  if ok then
    ok, err = each(plan.marks, function(one)
      return record.fingerprint(manager, one.group, one.mark, deadline)
    end)
  end
  return ok, err
end

--- Bring an installed catalog up to date: our schemas, addresses that changed, a new version of a strategy. Yields.
-- @tparam Manager manager opened by `open`
-- @tparam[opt] table opts `dry_run`, `deadline`, `on_progress(text)`
-- @treturn[1] table `steps`, `changed`, and `verified` where rows had to be looked at
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function setup.upgrade(manager, opts)
  opts = opts or {}
  local plan, result = setmetatable({ steps = {} }, Plan), {}
  local ok, err = pending_migrations(manager, plan, opts.deadline)
  if ok and #plan.migrations > 0 and opts.dry_run then -- what more there is to do, the new schemas will tell
    return { steps = plan.steps, changed = false }
  elseif ok then
    ok, err = migrate(plan, opts.deadline)
  end
  local attached
  if ok then
    attached, err = catalog.attach(manager, opts.deadline, { addresses = true, fingerprints = true })
  end
  if attached == false then
    return nil, errors.new("INVALID", { message = "the cluster has no catalog: run `lunashard cluster init`" })
  elseif not attached then
    return nil, err
  end
  plan_addresses(manager, attached.map, plan)
  ok, err = plan_fingerprints(manager, attached.map, plan)
  if ok and #plan.marks > 0 then
    ok, err = no_open_job(place.pool(manager), opts.deadline)
    if ok then
      ok, err = check_rows(manager, opts, result)
    end
  end
  if ok and not opts.dry_run then
    ok, err = upgrade_rows(manager, plan, opts.deadline)
  end
  if not ok then
    return nil, err
  end
  result.steps, result.changed = plan.steps, #plan.steps > 0 and not opts.dry_run
  return result
end

return setup
