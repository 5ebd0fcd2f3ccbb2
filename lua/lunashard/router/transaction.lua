--- Transactions on one shard.
-- @module lunashard.router.transaction

local attempt = require("lunashard.router.attempt")
local beginning = require("lunashard.router.beginning")
local ending = require("lunashard.router.transaction_end")
local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local raise = require("lunashard.misuse").raise
local options = require("lunashard.options")
local routing = require("lunashard.router.routing")
local task = require("lunashard.task")
local tx_module = require("lunashard.router.tx")

local transaction = { methods = {} }

--- One whole try: begin, call, commit. Yields.
-- @tparam Router router
-- @tparam table member
-- @tparam table opts checked
-- @string sql the BEGIN
-- @tparam ?number deadline
-- @tparam func fn
-- @tparam[opt] table|number under as for `lunashard.router.tx`
-- @treturn[1] table the function's values from index 2 on, with `n`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function transaction.try(router, member, opts, sql, deadline, fn, under)
  local tx, err = tx_module.open(router, member, opts, sql, deadline, under)
  if not tx then
    return nil, err
  end
  tx.managed = true
  local values
  values, err = ending.call(fn, tx)
  if not values then
    -- Ended by the caller's fault or the server's: what the statement said counts.
    ending.roll_back(tx)
    return nil, ending.context(tx, err)
  end
  local ok
  ok, err = ending.commit(tx)
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
    return tx_module.open(self, member, opts, sql, deadline, under)
  end)
end

return transaction
