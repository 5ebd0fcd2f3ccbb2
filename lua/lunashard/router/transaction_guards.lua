--- Guards inside transactions.
-- One is taken when the transaction begins, for its key's bucket or, where no key is named, for the shard; others
-- before the first statement that needs them. They last to its end, so that nothing that it has seen can move before.
-- When the first one is refused nothing has happened, and the transaction begins anew under the right map; a later one is a
-- serialization failure (40001), as the server has them: run the transaction again.
--
-- A transaction that began without a guard needs none while the lease of that time holds: whoever moves rows waits
-- for it. When that has run out, statements are guarded from then on. What it has written before is safe, for its locks on
-- tables keep triggers from being made.
-- @module lunashard.router.transaction_guards

local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local guards = require("lunashard.router.guards")
local lease_of_map = require("lunashard.catalog.lease")
local statement = require("lunashard.router.statement")
local target = require("lunashard.router.target")

local transaction_guards = {}

local UNDONE = "40001"

--- Take the first guard, after BEGIN. Yields.
-- @tparam Lease lease
-- @tparam table guard
-- @tparam ?number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error also for a snapshot that is older than the map: nothing has happened in it
function transaction_guards.begin(lease, guard, deadline)
  local ok, err = lease:execute(guard.sql, guard.params, { deadline = deadline })
  if not ok and err.sqlstate == UNDONE then
    err = errors.wrap(err, { code = "STALE_MAP" })
  end
  return ok, err
end

--- Has the map changed since the transaction began?
-- @tparam Tx tx
-- @treturn boolean
function transaction_guards.has_moved(tx)
  local catalog = tx.router.manager.catalog
  return catalog ~= nil and catalog.map ~= tx.map
end

--- The serialization failure of a transaction whose rows have moved.
-- @tparam Tx tx
-- @tparam ?lunashard.error cause
-- @treturn nil
-- @treturn lunashard.error `SQL` with 40001
function transaction_guards.too_late(tx, cause)
  return nil, errors.new("SQL", {
    message = "rows that the transaction needs are being moved to another shard: run the transaction again",
    sqlstate = UNDONE,
    retryable = true,
    shard_id = tx.shard_id,
    endpoint = tx.endpoint,
    cause = cause,
  })
end

--- What is covered, as it is now.
-- @tparam ?table|boolean covered
-- @treturn ?table|boolean
function transaction_guards.copy(covered)
  if type(covered) ~= "table" then
    return covered
  end
  local copy = {}
  for name in pairs(covered) do
    copy[name] = true
  end
  return copy
end

-- What a statement needs; nil for none.
local function needed_by(tx, sql, params, opts)
  local router = tx.router
  local manager = router.manager
  if opts.routing_key ~= nil then
    return guarding.under(manager, true, tx.member, opts.table, opts.routing_key)
  end
  local kind = statement.classify(sql)
  local found = router.extractor and target.find(router, sql, params, kind)
  if found and found.plan.kind == "reference" then
    return nil
  elseif found and found.member == tx.member then
    return guards.found(manager, found, tx.member, params)
  end
  return guards.shard(manager, tx.member)
end

local function add(tx, more)
  if more == true or tx.covered == true then
    tx.covered = true
    return
  end
  tx.covered = transaction_guards.copy(tx.covered) or {}
  for name in pairs(more) do
    tx.covered[name] = true
  end
end

--- See to it that a statement may run. Yields when it needs a guard that the transaction does not have.
-- @tparam Tx tx
-- @string sql
-- @tparam ?table params
-- @tparam table opts `routing_key`, `table`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function transaction_guards.extend(tx, sql, params, opts)
  local manager = tx.router.manager
  if not manager.catalog or tx.covered == true then
    return true
  elseif tx.generation ~= guarding.EXEMPT then
    if lease_of_map.holds(manager, tx.generation) then
      return true
    end
    lease_of_map.check(manager)
    tx.generation, tx.covered = guarding.EXEMPT, {}
  end
  local guard, err = needed_by(tx, sql, params, opts)
  if err then
    return transaction_guards.too_late(tx, err)
  end
  local more = guard and guards.covered(guard)
  if not guard or guards.cover(tx.covered or {}, more) then
    return true
  end
  local ok
  ok, err = tx.lease:execute(guard.sql, guard.params,
    { deadline = math.min(tx.deadline or math.huge, tx.router:deadline(opts)) })
  if ok then
    add(tx, more)
    return true
  end
  tx:note_failure(err)
  if err.code == "SQL" then
    return transaction_guards.too_late(tx, err)
  end
  return nil, err
end

return transaction_guards
