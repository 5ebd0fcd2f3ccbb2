--- BEGIN, COMMIT, ROLLBACK and savepoints of a session. A transaction lives on one shard: the pinned one, or that of the
-- first statement in it.
-- @module lunashard.repl.transactions

local errors = require("lunashard.errors")
local task = require("lunashard.task")

local transactions = {}

-- ---- a task that lives as long as the session ----------------------------------

-- A transaction is rolled back when the task that began it ends, and each line has a task of its own.
local function work(keeper)
  while not keeper.closed do
    local job = table.remove(keeper.jobs, 1)
    if job then
      job.ok, job.value, job.err = pcall(job.fn)
      job.done = true
      if job.abandoned and job.ok and job.value then
        job.value:rollback()
      end
      job.ended:notify()
    else
      keeper.changed:wait()
    end
  end
end

local function in_keeper(session, fn)
  if not session.keeper then
    session.keeper = { jobs = {}, changed = task.event() }
    session.keeper.task = task.daemon(work, session.keeper)
  end
  local job = { fn = fn, ended = task.event() }
  table.insert(session.keeper.jobs, job)
  session.keeper.changed:notify()
  local ok, raised = pcall(function()
    while not job.done do
      job.ended:wait()
    end
  end)
  if not ok then
    job.abandoned = true
    error(raised, 0)
  elseif not job.ok then
    error(job.value, 0)
  end
  return job.value, job.err
end

-- ---- what is open ----------------------------------------------------------------

--- How the transaction is: `open`, `failed` (only a rollback is left), `pending` (begun, on no shard yet) or nil.
-- @tparam Session session
-- @treturn ?string
function transactions.state(session)
  if session.begin then
    return "pending"
  elseif not session.tx then
    return nil
  elseif session.tx.closed or session.tx.lost then
    return "failed"
  end
  local status = session.tx.lease:transaction_status()
  return (status == "intransaction" or status == "active") and not session.tx.failed and "open" or "failed"
end

local function forget(session)
  session.tx, session.begin = nil, nil
end

--- Open the transaction on a shard, unless it is open. Yields.
-- @tparam Session session
-- @string shard_id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function transactions.enter(session, shard_id)
  if session.tx then
    return true
  end
  local opts = { shard_id = shard_id }
  for name, value in pairs(session.begin) do
    opts[name] = value
  end
  local tx, err = in_keeper(session, function()
    return session.router:begin(opts)
  end)
  if not tx then
    return nil, err
  end
  session.tx, session.begin = tx, nil
  session:note("BEGIN", { shard_id = shard_id })
  return true
end

local NAMES = { transaction_isolation = "isolation", transaction_read_only = "read_only",
  transaction_deferrable = "deferrable" }

local function options_of(node)
  local opts = {}
  for _, option in ipairs(node.options or {}) do
    local value = option.DefElem.arg.A_Const
    local name = NAMES[option.DefElem.defname]
    if value.sval then
      opts[name] = value.sval.sval
    else
      opts[name] = value.ival.ival == 1 -- 0 is not in the tree
    end
  end
  return opts
end

local function begin(session, node)
  if session.tx or session.begin then
    session.err("WARNING: there is already a transaction in progress\n")
    return true
  end
  local opts = options_of(node)
  if session.read_only and opts.read_only == false then
    return nil, errors.new("READ_ONLY", { message = "the session is read-only: \\rw first" })
  end
  session.begin = opts
  if not session.pin then
    session.err("(BEGIN; the first statement that names a shard decides where)\n")
    return true
  end
  local ok, err = transactions.enter(session, session.pin.shard_id)
  if not ok then
    forget(session)
    return nil, err
  end
  session.err(("(BEGIN, %s)\n"):format(session.tx.shard_id))
  return true
end

local function finish(session, method, word)
  local tx = session.tx
  if not tx then
    session.err(session.begin and ("(%s; nothing had been done)\n"):format(word)
      or "WARNING: there is no transaction in progress\n")
    forget(session)
    return true
  end
  local ok, err = tx[method](tx)
  forget(session)
  if not ok then
    return nil, err
  end
  session:note(word)
  session.err(("(%s, %s)\n"):format(word, tx.shard_id))
  return true
end

-- `tx:execute` refuses these, for a function's savepoints are its own; here nobody else has any.
local function savepoint(session, node, sql)
  local tx = session.tx
  if not tx then
    return nil, errors.new("INVALID", { message = "savepoints are set inside a transaction, after its first statement" })
  end
  local result, err = tx.lease:execute(sql, nil, { deadline = task.now() + session.router.query_timeout })
  if not result then
    tx:note_failure(err)
    return nil, err
  end
  if node.kind == "TRANS_STMT_ROLLBACK_TO" then
    tx.failed = nil
  end
  session:note("SAVEPOINT", { sql = sql })
  session.err(("(%s, %s)\n"):format(result.command, tx.shard_id))
  return true
end

local KINDS = { TRANS_STMT_BEGIN = begin, TRANS_STMT_START = begin, TRANS_STMT_SAVEPOINT = savepoint,
  TRANS_STMT_RELEASE = savepoint, TRANS_STMT_ROLLBACK_TO = savepoint }

--- Run a statement that controls transactions. Yields.
-- @tparam Session session
-- @tparam table node TransactionStmt
-- @string sql
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function transactions.control(session, node, sql)
  if node.chain then
    return nil, errors.new("INVALID", { message = "AND CHAIN is not done here: BEGIN again" })
  elseif node.kind == "TRANS_STMT_COMMIT" then
    return finish(session, "commit", "COMMIT")
  elseif node.kind == "TRANS_STMT_ROLLBACK" then
    return finish(session, "rollback", "ROLLBACK")
  elseif KINDS[node.kind] then
    return KINDS[node.kind](session, node, sql)
  end
  return nil, errors.new("INVALID", { message = "two-phase commit is not done here" })
end

--- Roll back what is open and end the task that kept it. Yields.
-- @tparam Session session
function transactions.close(session)
  if session.tx then
    pcall(session.tx.rollback, session.tx)
  end
  forget(session)
  if session.keeper then
    session.keeper.closed = true
    session.keeper.task:cancel()
    session.keeper = nil
  end
end

return transactions
