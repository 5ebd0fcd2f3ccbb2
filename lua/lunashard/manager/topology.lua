--- Changes of the set of shards under a static map.
-- Nothing here moves rows, so a change that would make keys belong to another shard is refused:
-- their rows would no longer be found.
-- @module lunashard.manager.topology

local admission = require("lunashard.manager.admission")
local binding = require("lunashard.manager.binding")
local bounds = require("lunashard.loader.bounds")
local errors = require("lunashard.errors")
local guard = require("lunashard.plugin.guard")
local monitor = require("lunashard.manager.monitor")
local movement = require("lunashard.strategy.movement")
local recent = require("lunashard.plugin.recent")
local strategy = require("lunashard.strategy")
local task = require("lunashard.task")

local topology = {}

--- Options of `add_shard` and `remove_shard`.
-- @table OPTIONS
topology.OPTIONS = { strategy = "any", allow_placement_change = "boolean", keys = "table" }

local INNER_SAMPLE = 2048

--- Make a manager use these shards and strategies from now on.
-- @tparam Manager manager
-- @tparam {table,...} members
-- @tparam table strategies from `binding.bind`
function topology.install(manager, members, strategies)
  local by_id, infos, records = {}, {}, {}
  for i, member in ipairs(members) do
    by_id[member.shard_id] = member
    infos[i] = member.info
    records[member.shard_id] = member.primary.health
  end
  manager.members, manager.by_id = members, by_id
  local at = manager.catalog_place
  if not manager.catalog and not at.named then
    at.shard_id = members[1].shard_id
  end
  manager.shards, manager.shard_health = infos, records
  topology.bind(manager, strategies)
end

--- Let directories that live in a table ask their shard through a manager's pools.
-- @tparam Manager manager
-- @tparam table strategies from `binding.bind`
function topology.attach(manager, strategies)
  for _, bound in pairs(strategies.by_type) do
    bound:attach(function(shard_id, sql, params)
      local ok, err = manager:check_open()
      local member
      if ok then
        member, err = manager:member(shard_id)
      end
      if not member then
        return nil, err
      end
      return member.primary.pool:execute(sql, params, { deadline = task.now() + manager.options.query_timeout })
    end)
  end
end

--- Make a manager place keys by these strategies from now on; who routes a key just now ends with the ones it has.
-- @tparam Manager manager
-- @tparam table strategies from `binding.bind`
function topology.bind(manager, strategies)
  for name, bound in pairs(strategies.by_type) do
    local replaced = manager.strategies and manager.strategies.by_type[name]
    if replaced then
      recent.carry(replaced, bound)
    end
  end
  topology.attach(manager, strategies)
  if manager.catalog then
    manager.catalog:serve(strategies, manager.members)
  end
  manager.strategies, manager.strategy = strategies, strategies.default
end

local add_keys -- set below: strategies may be made of others

