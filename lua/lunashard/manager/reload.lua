--- New options for a manager at work.
-- Everything is checked before anything is changed: the options themselves, that no key would be looked for on
-- another shard, and, by asking the servers, that those let us in and are what the options say. Then all is changed
-- at once. Nothing that runs is disturbed: connections that are not wanted any more are closed as they come free.
-- @module lunashard.manager.reload

local admission = require("lunashard.manager.admission")
local binding = require("lunashard.manager.binding")
local catalog_place = require("lunashard.catalog.place")
local changes = require("lunashard.manager.reload.changes")
local config = require("lunashard.config")
local endpoints = require("lunashard.manager.reload.endpoints")
local errors = require("lunashard.errors")
local extractor = require("lunashard.extractor")
local monitor = require("lunashard.manager.monitor")
local parallel = require("lunashard.parallel")
local policy = require("lunashard.policy")
local shard = require("lunashard.manager.shard")
local task = require("lunashard.task")
local topology = require("lunashard.manager.topology")

local reload = {}

--- Options of `reload`.
-- @table OPTIONS
reload.OPTIONS = { allow_placement_change = "boolean", keys = "table" }

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

-- ---- the plan: nothing is changed here, and nobody asked -----------------------

-- What is to become of each shard.
local function plan_shards(manager, cfg, plan)
  local wanted = {}
  for i, given in ipairs(cfg.shards) do
    local member = manager.by_id[given.shard_id]
    wanted[given.shard_id] = true
    if member then
      local one, message = endpoints.plan(member, given, cfg, plan.changes)
      if not one then
        return invalid("%s: %s", given.shard_id, message)
      end
      plan.kept[#plan.kept + 1] = one
    else
      member = shard.new(given, cfg)
      plan.added[#plan.added + 1] = member
      plan.changes:add("shard_added", given.shard_id, nil, "shard added")
    end
    plan.members[i] = member
    plan.descriptions[i] = { info = shard.describe(given) }
  end
  for _, member in ipairs(manager.members) do
    if not wanted[member.shard_id] then
      plan.removed[#plan.removed + 1] = member
      plan.changes:add("shard_removed", member.shard_id, nil, "shard removed")
    end
  end
  return true
end

local function make_plan(manager, given, opts)
  local cfg, message = config.manager(binding.adopt_shards(given))
  if not cfg then
    return invalid("%s", message)
  elseif not cfg.shards or #cfg.shards == 0 then
    return invalid("shards: missing; expected a list of at least one shard")
  end
  local at, problem = catalog_place.of(cfg)
  if not at then
    return invalid("%s", problem)
  elseif not catalog_place.same(manager, at) then
    return invalid("catalog: its place cannot be changed while the manager works; that takes a new start")
  end
  local plan = { cfg = cfg, before = manager.members, bound_before = manager.strategies, kept = {}, added = {},
    removed = {}, members = {}, descriptions = {}, catalog_place = at, changes = changes.new() }
  local ok, err = policy.adopt(cfg)
  if ok then
    ok, err = extractor.check(cfg.extractor)
  end
  if ok then
    ok, err = changes.check(manager, cfg)
  end
  if not ok then
    return invalid("%s", err)
  end
  plan.changes:note_options(manager.options, cfg)
  plan.changes:note_tables(manager.tables, cfg.tables or {})
  ok, err = plan_shards(manager, cfg, plan)
  if ok then
    plan.strategies, err = topology.plan(manager, plan.descriptions, {
      strategy = cfg.strategy,
      tables = cfg.tables or {},
      allow_placement_change = opts.allow_placement_change or cfg.allow_placement_change,
      keys = opts.keys,
    }, "reloading the options")
  end
  if not plan.strategies then
    return nil, err
  end
  return plan
end

-- ---- asking the servers ----------------------------------------------------------

local function ask(manager, plan)
  local trials, deadline = {}, task.now() + plan.cfg.connection_timeout
  for _, one in ipairs(plan.kept) do
    for _, entry in ipairs(one.entries) do
      trials[#trials + 1] = entry.trial and { member = one.member, entry = entry } or nil
    end
  end
  local outcome = parallel.each(trials, function(trial)
    return endpoints.try(trial.member, trial.entry, plan.cfg, deadline)
  end)
  for i = 1, #trials do
    if outcome.errors[i] then
      return nil, outcome.errors[i]
    end
  end
  for _, member in ipairs(plan.added) do
    member:open(manager.term)
    monitor.start(manager, member)
  end
  return admission.check(manager, plan.added)
end

-- While the servers answered, others may have changed or closed the manager.
local function check_unchanged(manager, plan)
  if manager.closed then
    return nil, errors.new("CLOSED", { message = "the manager was shut down" })
  end
  local unchanged = manager.members == plan.before and manager.strategies == plan.bound_before
  for _, one in ipairs(plan.kept) do
    unchanged = unchanged and one.member.primary == one.acting
  end
  if not unchanged then
    return invalid("the shards, the strategy, or which endpoints are primary, changed meanwhile; try again")
  end
  return true
end

-- ---- the change ---------------------------------------------------------------------

local function replace(target, source)
  for name in pairs(target) do
    target[name] = nil
  end
  for name, value in pairs(source) do
    target[name] = value
  end
end

-- Nothing here waits.
local function apply(manager, plan)
  local cfg = plan.cfg
  cfg.shards, cfg.strategy, cfg.catalog = nil, nil, nil -- as in `build`: passwords
  replace(manager.options, cfg)
  manager.tables = cfg.tables or {}
  for _, one in ipairs(plan.kept) do
    endpoints.apply(manager, one, cfg)
  end
  for _, member in ipairs(plan.removed) do
    monitor.stop(member)
    for _, endpoint in ipairs(member.endpoints) do
      endpoints.retire(manager, endpoint)
    end
  end
  if not manager.catalog then
    catalog_place.close(manager)
    manager.catalog_place = plan.catalog_place
  end
  topology.install(manager, plan.members, plan.strategies)
  for router in pairs(manager.routers) do
    router:inherit()
  end
end

--- Give a manager other options. Yields.
-- @tparam Manager manager
-- @tparam table given all options, as for a new manager
-- @tparam table opts
-- @treturn[1] {table,...} what changed
-- @treturn[2] nil, nothing was changed
-- @treturn[2] lunashard.error
function reload.run(manager, given, opts)
  local plan, err = make_plan(manager, given, opts)
  if not plan then
    return nil, err
  end
  if manager.initialized then
    local ok, answered, why = pcall(ask, manager, plan)
    if ok and answered then
      answered, why = check_unchanged(manager, plan)
    end
    if not ok or not answered then
      for _, member in ipairs(plan.added) do
        member:close()
      end
      if not ok then
        error(answered, 0)
      end
      return nil, why
    end
  end
  apply(manager, plan)
  if manager.initialized then -- what is new is in use once it was probed
    parallel.each(plan.members, function(member)
      return monitor.check_now(manager, member)
    end)
  end
  return plan.changes:list()
end

return reload
