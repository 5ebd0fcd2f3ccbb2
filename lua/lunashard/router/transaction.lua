--- Transactions on one shard.
-- What was not confirmed is never reported as done: a COMMIT that the server answers with ROLLBACK is
-- a failure, and a connection lost during COMMIT is `UNKNOWN_OUTCOME`.
-- @module lunashard.router.transaction

local attempt = require("lunashard.router.attempt")
local beginning = require("lunashard.router.beginning")
local checking = require("lunashard.router.checking")
local errors = require("lunashard.errors")
local failover = require("lunashard.manager.failover")
local guarding = require("lunashard.router.guarding")
local raise = require("lunashard.misuse").raise
local options = require("lunashard.options")
local reads = require("lunashard.router.reads")
local routing = require("lunashard.router.routing")
local statement = require("lunashard.router.statement")
local stream = require("lunashard.router.stream")
local task = require("lunashard.task")
local transaction_guards = require("lunashard.router.transaction_guards")
local transaction_stream = require("lunashard.router.transaction_stream")

local transaction = { methods = {} }

local ROLLBACK_TIMEOUT = 5

local CUT_OFF = "the transaction or savepoint has ended before the stream"

local EXECUTE = {
  routing_key = "any",
  table = "string",
  timeout = "seconds",
  decode_json = "boolean",
  max_result_bytes = "count",
}

-- ---- the transaction object -------------------------------------------------

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
function transaction.open(router, member, opts, sql, deadline, under)
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
    covered = guard and guard.covers, -- buckets that are guarded, or true: the whole shard
    map = router.manager.catalog and router.manager.catalog.map,
  }, Tx)
  if member.replicas[1] and not opts.read_only then
    tx.written = beginning.written(tx)
  end
  return tx
end

-- The earlier of the transaction's deadline and the statement's own.
local function statement_deadline(tx, opts)
  local own = tx.router:deadline(opts)
  return tx.deadline and math.min(tx.deadline, own) or own
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
transaction.run = run

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
function transaction.run_many(tx, sql, sets, pool_options)
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

-- What is committed on a former primary is lost, so it must not look as if it had been.
local function check_primary(tx)
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

local function check_usable(tx)
  if tx.closed then
    return ended()
  elseif tx.streaming then
    return nil, errors.new("INVALID", {
      message = "a stream is open in the transaction: read it to its end or close it first",
    })
  end
  return check_primary(tx)
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
    deadline = statement_deadline(self, opts),
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

-- ---- running functions ------------------------------------------------------

local function pack(...)
  return { n = select("#", ...), ... }
end

local traced = errors.tracer("the transaction's function")

-- Call fn(tx); its values, or nil and why it failed. A function that returns nil
-- and a reason has failed too, as everywhere in Lua.
local function call(fn, tx)
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

local function context(tx, err)
  return errors.wrap(err, { shard_id = tx.shard_id, endpoint = tx.endpoint, cause = err })
end

local function close(tx)
  tx.closed = true
  tx.lease:release()
end

-- Also in a cancelled task, where waiting raises: then the pool rolls back.
local function roll_back(tx)
  if tx.streaming then
    pcall(tx.streaming.cut, tx.streaming, CUT_OFF)
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

local function commit(tx)
  if tx.streaming then
    tx.streaming:cut(CUT_OFF)
  end
  check_primary(tx)
  if tx.lost then
    close(tx)
    return rolled_back(tx, tx.failed)
  elseif tx.deadline and task.now() >= tx.deadline then
    roll_back(tx)
    return nil, errors.new("TIMEOUT", {
      message = "the transaction's time was over before COMMIT; rolled back",
      shard_id = tx.shard_id,
      endpoint = tx.endpoint,
      elapsed = task.now() - tx.started,
    })
  end
  local ok, result, err = pcall(tx.lease.execute, tx.lease, "COMMIT", nil, { deadline = statement_deadline(tx, {}) })
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
      return nil, context(tx, err)
    end
    return unknown(tx, err)
  elseif result.command == "ROLLBACK" then
    return rolled_back(tx, tx.failed or NO_REASON)
  end
  return true
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
  ok, err = run(self, "SAVEPOINT " .. name, nil, { deadline = statement_deadline(self, {}) })
  if not ok then
    return nil, err
  end
  local values
  self.nested = self.nested + 1
  values, err = call(fn, self)
  self.nested = self.nested - 1
  if self.streaming then -- left open by fn, for none was before
    self.streaming:cut(CUT_OFF)
  end
  if values then
    ok, err = run(self, "RELEASE SAVEPOINT " .. name, nil, { deadline = statement_deadline(self, {}) })
    if ok then
      return unpack(values, 2, values.n)
    end
    -- A statement had failed and the function said nothing of it.
    err = self.failed or err
  end
  if not self.lost then
    local sql = ("ROLLBACK TO SAVEPOINT %s; RELEASE SAVEPOINT %s"):format(name, name)
    ok = run(self, sql, nil, { deadline = statement_deadline(self, {}), simple = true })
    if ok then -- with all locks that were taken since
      self.failed, self.covered = before, covered
    else -- what was to be undone must not be committed with the rest
      self.failed, self.lost = self.failed or err, true
    end
  end
  return nil, context(self, err)
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
  return commit(self)
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
  roll_back(self)
  return true
