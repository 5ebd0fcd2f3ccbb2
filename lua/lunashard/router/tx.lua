--- The transaction object: statements, streams and savepoints on one connection.
-- @module lunashard.router.tx

local attempt = require("lunashard.router.attempt")
local beginning = require("lunashard.router.beginning")
local checking = require("lunashard.router.checking")
local ending = require("lunashard.router.transaction_end")
local errors = require("lunashard.errors")
local failover = require("lunashard.manager.failover")
local guarding = require("lunashard.router.guarding")
local guards = require("lunashard.router.guards")
local raise = require("lunashard.misuse").raise
local options = require("lunashard.options")
local reads = require("lunashard.router.reads")
local routing = require("lunashard.router.routing")
local statement = require("lunashard.router.statement")
local stream = require("lunashard.router.stream")
local task = require("lunashard.task")
local transaction_guards = require("lunashard.router.transaction_guards")
local transaction_stream = require("lunashard.router.transaction_stream")

local tx_module = {}

local EXECUTE = {
  routing_key = "any",
  table = "string",
  timeout = "seconds",
  decode_json = "boolean",
  max_result_bytes = "count",
}

local Tx = {}
Tx.__index = Tx
Tx.__name = "lunashard.transaction"

function Tx:__tostring()
  return ("lunashard.transaction(%s, %s)"):format(self.shard_id, self.closed and "ended" or "open")
end

local function on_endpoint(endpoint, sql, deadline, under)
  local guard = type(under) == "table" and under or nil
  local lease, err = endpoint.pool:acquire(deadline, not guard and under or nil)
  if not lease then
    return nil, err
  end
  local ok, result
  ok, result, err = pcall(lease.execute, lease, sql, nil, { deadline = deadline })
  if ok and result and guard then
    local done
    ok, done, err = pcall(transaction_guards.begin, lease, guard, deadline)
    result = ok and done and result or done
  end
  if ok and result then
    result.lease, result.at = lease, endpoint
    return result
  end
  lease:release()
  if not ok then
    error(result, 0)
  end
  return nil, err
end

--- Open a transaction. Yields.
-- @tparam Router router
-- @tparam table member
-- @tparam table opts checked
-- @string sql the BEGIN
-- @tparam ?number deadline of the whole transaction
-- @tparam[opt] table|number under what it relies on, see `lunashard.router.guarding` [the present generation]
-- @treturn[1] Tx
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function tx_module.open(router, member, opts, sql, deadline, under)
  under = under or router.manager.generation
  local guard = type(under) == "table" and under or nil
  -- A standby cannot run serializable transactions.
  local serializable = opts.isolation and opts.isolation:lower() == "serializable"
  local wishes = not serializable and not guard and reads.wishes(opts) -- on a standby there is no lock to be had
  local started, soon = task.now(), deadline or router:deadline(opts)
  local begun, err = attempt.run(router, member, wishes, router.retries, soon, on_endpoint, sql, soon, under)
  if not begun then
    return nil, err
  end
  router.statistics.transactions = router.statistics.transactions + 1
  local tx = setmetatable({
    router = router,
    member = member,
    shard_id = member.shard_id,
    endpoint = begun.endpoint,
    at = not wishes and begun.at or nil,
    lease = begun.lease,
    deadline = deadline,
    started = started,
    opts = opts,
    closed = false,
    savepoints = 0,
    nested = 0,
    generation = not guard and under or guarding.EXEMPT,
    covered = guard and guards.covered(guard), -- buckets that are guarded, or true: the whole shard
    map = router.manager.catalog and router.manager.catalog.map,
  }, Tx)
  if member.replicas[1] and not opts.read_only then
    tx.written = beginning.written(tx)
  end
  return tx
end

-- Nothing of an open transaction survives its connection, so here the outcome is known.
local function certain(tx, err)
  if err.code ~= "UNKNOWN_OUTCOME" then
    return err
  end
  return errors.new("SHARD_DOWN", {
    message = "the connection was lost in the middle of a transaction, which is thereby rolled back",
    shard_id = tx.shard_id,
    endpoint = tx.endpoint,
    elapsed = err.elapsed,
    cause = err,
  })
end

-- What a failure means for a transaction whose connection is in this state. `active`: another
-- statement of it runs and goes on, or this one was given up and is being cancelled.
local GIVEN_UP = { TIMEOUT = true, CANCELED = true, RESULT_TOO_LARGE = true }

