--- `lunashard cluster remove`: back to a static cluster.
-- Only when that leaves every bucket where it is: the strategies of the cluster file must say what the map says.
-- @module lunashard.catalog.removal
-- @local

local binding = require("lunashard.manager.binding")
local buckets = require("lunashard.catalog.buckets")
local errors = require("lunashard.errors")
local install = require("lunashard.catalog.install")
local place = require("lunashard.catalog.place")
local setup = require("lunashard.catalog.setup")

local removal = {}

-- How many buckets of a group live elsewhere than where a static cluster would look for them.
local function count_moved(group, bound)
  local static, moved, seen = {}, 0, 0
  for _, one in ipairs((buckets.list(bound))) do
    static[buckets.text(one[1])] = one[2]
    seen = seen + 1
  end
  for bucket, owner in pairs(group.owners) do
    local there = static[bucket] or group.buckets == nil and bound:place(bucket) or nil
    moved = moved + (there ~= owner and 1 or 0)
  end
  if group.buckets and group.buckets ~= seen then -- other buckets: every key may have another one
    return math.max(group.buckets, moved)
  end
  return moved
end

--- Would a static cluster look for every row where it is? Does not yield.
-- @tparam Manager manager with a catalog
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `PLACEMENT_CHANGED`
function removal.check(manager)
  local strategies, message = binding.bind(manager.strategies.spec, manager.members, manager.tables)
  if not strategies then
    return nil, errors.new("INVALID", { message = "strategy: " .. message })
  end
  for name, group in pairs(manager.catalog.map.groups) do
    local bound = strategies.by_type[name]
    local moved = bound and count_moved(group, bound)
    if not bound or moved > 0 then
      return nil, errors.new("PLACEMENT_CHANGED", {
        message = bound and ("%d buckets of the group %s are not where the cluster file's strategy places them: without the "
          .. "catalog their rows would not be found"):format(moved, name)
          or ("the cluster file declares no table of the group %s"):format(name),
        hint = "Move them back with a rebalance job, or pass --abandon-map when the rows are not wanted any more.",
      })
    end
  end
  return true
end

--- Remove the catalog and our schemas. Yields.
-- @tparam Manager manager opened by `setup.open`, with its catalog attached
-- @tparam[opt] table opts `dry_run`, `abandon_map`, `deadline`
-- @treturn[1] table `steps`, `changed`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `JOB_OPEN`, `PLACEMENT_CHANGED`, ...
function removal.run(manager, opts)
  opts = opts or {}
  local ok, err = true, nil
  if manager.catalog then
    ok, err = setup.no_open_job(place.pool(manager), opts.deadline)
    if ok and not opts.abandon_map then
      ok, err = removal.check(manager)
    end
  end
  if not ok then
    return nil, err
  end
  local steps = {}
  for _, member in ipairs(manager.members) do
    steps[#steps + 1] = ("remove the schemas lunashard and lunashard_staging from %s"):format(member.shard_id)
  end
  steps[#steps + 1] = ("remove the schema lunashard_catalog from %s"):format(place.describe(manager))
  if not opts.dry_run then
    ok, err = install.drop(manager, opts.deadline)
    if not ok then
      return nil, err
    end
  end
  return { steps = steps, changed = not opts.dry_run }
end

return removal