end

--- One whole try: begin, call, commit. Yields.
-- @tparam Router router
-- @tparam table member
-- @tparam table opts checked
-- @string sql the BEGIN
-- @tparam ?number deadline
-- @tparam func fn
-- @tparam[opt] table|number under as for @{open}
-- @treturn[1] table the function's values from index 2 on, with `n`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function transaction.try(router, member, opts, sql, deadline, fn, under)
  local tx, err = transaction.open(router, member, opts, sql, deadline, under)
  if not tx then
    return nil, err
  end
  tx.managed = true
  local values
  values, err = call(fn, tx)
  if not values then
    -- Ended by the caller's fault or the server's: what the statement said counts.
    roll_back(tx)
    return nil, context(tx, err)
  end
  local ok
  ok, err = commit(tx)
  if not ok then
    return nil, err
  end
  return values
end

-- What the transaction as a whole failed with.
local function failed(err, tries, elapsed, refusal)
  local whole = errors.wrap(err, { attempts = tries })
  whole.elapsed = elapsed
  whole.message = refusal and whole.message .. "; " .. refusal or whole.message
  return whole
end

-- Call `fn(member, under)` for the shard that the options name, under the map as it is. What `fn` says to be stale must not
-- have begun. With an error, whether `fn` was not even called.
local function with_member(router, opts, deadline, fn)
  local manager = router.manager
  local ok, err = manager:check_open()
  if not ok then
    return nil, err
  elseif router.manager.options.read_only and opts.read_only == false then
    return nil, errors.new("READ_ONLY", { message = "the cluster was opened read_only, and READ WRITE would undo that" })
  end
  return guarding.through(manager, deadline or router:deadline(opts), function(guarded)
    local under = manager.generation
    local member, none = routing.resolve(manager, opts)
    if member and guarded then
      under, none = guarding.under(manager, true, member, opts.table, opts.routing_key)
    end
    if not member or not under then
      return nil, none, true
    end
    return fn(member, under)
  end)
end

--- Run a function in a transaction on the shard that owns a key. Yields.
-- An error raised in the function, a cancel, or a return of nil and a reason rolls back. Values are returned
-- after COMMIT.
-- @tparam table opts `routing_key` or `shard_id`, `table`; `isolation`: `read committed`, `repeatable read` or
--   `serializable`;
--   `read_only`, with `after` and `max_replica_lag` as for `execute`; `deferrable`; `timeout` for the whole
--   transaction [none; each statement has query_timeout];
--   `retries` [0]: run the function again after a serialization failure or deadlock, or when another endpoint
--   has become the primary
-- @tparam func fn called with the transaction: `tx:execute`, `tx:stream`, `tx:transaction` (savepoint)
-- @return[1] what fn returned; true when that was nothing
-- @treturn[2] nil
-- @treturn[2] lunashard.error with `cause`; `PLUGIN_FAILED` (with `traceback`) when fn raised something that
--   is no error object,
--   `UNKNOWN_OUTCOME` when COMMIT was not confirmed, otherwise what failed
function transaction.methods:transaction(opts, fn)
  opts = options.check(opts, beginning.OPTIONS, "transaction")
  if type(fn) ~= "function" then
    raise("transaction: expected a function, got a " .. type(fn), 2)
  end
  local sql = beginning.sql(opts, "transaction")
  local tries, started = 0, task.now()
  local deadline = opts.timeout and started + opts.timeout
  local at -- the member of the last try
  local function try(member, under)
    local begun = false
    at = member
    local values, err = transaction.try(self, member, opts, sql, deadline, function(tx)
      begun = true
      return fn(tx)
    end, under)
    if not values and not begun then
      return nil, err
    end
    return { values = values, err = err }
  end
  while true do
    tries = tries + 1
    local done, err, unresolved = with_member(self, opts, deadline, try)
    if done and done.values then
      return unpack(done.values, 2, done.values.n)
    elseif unresolved then
      return nil, err
    end
    err = done and done.err or err
    local moved, ok, refusal
    if not opts.read_only and at then
      moved, err = attempt.moved(self.manager, at, err, deadline)
    end
    ok = tries <= (opts.retries or 0) and (moved or attempt.is_undone(err))
    if ok then
      ok, refusal = attempt.allow(self, err)
    end
    if not ok or not moved and not attempt.pause(tries, deadline) then
      return nil, failed(err, tries, task.now() - started, refusal)
    end
  end
end

--- Begin a transaction to be ended by hand. Yields.
-- One that is forgotten is rolled back when its task ends.
-- @tparam table opts as for `transaction`, without `retries`
-- @treturn[1] Tx with `commit` and `rollback` besides
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function transaction.methods:begin(opts)
  opts = options.check(opts, beginning.OPTIONS, "begin")
  local sql = beginning.sql(opts, "begin")
  local deadline = opts.timeout and task.now() + opts.timeout
  return with_member(self, opts, deadline, function(member, under)
    return transaction.open(self, member, opts, sql, deadline, under)
  end)
end

return transaction
