--- How transactions end, and how functions are run in them.
-- What was not confirmed is never reported as done: a COMMIT that the server answers with ROLLBACK is
-- a failure, and a connection lost during COMMIT is `UNKNOWN_OUTCOME`.
-- @module lunashard.router.transaction_end
-- @local

local errors = require("lunashard.errors")
local failover = require("lunashard.manager.failover")
local task = require("lunashard.task")

local transaction_end = {}

local ROLLBACK_TIMEOUT = 5

--- Why a stream is cut.
transaction_end.CUT_OFF = "the transaction or savepoint has ended before the stream"

local function pack(...)
  return { n = select("#", ...), ... }
end

local traced = errors.tracer("the transaction's function")

--- Call fn(tx). A function that returns nil and a reason has failed too, as everywhere in Lua.
-- @tparam func fn
-- @tparam Tx tx
-- @treturn[1] table its values from index 2 on, with `n`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function transaction_end.call(fn, tx)
  local values = pack(xpcall(fn, traced, tx))
  if not values[1] then
    return nil, values[2]
  elseif values[2] == nil and values[3] ~= nil then
    return nil, traced(values[3])
  elseif values[2] == nil then -- success must look like success to assert()
    values[2], values.n = true, math.max(values.n, 2)
  end
  return values
end

--- A failure with what is known of the transaction.
-- @tparam Tx tx
-- @tparam lunashard.error err
-- @treturn lunashard.error
function transaction_end.context(tx, err)
  return errors.wrap(err, { shard_id = tx.shard_id, endpoint = tx.endpoint, cause = err })
end

local function close(tx)
  tx.closed = true
  tx.lease:release()
end

--- Roll back, also in a cancelled task, where waiting raises: then the pool does it. Yields.
-- @tparam Tx tx
function transaction_end.roll_back(tx)
  if tx.streaming then
    pcall(tx.streaming.cut, tx.streaming, transaction_end.CUT_OFF)
  end
  if not tx.lost then
    pcall(tx.lease.execute, tx.lease, "ROLLBACK", nil, { deadline = task.now() + ROLLBACK_TIMEOUT })
  end
  close(tx)
end

local function unknown(tx, err)
  return nil, errors.new("UNKNOWN_OUTCOME", {
    message = "COMMIT was not confirmed; the transaction may have been committed",
    shard_id = tx.shard_id,
    endpoint = tx.endpoint,
    elapsed = task.now() - tx.started,
    cause = err,
  })
end

local function rolled_back(tx, cause)
  return nil, errors.new(cause.code, {
    message = "nothing was committed, for a statement in the transaction had failed: " .. cause.message,
    sqlstate = cause.sqlstate,
    shard_id = tx.shard_id,
    endpoint = tx.endpoint,
    elapsed = task.now() - tx.started,
    cause = cause,
  })
end

local NO_REASON = { code = "SQL", sqlstate = "25P02", message = "the server rolled it back" }

--- The earlier of the transaction's deadline and a statement's own.
-- @tparam Tx tx
-- @tparam table opts `timeout`
-- @treturn number
function transaction_end.deadline(tx, opts)
  local own = tx.router:deadline(opts)
  return tx.deadline and math.min(tx.deadline, own) or own
end

--- Is the transaction still on the primary? What is committed on a former one is lost, so it must not look as if it had been.
-- @tparam Tx tx
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARD_DOWN`
function transaction_end.check_primary(tx)
  local objection = tx.at and failover.objection(tx.member, tx.at)
  if not objection then
    return true
  end
  tx.failed = tx.failed or errors.new("SHARD_DOWN", {
    message = objection,
    shard_id = tx.shard_id,
    endpoint = tx.endpoint,
  })
  tx.lost = true
  return nil, tx.failed
end

--- Commit. Yields.
-- @tparam Tx tx
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function transaction_end.commit(tx)
  if tx.streaming then
    tx.streaming:cut(transaction_end.CUT_OFF)
  end
  transaction_end.check_primary(tx)
  if tx.lost then
    close(tx)
    return rolled_back(tx, tx.failed)
  elseif tx.deadline and task.now() >= tx.deadline then
    transaction_end.roll_back(tx)
    return nil, errors.new("TIMEOUT", {
      message = "the transaction's time was over before COMMIT; rolled back",
      shard_id = tx.shard_id,
      endpoint = tx.endpoint,
      elapsed = task.now() - tx.started,
    })
  end
  local ok, result, err = pcall(tx.lease.execute, tx.lease, "COMMIT", nil, { deadline = transaction_end.deadline(tx, {}) })
  if not ok then
    -- Cancelled. A connection still inside the transaction has not seen the COMMIT.
    local unsent = tx.lease:transaction_status() == "intransaction"
    close(tx)
    if unsent or not errors.is(result) then
      error(result, 0)
    end
    return unknown(tx, result)
  end
  close(tx)
  if not result then
    if err.code == "SQL" then
      return nil, transaction_end.context(tx, err)
    end
    return unknown(tx, err)
  elseif result.command == "ROLLBACK" then
    return rolled_back(tx, tx.failed or NO_REASON)
  end
  return true
end

return transaction_end