--- Remember a failed statement: from then on the transaction cannot commit.
-- For the parts that run statements on its connection.
-- @local
-- @tparam lunashard.error err
function Tx:note_failure(err)
  local status = self.lease:transaction_status()
  if status == "intransaction" or (status == "active" and not GIVEN_UP[err.code]) then
    return
  end
  self.failed = self.failed or err
  self.lost = self.lost or status == "idle" or status == "unknown"
end

local function run(tx, sql, params, pool_options)
  pool_options.generation = tx.generation
  local result, err = tx.lease:execute(sql, params, pool_options)
  if result then
    result.shard_id = tx.shard_id
    result.attempts = 1
    tx.router.statistics:record(tx.shard_id, result.duration, tx.endpoint, result.command)
    tx.router.statements:ended(tx.router, result, sql, params, tx.opts)
    return tx.written and setmetatable(result, tx.written) or result
  end
  err = certain(tx, err)
  tx:note_failure(err)
  if tx.router.manager.catalog and guarding.is_stale(err) then
    return transaction_guards.too_late(tx, err)
  end
  if tx.at and err.sqlstate == "25006" then
    failover.suspect(tx.router.manager, tx.member)
  end
  tx.router.statistics:record_failure(tx.shard_id, err, sql)
  tx.router.statements:failed(tx.router, err, sql, params, tx.opts)
  return nil, err
end

--- Run one statement that has been checked. Yields.
-- @function run
-- @tparam Tx tx
-- @string sql
-- @tparam ?table params
-- @tparam table pool_options
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
tx_module.run = run

--- Run one statement once for each set of parameters, many in one exchange. Yields.
-- For `execute_many`, which has checked the statement.
-- @tparam Tx tx
-- @string sql
-- @tparam {table,...} sets
-- @tparam table pool_options
-- @treturn[1] {table,...} results
-- @treturn[2] nil
-- @treturn[2] lunashard.error
-- @treturn[2] int the number of the set that failed
function tx_module.run_many(tx, sql, sets, pool_options)
  local statistics = tx.router.statistics
  pool_options.generation = tx.generation
  local results, err, at = tx.lease:execute_many(sql, sets, pool_options)
  for i = 1, results and #results or at - 1 do
    local result = results and results[i]
    if result then
      result.shard_id, result.attempts = tx.shard_id, 1
      setmetatable(result, tx.written)
    end
    statistics:record(tx.shard_id, result and result.duration or 0, tx.endpoint, result and result.command or "INSERT")
  end
  if results then
    return results
  end
  err = certain(tx, err)
  tx:note_failure(err)
  statistics:record_failure(tx.shard_id, err, sql)
  return nil, err, at
end

local function ended()
  return nil, errors.new("CLOSED", { message = "the transaction has ended" })
end

local function check_usable(tx)
  if tx.closed then
    return ended()
  elseif tx.streaming then
    return nil, errors.new("INVALID", {
      message = "a stream is open in the transaction: read it to its end or close it first",
    })
  end
  return ending.check_primary(tx)
end

local function check_key(tx, sql, params, opts)
  local router = tx.router
  if opts.routing_key ~= nil then
    local member, err = routing.resolve(router.manager, opts)
    if not member then
      return nil, err
    elseif member ~= tx.member and transaction_guards.has_moved(tx) then
      return transaction_guards.too_late(tx)
    elseif member ~= tx.member then
      return nil, errors.new("KEY_MISMATCH", {
        message = ("routing_key belongs to %s, but the transaction is on %s"):format(member.shard_id, tx.shard_id),
      })
    end
  end
  if router.checks then
    return checking.check(router, sql, params, opts.routing_key, tx.member)
  end
  return true
end

local function check_statement(sql)
  local kind, word = statement.classify(sql)
  if kind == "control" then
    return nil, errors.new("INVALID", {
      message = word .. ": transaction control is refused inside a transaction; return from the function to commit, "
        .. "raise to roll back, and use tx:transaction for a savepoint",
    })
  end
  return routing.check_statement(sql)
end

