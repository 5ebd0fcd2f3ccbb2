--- From what a caller asks for to a plan.
-- @module lunashard.rebalancer.planning

local errors = require("lunashard.errors")
local expression = require("lunashard.catalog.expression")
local giants = require("lunashard.rebalancer.giants")
local offline = require("lunashard.rebalancer.offline")
local plan = require("lunashard.rebalancer.plan")
local policy = require("lunashard.policy")
local proposal = require("lunashard.rebalancer.proposal")
local sorted = require("lunashard.sorted")
local state = require("lunashard.rebalancer.state")
local task = require("lunashard.task")
local waves = require("lunashard.rebalancer.waves")

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
  local names = sorted.keys(groups)
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

-- What is given beside the planner is an option of it.
local OPTIONS = { "by", "tolerance", "shard", "buckets", "moves" }

-- The policy that plans, with a key's bucket in place of the key.
local function choose_planner(self, given, group)
  local name = given.planner or given.moves and "list" or (given.key ~= nil or given.buckets) and "pin" or "follow"
  local more = {}
  for _, option in ipairs(OPTIONS) do
    more[option] = given[option]
  end
  if given.key ~= nil then
    local bucket, err = self.catalog.groups[group].bound:bucket(given.key)
    if bucket == nil then
      return nil, err
    end
    more.buckets = { bucket }
  end
  local planner, err = policy.planner(name, more)
  if not planner then
    return nil, err
  end
  local shard = planner.options.shard
  if (planner.name == "drain" or planner.name == "pin") and not shard then
    return refuse("%s: say which shard, with shard", planner.name)
  elseif planner.name == "drain" and not self.manager.by_id[shard] then
    local _, unknown = self.manager:member(shard)
    return nil, unknown
  elseif planner.name == "pin" and not planner.options.buckets then
    return refuse("pin: say what, with key or buckets")
  end
  return planner
end

-- Can SQL tell the bucket of a row?
local function is_in_sql(bound)
  local columns = {}
  for i = 1, type(bound.key_type) == "table" and #bound.key_type or 1 do
    columns[i] = "k" .. i
  end
  return expression.bucket(bound, columns) ~= nil
end

-- What of a plan has to be said aloud.
local function warn_of(made, seen, limit)
  for _, item in ipairs(made.giants) do
    table.insert(made.warnings, giants.describe(item, limit) .. "; the job would be refused")
  end
  for _, item in ipairs(seen.left or {}) do
    table.insert(made.warnings, giants.describe(item, limit) .. "; it is left where it is")
  end
end

-- Which moves belong to which wave.
local function number_waves(made, wanted)
  local first = 1
  wanted.list, made.waves = {}, {}
  for i = #wanted.shares, #made.wave_ends + 1, -1 do
    wanted.shares[i] = nil -- there are fewer buckets than waves
  end
  wanted.shares[#wanted.shares] = #wanted.shares > 0 and 100 or nil
  for i, last in ipairs(made.wave_ends) do
    local one = { wave = i, share = wanted.shares[i], moves = last - first + 1, buckets = 0, rows = 0 }
    wanted.list[i] = {}
    for seq = first, last do
      table.insert(wanted.list[i], seq)
      one.buckets, one.rows = one.buckets + #made.moves[seq].buckets, one.rows + made.moves[seq].rows
    end
    made.waves[i], first = one, last + 1
  end
  made.estimated_seconds = made.estimated_seconds + #made.waves * wanted.soak
end

--- Make a plan. Yields.
-- @tparam Rebalancer self
-- @tparam table given see `Rebalancer:plan`
-- @treturn[1] table from `plan.make`, with `options` (of the planner) and `tables` (of the group)
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function planning.make(self, given)
  local group, err = group_of(self, given)
  local wanted, problem = waves.wanted(given)
  if problem then
    return refuse("%s", problem)
  end
  local ok, planner, seen
  if group then
    ok, err = check_shard_key(self, given)
  end
  if ok then
    planner, err = choose_planner(self, given, group)
  end
  if planner then
    seen, err = state.read(self.manager, group, { without = planner.name == "drain" and planner.options.shard or nil,
      load = planner.entry.contract.measures_load, deadline = task.now() + TIMEOUT })
  end
  local assignments, limit
  if seen then
    task.sleep(0)
    limit = giants.limit({ in_sql = is_in_sql(self.catalog.groups[group].bound), strategy = given.strategy,
      max_cutover = self.max_cutover })
    giants.mark(seen, limit)
    assignments, err = proposal.of(seen, planner)
  end
  if not assignments then
    return nil, err
  end
  task.sleep(0)
  local made = plan.make(seen, assignments, { planner = planner.name, parallel = self.max_parallel_tasks,
    limits = offline.limits(given.strategy), waves = wanted and waves.split(assignments, wanted.shares) })
  local pause = self.throttle_ms / 1000 / self.batch_size
  made.estimated_seconds = made.estimated_seconds + made.rows * pause / self.max_parallel_tasks
  if given.strategy == "offline" then
    offline.announce(made, pause)
  elseif wanted then
    number_waves(made, wanted)
    made.gradual = wanted
  end
  warn_of(made, seen, limit)
  made.giant_limit = limit
  made.options, made.tables = planner.options, seen.tables
  return made
end

return planning
