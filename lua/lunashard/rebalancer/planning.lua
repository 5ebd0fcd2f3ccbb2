--- From what a caller asks for to a plan.
-- @module lunashard.rebalancer.planning

local errors = require("lunashard.errors")
local offline = require("lunashard.rebalancer.offline")
local plan = require("lunashard.rebalancer.plan")
local planners = require("lunashard.rebalancer.planners")
local state = require("lunashard.rebalancer.state")
local task = require("lunashard.task")

local planning = {}

local TIMEOUT = 3600 -- seconds to count rows

local function refuse(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

local function group_of(self, given)
  local groups = self.catalog.groups
  if given.group then
    if groups[given.group] then
      return given.group
    end
    local near = errors.nearest(given.group, groups)
    return refuse("there is no group %q%s", given.group, near and ("; did you mean %q?"):format(near) or "")
  elseif given.table_name then
    local bound, err = self.manager:strategy_for(given.table_name)
    for name, group in pairs(groups) do
      if bound and group.bound == bound then
        return name
      end
    end
    return nil, err or select(2, refuse("table %s belongs to no group of the catalog", given.table_name))
  end
  local only = next(groups)
  if only and next(groups, only) == nil then
    return only
  end
  local names = {}
  for name in pairs(groups) do
    names[#names + 1] = name
  end
  table.sort(names)
  return refuse("say which group is meant, with group or table_name; there are: %s", table.concat(names, ", "))
end

-- The guide gives the shard key; it has to be the one that is declared.
local function check_shard_key(self, given)
  if given.shard_key == nil or not given.table_name then
    return true
  end
  local declared = self.manager.tables[given.table_name].shard_key
  local function text(key)
    return type(key) == "table" and table.concat(key, ", ") or tostring(key)
  end
  if text(declared) == text(given.shard_key) then
    return true
  end
  return refuse("the shard key of %s is %s, not %s", given.table_name, text(declared), text(given.shard_key))
end

local function choose_planner(given)
  local name = given.planner or given.moves and "list" or (given.key ~= nil or given.buckets) and "pin" or "follow"
  if planners[name] then
    return name
  end
  local near = errors.nearest(name, planners)
  return refuse("there is no planner %q%s", name, near and ("; did you mean %q?"):format(near)
    or "; there are: drain, even, follow, list, pin")
end

-- The options of a planner, with a key's bucket in place of the key.
local function planner_options(self, name, given, group)
  local own = { by = given.by, tolerance = given.tolerance, shard = given.shard, buckets = given.buckets, moves = given.moves }
  if (name == "drain" or name == "pin") and not given.shard then
    return refuse("%s: say which shard, with shard", name)
  elseif name == "drain" and not self.manager.by_id[given.shard] then
    local _, err = self.manager:member(given.shard)
    return nil, err
  elseif name == "pin" and given.key ~= nil then
    local bucket, err = self.catalog.groups[group].bound:bucket(given.key)
    if bucket == nil then
      return nil, err
    end
    own.buckets = { bucket }
  elseif name == "pin" and not given.buckets then
    return refuse("pin: say what, with key or buckets")
  end
  return own
end

--- Make a plan. Yields.
-- @tparam Rebalancer self
-- @tparam table given see `Rebalancer:plan`
-- @treturn[1] table from `plan.make`, with `options` (of the planner) and `tables` (of the group)
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function planning.make(self, given)
  local group, err = group_of(self, given)
  local ok, name, options
  if group then
    ok, err = check_shard_key(self, given)
  end
  if ok then
    name, err = choose_planner(given)
  end
  if name then
    options, err = planner_options(self, name, given, group)
  end
  if not options then
    return nil, err
  end
  local seen
  seen, err = state.read(self.manager, group, { without = name == "drain" and given.shard or nil,
    deadline = task.now() + TIMEOUT })
  if not seen then
    return nil, err
  end
  local assignments
  assignments, err = planners[name](seen, options)
  if not assignments then
    return nil, err
  end
  local made = plan.make(seen, assignments, { planner = name, parallel = self.max_parallel_tasks,
    limits = offline.limits(given.strategy) })
  local pause = self.throttle_ms / 1000 / self.batch_size
  made.estimated_seconds = made.estimated_seconds + made.rows * pause / self.max_parallel_tasks
  if given.strategy == "offline" then
    offline.announce(made, pause)
  end
  made.options, made.tables = options, seen.tables
  return made
end

return planning