--- Run one statement in the transaction. Yields.
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table opts `routing_key` (and `table`): checked against the transaction's shard, as are keys that the
--   statement names where tables are declared or an extractor was chosen; `timeout`, `decode_json`, `max_result_bytes`
-- @treturn[1] table result, as from `router:execute`; its `lsn` can be looked at once the transaction has ended
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SQL`, `TIMEOUT`, `KEY_MISMATCH`, `INVALID`, `SHARD_DOWN` (rolled back),
--   `CLOSED`; after `SQL` only a
--   rollback, to a savepoint or of everything, lets other statements run
function Tx:execute(sql, params, opts)
  routing.check_arguments("tx:execute", sql, params)
  opts = options.check(opts, EXECUTE, "tx:execute")
  local ok, err = check_usable(self)
  if ok then
    ok, err = check_statement(sql)
  end
  if ok then
    ok, err = check_key(self, sql, params, opts)
  end
  if ok then
    ok, err = transaction_guards.extend(self, sql, params, opts)
  end
  if not ok then
    return nil, err
  end
  return run(self, sql, params, {
    deadline = ending.deadline(self, opts),
    decode_json = opts.decode_json,
    max_result_bytes = opts.max_result_bytes or self.router.max_result_bytes,
  })
end

--- Read a large result in the transaction, row by row.
-- The transaction can run nothing else until the iterator is at its end or closed; an early `close` leaves it usable.
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table opts `fetch_size`, `timeout`, `decode_json`
-- @treturn Stream for `for row in tx:stream(...) do`; errors are raised while iterating
function Tx:stream(sql, params, opts)
  routing.check_arguments("tx:stream", sql, params)
  opts = options.check(opts, stream.OPTIONS, "tx:stream")
  stream.check_fetch_size("tx:stream", opts.fetch_size)
  return transaction_stream.new(self, check_usable, sql, params, opts)
end
--- Run a function inside a savepoint. Yields.
-- When it raises, or returns nil and a reason, the transaction goes back to the savepoint and is usable again.
-- @tparam func fn called with the transaction
-- @return[1] what fn returned; true when that was nothing
-- @treturn[2] nil
-- @treturn[2] lunashard.error with `cause`
function Tx:transaction(fn)
  if type(fn) ~= "function" then
    raise("tx:transaction: expected a function, got a " .. type(fn), 2)
  end
  local ok, err = check_usable(self)
  if not ok then
    return nil, err
  end
  self.savepoints = self.savepoints + 1
  local name = "lunashard_" .. self.savepoints
  local before, covered = self.failed, transaction_guards.copy(self.covered)
  ok, err = run(self, "SAVEPOINT " .. name, nil, { deadline = ending.deadline(self, {}) })
  if not ok then
    return nil, err
  end
  local values
  self.nested = self.nested + 1
  values, err = ending.call(fn, self)
  self.nested = self.nested - 1
  if self.streaming then -- left open by fn, for none was before
    self.streaming:cut(ending.CUT_OFF)
  end
  if values then
    ok, err = run(self, "RELEASE SAVEPOINT " .. name, nil, { deadline = ending.deadline(self, {}) })
    if ok then
      return unpack(values, 2, values.n)
    end
    -- A statement had failed and the function said nothing of it.
    err = self.failed or err
  end
  if not self.lost then
    local sql = ("ROLLBACK TO SAVEPOINT %s; RELEASE SAVEPOINT %s"):format(name, name)
    ok = run(self, sql, nil, { deadline = ending.deadline(self, {}), simple = true, keeps_schema = true })
    if ok then -- with all locks that were taken since
      self.failed, self.covered = before, covered
    else -- what was to be undone must not be committed with the rest
      self.failed, self.lost = self.failed or err, true
    end
  end
  return nil, ending.context(self, err)
end

--- Commit a transaction from `router:begin`. Yields.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SQL`, `UNKNOWN_OUTCOME`, `TIMEOUT`, `CLOSED`; `INVALID` in
--   `router:transaction`, where the
--   function's return commits
function Tx:commit()
  if self.closed then
    return ended()
  elseif self.managed then
    return nil, errors.new("INVALID", { message = "return from the transaction's function to commit" })
  elseif self.nested > 0 then
    return nil, errors.new("INVALID", { message = "commit after the function of tx:transaction has returned" })
  end
  return ending.commit(self)
end

--- Roll back a transaction from `router:begin`. Yields.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `CLOSED`; `INVALID` in `router:transaction`, where raising rolls back
function Tx:rollback()
  if self.closed then
    return ended()
  elseif self.managed then
    return nil, errors.new("INVALID", { message = "raise from the transaction's function to roll back" })
  elseif self.nested > 0 then
    return nil, errors.new("INVALID", { message = "raise from the function of tx:transaction to roll back" })
  end
  ending.roll_back(self)
  return true
end

return tx_module
