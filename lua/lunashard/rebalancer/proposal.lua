--- What a policy proposes, checked: a plan is taken as a whole, or refused as a whole.
-- @module lunashard.rebalancer.proposal

local balance = require("lunashard.rebalancer.balance")
local breath = require("lunashard.plugin.breath")
local errors = require("lunashard.errors")
local options_of = require("lunashard.options")

local proposal = {}

local FIELDS = { bucket = true, buckets = true, to = true, from = true }
local EXAMPLE = "{ { bucket = 17, to = \"shard2\" } }"

local function refuse(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

-- ---- what a plug-in sees --------------------------------------------------------------------

local function copy_of(list)
  local copy = {}
  for i, item in ipairs(list) do
    copy[i] = {}
    for name, value in pairs(item) do
      copy[i][name] = value
    end
  end
  return copy
end

--- A state with helpers, for a policy of a user's. What it does to it changes nothing.
-- @tparam table state see `lunashard.rebalancer.plan`
-- @treturn table the same and `owned(shard_id)`: a list of buckets; `shard(shard_id)`; `resides(bucket, shard)`: does
--   residency allow it; `even(options)` and `deal(buckets, options)`: moves, see `lunashard.rebalancer.balance`
function proposal.show(state)
  local shown = { group = state.group, strategy = state.strategy, residency = state.residency or false, place = state.place,
    shards = copy_of(state.shards), buckets = copy_of(state.buckets) }
  function shown.owned(shard_id)
    return balance.owned(shown)[shard_id] or {}
  end
  function shown.shard(shard_id)
    return (balance.shards(shown))[shard_id]
  end
  function shown.resides(bucket, shard)
    return balance.resides(shown, bucket, shard)
  end
  function shown.even(options)
    return balance.even(shown, options)
  end
  function shown.deal(buckets, options)
    return balance.deal(shown, buckets, options)
  end
  return shown
end

-- ---- what it says ------------------------------------------------------------------------------

local function index(state)
  local known = {}
  for _, item in ipairs(state.buckets) do
    known[tostring(item.bucket)] = item
  end
  return known
end

local function check_shard(where, to, by_id)
  if to == nil or not by_id[to] then
    local near = type(to) == "string" and errors.nearest(to, by_id)
    return refuse("%s: there is no shard %s that could get buckets%s", where, type(to) == "string" and to
      or options_of.describe(to), near and ("; did you mean %q?"):format(near) or "")
  end
  return true
end

local function buckets_of(where, move)
  if type(move) ~= "table" then
    return refuse("%s: expected a table such as { bucket = 17, to = \"shard2\" }, got %s", where, options_of.describe(move))
  end
  for name in pairs(move) do
    if not FIELDS[name] then
      local near = type(name) == "string" and errors.nearest(name, FIELDS)
      return refuse("%s: no such field: %s%s", where, tostring(name), near and ("; did you mean %q?"):format(near)
        or "; there are bucket, buckets, from, to")
    end
  end
  local list = move.buckets
  if list == nil then
    list = { move.bucket }
  end
  if type(list) ~= "table" or #list == 0 then
    return refuse("%s: names no bucket", where)
  end
  return list
end

local function check_bucket(where, bucket, move, known)
  local name = type(bucket) == "table" and bucket.bucket ~= nil and tostring(bucket.bucket) or tostring(bucket)
  local item = known.items[name]
  if not item then
    return refuse("%s: the group %s has no bucket %s", where, known.group, name)
  elseif known.seen[item] then
    return refuse("%s: bucket %s is named twice", where, name)
  elseif move.from ~= nil and move.from ~= item.owner then
    return refuse("%s: bucket %s is not on %s but on %s", where, name, tostring(move.from), item.owner)
  elseif not balance.resides(known.state, item, known.shards[move.to]) and item.owner ~= move.to then
    return refuse("%s: rows of bucket %s may not leave the region %s, and %s is in %s", where, name, item.region, move.to,
      known.shards[move.to].region or "none")
  end
  known.seen[item] = true
  return item
end

--- Check moves, and make assignments of them. Yields now and then.
-- @tparam table state
-- @param moves a list of `bucket` or `buckets`, `to`, and if it likes `from`
-- @string who proposes it
-- @treturn[1] {table,...} assignments; buckets that are there already are left out
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`: the first thing that is wrong, with its number
function proposal.check(state, moves, who)
  if type(moves) ~= "table" or not options_of.is_list(moves) then
    return refuse("%s: expected a list of moves such as %s, got %s", who, EXAMPLE, options_of.describe(moves))
  end
  local known = { items = index(state), shards = (balance.shards(state)), seen = {}, group = state.group, state = state }
  local assignments, pause = {}, breath.new()
  for i, move in ipairs(moves) do
    local where = ("%s: moves[%d]"):format(who, i)
    local list, err = buckets_of(where, move)
    local ok = list
    if list then
      ok, err = check_shard(where, move.to, known.shards)
    end
    if not ok then
      return nil, err
    end
    for _, bucket in ipairs(list) do
      local item, problem = check_bucket(where, bucket, move, known)
      if not item then
        return nil, problem
      elseif item.owner ~= move.to then
        assignments[#assignments + 1] = { bucket = item, destination = move.to }
      end
    end
    if i % 256 == 0 then
      pause()
    end
  end
  return assignments
end

-- ---- asking ------------------------------------------------------------------------------------

local function ask(state, planner)
  local contract = planner.entry.contract
  local shown = planner.entry.source == "built-in" and state or proposal.show(state)
  local moves, why
  if contract.plan then
    moves, why = contract.plan(shown, planner.made)
  else
    local function rule(name)
      return contract[name] and function(...)
        local arguments = { ... }
        arguments[#arguments + 1] = planner.made
        return contract[name](unpack(arguments))
      end
    end
    moves, why = balance.even(shown, { cost = rule("cost"), capacity = rule("capacity"), allowed = rule("allowed"),
      tolerance = planner.made.tolerance, pause = breath.new() })
  end
  state.left = state.left or shown.left
  return moves, why
end

--- Ask a policy for a plan, and check it. Yields.
-- @tparam table state
-- @tparam table planner from `lunashard.policy.planner`
-- @treturn[1] {table,...} assignments
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`, `PLUGIN_FAILED`
function proposal.of(state, planner)
  local ok, moves, why = pcall(ask, state, planner)
  if not ok then
    if not errors.is(moves) then
      return nil, errors.new("PLUGIN_FAILED", { message = ("policy %s: %s"):format(planner.name, tostring(moves)),
        cause = moves })
    elseif moves.code == "CANCELED" then
      error(moves, 0)
    end
    moves, why = nil, moves
  end
  if moves == nil and why ~= nil then
    return nil, errors.is(why, "PLUGIN_FAILED") and why or errors.new("INVALID", { message = ("%s: %s"):format(planner.name,
      errors.is(why) and why.message or tostring(why)) })
  end
  return proposal.check(state, moves, planner.name)
end

return proposal
