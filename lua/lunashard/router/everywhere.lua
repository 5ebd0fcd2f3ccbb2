--- A write on all shards of a cluster whose rows may move: no row is met twice, or not at all.
-- Each shard runs it in a transaction that begins with the shard's guard, and none runs it before all have their guards:
-- from then on nothing can move until it is done on both sides of the move.
-- @module lunashard.router.everywhere

local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local scatter = require("lunashard.router.scatter")
local task = require("lunashard.task")
local transaction = require("lunashard.router.transaction")
local tx_module = require("lunashard.router.tx")

local everywhere = {}

-- Those who come wait until all are there, or one cannot come.
local function new_gate(n)
  return { missing = n, changed = task.event() }
end

local function pass(gate, deadline)
  gate.missing = gate.missing - 1
  gate.changed:notify()
  while gate.missing > 0 and not gate.shut do
    if not gate.changed:wait(deadline) then
      return nil, errors.new("TIMEOUT", { message = "timed out while waiting for the guards of other shards" })
    end
  end
  return not gate.shut, gate.shut
end

local function shut(gate, err)
  if gate.missing > 0 and not gate.shut then
    gate.shut = err
    gate.changed:notify()
  end
end

local function on_shard(router, member, sql, params, opts, deadline, under, gate)
  local outcome
  local ok, err = transaction.try(router, member, {}, "BEGIN", deadline, function(tx)
    local through, problem = pass(gate, deadline)
    if not through then
      error(problem, 0)
    end
    outcome, problem = tx_module.run(tx, sql, params, {
      deadline = deadline,
      decode_json = opts.decode_json,
      max_result_bytes = opts.max_result_bytes or router.max_result_bytes,
    })
    if not outcome then
      error(problem, 0)
    end
    return true
  end, under)
  if not ok then
    shut(gate, err)
    return nil, err
  end
  return outcome
end

--- Once. Yields.
-- @tparam Router router
-- @tparam {table,...} members
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `execute`
-- @number deadline
-- @treturn[1] {table,...} shard results, as from `scatter.run`
-- @treturn[1] {table,...} failed
-- @treturn[2] nil, nothing was done
-- @treturn[2] lunashard.error that @{lunashard.router.guarding.is_stale}
function everywhere.try(router, members, sql, params, opts, deadline)
  local under = guarding.under_all(router.manager, true, members)
  local gate = new_gate(#members)
  local results, failed = scatter.run(members, {}, function(member)
    return on_shard(router, member, sql, params, opts, deadline, under(member), gate)
  end)
  if not gate.shut then
    return results, failed
  elseif guarding.is_stale(gate.shut) then
    return nil, gate.shut
  end
  -- Nothing was run anywhere, because of these alone.
  local to_blame = {}
  for _, one in ipairs(failed) do
    to_blame[#to_blame + 1] = one.error == gate.shut and one or nil
  end
  for _, result in ipairs(results) do
    if result.error and result.error ~= gate.shut then
      result.error, result.error_message, result.started = nil, nil, false
    end
  end
  return results, to_blame
end

-- Where there are no guards there are no rows either, and none can come without a change on a shard that has them now,
-- which its guard would tell.
local function with_guards(manager, members)
  local list = {}
  for _, member in ipairs(members) do
    list[#list + 1] = not guarding.is_absent(manager, member.shard_id) and member or nil
  end
  return list[1] and list or members
end

--- Run a statement that writes on these shards, once nothing moves between them. Yields.
-- @tparam Router router
-- @tparam {table,...} members
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `scatter_gather`
-- @number deadline
-- @tparam ?table reducer for which rows would be streamed
-- @treturn[1] {table,...} shard results, as from `scatter.run`
-- @treturn[1] {table,...} failed
-- @treturn[2] nil
-- @treturn[2] lunashard.error `STALE_MAP`, `JOB_OPEN`
function everywhere.run(router, members, sql, params, opts, deadline, reducer)
  if reducer and router.manager.guarding then
    return guarding.refusal(router.manager, "what a write returns cannot be streamed into an aggregation")
  end
  local results, failed
  local value, err = guarding.through(router.manager, deadline, function()
    results, failed = everywhere.try(router, with_guards(router.manager, members), sql, params, opts, deadline)
    return results and true, failed
  end)
  if not value then
    return nil, err
  end
  return results, failed
end

return everywhere
