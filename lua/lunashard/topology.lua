--- Changes of the set of shards under a static map.
-- Nothing here moves rows, so a change that would make keys belong to another shard is refused:
-- their rows would no longer be found.
-- @module lunashard.topology

local binding = require("lunashard.binding")
local errors = require("lunashard.errors")
local probe = require("lunashard.probe")

local topology = {}

--- Options of `add_shard` and `remove_shard`.
-- @table OPTIONS
topology.OPTIONS = { strategy = "any", allow_placement_change = "boolean" }

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
  manager.shards, manager.shard_health = infos, records
  manager.strategies, manager.strategy = strategies, strategies.default
end

local function advice(what, movement)
  return ("%s would send %.1f %% of the keys (%d of %d buckets) to another shard while their rows stay where they are; "
    .. "move them with a rebalance job, or pass allow_placement_change = true when there are no rows yet")
    :format(what, movement.fraction * 100, movement.moved, movement.total)
end

-- The strategies over `members`, unless rows would be misplaced.
local function plan(manager, members, opts, what)
  local strategies, message = binding.bind(opts.strategy or manager.strategies.spec, members, manager.tables)
  if not strategies then
    return nil, errors.new("INVALID", { message = what .. ": strategy: " .. message })
  elseif opts.allow_placement_change then
    return strategies
  end
  for name, before in pairs(manager.strategies.by_type) do
    local movement, err = before:movement(strategies.by_type[name])
    if not movement then
      return nil, err
    elseif movement.moved > 0 then
      return nil, errors.new("PLACEMENT_CHANGED", { message = advice(what, movement), movement = movement })
    end
  end
  return strategies
end

--- Add a shard. Yields when the manager is initialized.
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
  local strategies, err = plan(manager, members, opts, "adding " .. member.shard_id)
  if not strategies then
    return nil, err
  end
  if manager.initialized then
    member:open()
    local ok
    ok, err = probe.all(manager, { member })
    -- While the probe waited, others may have changed or closed the manager.
    if ok and (manager.closed or manager.by_id[member.shard_id] or #manager.members ~= #members - 1) then
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

--- Remove a shard and close its pools.
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
  local strategies, err = plan(manager, members, opts, "removing " .. member.shard_id)
  if not strategies then
    return nil, err
  end
  topology.install(manager, members, strategies)
  member:close()
  return true
end

return topology