-- A placement by ranges changes at its bounds alone, so keys at and beside every bound
-- tell everything.
local function range_keys(spec, keys)
  local function add(given)
    if type(given) == "table" and type(given[1]) == "table" then
      for _, one in ipairs(given) do
        add(one)
      end
    elseif type(given) == "table" then
      for _, bound in pairs(given) do
        keys[#keys + 1] = bound
        if type(bound) == "number" then
          keys[#keys + 1], keys[#keys + 2] = bound - 1, bound + 1
        elseif type(bound) == "string" then
          keys[#keys + 1] = bound .. "\0"
        end
      end
    end
  end
  for _, given in pairs(spec.options.ranges or {}) do
    add(given)
  end
end

-- A region without a shard of its own may have rows on the default one.
local function geographic_keys(_, keys, shards)
  for _, shard in ipairs(shards) do
    keys[#keys + 1] = shard.region
    for i = 1, INNER_SAMPLE do
      keys[#keys + 1] = { shard.region, i }
    end
  end
end

-- The i-th key above a threshold.
local function above(below, i)
  local year = type(below) == "string" and below:match("^(%d%d%d%d)%-%d%d%-%d%d$")
  if year then
    return ("%04d-%02d-%02d"):format(year + 1 + math.floor(i / 336), math.floor(i / 28) % 12 + 1, i % 28 + 1)
  end
  return type(below) == "string" and below .. i or below + i
end

local function threshold_keys(spec, keys, shards)
  local below = spec.options.below
  keys[#keys + 1] = below
  for i = 1, INNER_SAMPLE do
    keys[#keys + 1] = above(below, i)
  end
  add_keys(spec.options.old, keys, shards)
  add_keys(spec.options.new, keys, shards)
end

local function member_keys(spec, keys, shards)
  for _, given in ipairs(spec.options) do
    add_keys(given, keys, shards)
  end
end

-- Options of pins that are no keys are harmless here: they route nowhere, or to the same shard.
local function entry_keys(spec, keys)
  for _, entries in ipairs({ spec.name == "pins" and spec.options or {}, spec.options.entries or {} }) do
    for key in pairs(entries) do
      keys[#keys + 1] = key
    end
  end
end

local TELLING = {
  directory = entry_keys,
  first_of = member_keys,
  geographic = geographic_keys,
  pins = entry_keys,
  range = range_keys,
  threshold = threshold_keys,
}

-- Keys that a sample would miss: where the strategy itself says that placement changes.
function add_keys(given, keys, shards)
  local spec = strategy.spec(given)
  if TELLING[spec.name] then
    TELLING[spec.name](spec, keys, shards)
  end
end

local ENOUGH = { range = true, geographic = true }

-- Is it a user's own, or made of such?
local function is_custom(bound)
  if not bound.shipped then
    return true
  end
  for _, member in ipairs(bound.state.members or {}) do
    if is_custom(member) then
      return true
    end
  end
  return false
end

-- Keys to compare two placements by, where they have no bucket map.
local function keys_for(before, after)
  if is_custom(before) or is_custom(after) then
    return guard.keys(before, after)
  end
  local alone = before.name == after.name and ENOUGH[before.name]
  return alone and {} or movement.sample(before.key_type)
end

local function compare(before, after, keys)
  if before.map and after.map and not keys then
    local change, err = before:movement(after)
    return change and { compared = change.total, moved = change.moved, share = change.fraction, unit = change.unit,
      by = change.by }, err
  elseif not keys then
    keys = keys_for(before, after)
    add_keys(before.spec, keys, before.shards)
    add_keys(after.spec, keys, after.shards)
  end
  return guard.compare(before, after, nil, { keys = keys })
end

-- Would each key stay where it is?
local function check_placement(present, strategies, keys, what)
  for name, before in pairs(present.by_type) do
    local after = strategies.by_type[name]
    if not after then
      return nil, errors.new("INVALID", {
        message = ("%s: tables: no key is of the type %s any more; that takes a new start"):format(what, name),
      })
    end
    local change, err = compare(before, after, keys)
    if not change then
      return nil, err
    elseif change.moved > 0 then
      return nil, guard.refusal(what, change)
    end
  end
  return true
end

--- The strategies over other shards, unless rows would be misplaced. Yields.
-- @tparam Manager manager
-- @tparam {table,...} members each with `info`
-- @tparam table opts `strategy`, `allow_placement_change`, `keys`, and `tables` where these change
-- @string what happens, for messages
-- @treturn[1] table from `binding.bind`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function topology.plan(manager, members, opts, what)
  local present, catalog = manager.strategies, manager.catalog
  local tables = opts.tables or manager.tables
  local strategies, message = binding.bind(opts.strategy or present.spec, members, tables, catalog and catalog:recorded())
  if not strategies then
    return nil, errors.new("INVALID", { message = what .. ": strategy: " .. message })
  end
  local ok, err
  ok, message = bounds.try(strategies)
  if not ok then
    return nil, errors.new("PLUGIN_FAILED", { message = ("%s: %s"):format(what, message) })
  elseif catalog then -- which says where keys live, whatever the shards
    ok, err = catalog:check(strategies, members, tables)
    if not ok then
      return nil, err
    end
  elseif not opts.allow_placement_change then
    ok, err = check_placement(present, strategies, opts.keys, what)
    if not ok then
      return nil, err
    end
  end
  if manager.strategies ~= present then
    return nil, errors.new("INVALID", { message = what .. ": the strategy changed meanwhile; try again" })
  end
  return strategies
end

local function with_default(manager, opts)
  local own = { allow_placement_change = manager.options.allow_placement_change }
  for name, value in pairs(opts) do
    own[name] = value
  end
  return own
end

--- Add a shard. Yields.
-- @tparam Manager manager
-- @tparam table member
-- @tparam table opts
-- @treturn[1] boolean true
-- @treturn[2] nil, the manager is unchanged
-- @treturn[2] lunashard.error
function topology.add(manager, member, opts)
  local members = {}
  for i, present in ipairs(manager.members) do
    members[i] = present
  end
  members[#members + 1] = member
  local strategies, err = topology.plan(manager, members, with_default(manager, opts), "adding " .. member.shard_id)
  if not strategies then
    return nil, err
  end
  local bound = manager.strategies
  if manager.initialized then
    member:open(manager.term)
    monitor.start(manager, member)
    local ok
    ok, err = admission.check(manager, { member })
    -- While the probe waited, others may have changed or closed the manager.
    if ok and (manager.closed or manager.by_id[member.shard_id] or #manager.members ~= #members - 1
      or manager.strategies ~= bound) then
      ok, err = nil, errors.new("INVALID", { message = "the shards changed meanwhile; try again" })
    end
    if not ok then
      member:close()
      return nil, err
    end
  end
  topology.install(manager, members, strategies)
  return true
end

--- Remove a shard and close its pools. Yields.
-- @tparam Manager manager
-- @tparam table member
-- @tparam table opts
-- @treturn[1] boolean true
-- @treturn[2] nil, the manager is unchanged
-- @treturn[2] lunashard.error
function topology.remove(manager, member, opts)
  local members = {}
  for _, present in ipairs(manager.members) do
    if present ~= member then
      members[#members + 1] = present
    end
  end
  if #members == 0 then
    return nil, errors.new("INVALID", { message = ("%s is the only shard"):format(member.shard_id) })
  end
  local owned = manager.catalog and manager.catalog:owned_by(member.shard_id) or 0
  if owned > 0 then
    return nil, errors.new("PLACEMENT_CHANGED", {
      message = ("removing %s: it owns %d buckets; move them to other shards with a rebalance job first"):format(
        member.shard_id, owned),
    })
  elseif manager.catalog_place.shard_id == member.shard_id and (manager.catalog or manager.catalog_place.named) then
    return nil, errors.new("INVALID", {
      message = ("removing %s: the catalog is in its database"):format(member.shard_id),
    })
  end
  local strategies, err = topology.plan(manager, members, with_default(manager, opts), "removing " .. member.shard_id)
  if not strategies then
    return nil, err
  end
  topology.install(manager, members, strategies)
  member:close()
  return true
end

return topology
