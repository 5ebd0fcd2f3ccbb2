--- Putting a version of a plug-in in the place of another: in all managers that use it, or in none.
-- Strategies are bound to a manager's shards, so a new version of one is bound anew, beside the old, and tried there;
-- then the registry and each manager's table of strategies take the new one, without a wait in between. Whoever routes a
-- key at that moment goes on with the strategy that it has.
-- @module lunashard.loader.swap

local binding = require("lunashard.manager.binding")
local bounds = require("lunashard.loader.bounds")
local errors = require("lunashard.errors")
local extractor = require("lunashard.extractor")
local guard = require("lunashard.plugin.guard")
local policy = require("lunashard.policy")
local registry = require("lunashard.plugin.registry")
local topology = require("lunashard.manager.topology")

local swap = {}

local ROUNDS = 5 -- while the shards of a manager change under the tests

local function each_extractor(one, name, visit)
  if one.name == name then
    visit(one)
  end
  for _, member in ipairs(one.name == "first_of" and one.options or {}) do
    each_extractor(member, name, visit)
  end
end

-- The extractors of this name that a manager and its routers find keys with.
local function extractors_of(manager, name)
  local list = {}
  local function add(one)
    list[#list + 1] = one
  end
  local ok, default = pcall(extractor.find, manager.options.extractor)
  if ok and default then
    each_extractor(default, name, add)
  end
  for router in pairs(manager.routers) do
    if router.extractor then
      each_extractor(router.extractor, name, add)
    end
  end
  return list
end

-- Does a version of an extractor take the arguments that those in use were made with?
local function try_extractor(manager, entry)
  for _, one in ipairs(entry.contract.new and extractors_of(manager, entry.name) or {}) do
    local ok, err = pcall(entry.contract.new, unpack(one.arguments, 1, one.arguments.n))
    if not ok then
      return nil, tostring(errors.is(err) and err.message or err)
    end
  end
  return true
end

local TRY = { extractor = try_extractor, policy = policy.try }

--- Does a manager use this plug-in?
-- @tparam Manager manager
-- @tparam table entry
-- @treturn boolean
function swap.is_used(manager, entry)
  if manager.closed then
    return false
  elseif entry.kind == "policy" then
    return policy.is_used(manager, entry.name)
  elseif entry.kind == "extractor" then
    return #extractors_of(manager, entry.name) > 0
  end
  return entry.kind == "strategy" and #bounds.users(manager.strategies, entry.name) > 0
end

local function bind(manager, entry)
  local states = {}
  for i, bound in ipairs(bounds.users(manager.strategies, entry.name)) do
    states[i] = { state = bound.state }
  end
  entry.old_states = states
  local ok, strategies, message = registry.staged(entry, binding.bind, manager.strategies.spec, manager.members,
    manager.tables, manager.catalog and manager.catalog:recorded())
  entry.old_states = nil
  if not ok then
    return nil, tostring(strategies)
  end
  return strategies, message
end

-- A version bound to a manager's shards and tried.
local function prepare_one(manager, entry, opts)
  if TRY[entry.kind] then
    local fits, problem = TRY[entry.kind](manager, entry)
    if not fits then
      return nil, errors.new("PLUGIN_FAILED", { message = problem })
    end
    return { manager = manager }
  end
  local before = manager.strategies
  local after, message = bind(manager, entry)
  if not after then
    return nil, errors.new("PLUGIN_FAILED", { message = message })
  end
  topology.attach(manager, after)
  local ok, err
  if not opts.is_known then
    ok, message = bounds.try(after, entry.name)
    if not ok then
      return nil, errors.new("PLUGIN_FAILED", { message = message })
    end
  end
  if manager.catalog then
    ok, err = manager.catalog:check(after, manager.members, manager.tables)
    if not ok then
      return nil, err
    end
    return { manager = manager, before = before, after = after }
  end
  for _, key_type in ipairs(bounds.key_types(before)) do
    local old, new = before.by_type[key_type], after.by_type[key_type]
    ok, err = bounds.is_alike(old, new), nil
    if not ok then
      ok, err = guard.check(old, new, nil, {
        allow_placement_change = opts.allow_placement_change or manager.options.allow_placement_change,
        what = ("%s %s"):format(opts.what or "loading", entry.shown or entry.name),
      })
    end
    if not ok then
      return nil, err
    end
  end
  return { manager = manager, before = before, after = after }
end

local function is_current(entry, managers, plans)
  local planned = {}
  for _, plan in ipairs(plans) do
    planned[plan.manager] = true
    if plan.before and plan.manager.strategies ~= plan.before and not plan.manager.closed then
      return false
    end
  end
  for manager in pairs(managers) do
    if not planned[manager] and swap.is_used(manager, entry) then
      return false
    end
  end
  return true
end

--- Bind a version of a plug-in to the shards of all that use it, and try it there. Yields; nothing is changed.
-- @tparam table entry
-- @tparam table managers a set of them
-- @tparam table opts `allow_placement_change`; `is_known`: it has served before and is not tried again; `what` happens
-- @treturn[1] {table,...} for @{commit}, at once
-- @treturn[2] nil
-- @treturn[2] lunashard.error `PLUGIN_FAILED`, `PLACEMENT_CHANGED`
function swap.prepare(entry, managers, opts)
  for _ = 1, ROUNDS do
    local plans = {}
    for manager in pairs(managers) do
      if swap.is_used(manager, entry) then
        local plan, err = prepare_one(manager, entry, opts)
        if not plan then
          return nil, err
        end
        plans[#plans + 1] = plan
      end
    end
    if is_current(entry, managers, plans) then
      return plans
    end
  end
  return nil, errors.new("INVALID", { message = "the shards of the cluster change all the time; try again" })
end

--- Make a version the present one. Nothing here waits.
-- @tparam table entry
-- @tparam {table,...} plans from @{prepare}
function swap.commit(entry, plans)
  registry.install(entry)
  for _, plan in ipairs(plans) do
    if plan.after then
      for key_type, before in pairs(plan.before.by_type) do
        bounds.carry(before, plan.after.by_type[key_type])
      end
      topology.bind(plan.manager, plan.after)
    end
  end
end

return swap
