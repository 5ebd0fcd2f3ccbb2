--- A mover's session on one side of a move.
-- Everything that a mover writes goes through `transaction`, whose first statement compares the mover's token with the
-- present one and keeps whoever takes the move over waiting to its end. Settings are the same on both sides, so
-- that texts mean the same; row security raises instead of hiding rows.
-- @module lunashard.rebalancer.session
-- @local

local errors = require("lunashard.errors")
local names = require("lunashard.rebalancer.names")
local task = require("lunashard.task")

local session = {}

local Session = {}
Session.__index = Session

-- A move had better look up its rows one by one than read all of a table: the former takes as long however large that is.
local SETTINGS = [[
  SET random_page_cost = 0.1; SET max_parallel_workers_per_gather = 0; SET jit = off;
  SET search_path = pg_catalog, pg_temp; SET row_security = off; SET TimeZone = 'UTC'; SET lc_monetary = 'C';
  SET statement_timeout = 0; SET lock_timeout = '2s'; SET idle_in_transaction_session_timeout = 0;
  SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
  SET application_name = ]]

local PATIENCE = 30 -- seconds for a connection, and for statements that touch a few rows

--- What the sessions of one side of a move are called on the server.
-- @tparam table row the move: `job`, `seq`
-- @string role
-- @treturn string
function session.name(row, role)
  return ("lunashard mover %s.%s %s"):format(row.job, row.seq, role)
end

--- The session for one side of a move. Connects when it is used.
-- @tparam table member the shard
-- @tparam table row the move: `job`, `seq`
-- @string role `source` or `destination`
-- @int token
-- @tparam function at called with the name of a point before and after each commit
-- @treturn Session
function session.new(member, row, role, token, at)
  return setmetatable({
    member = member, row = row, role = role, token = token, at = at,
    name = session.name(row, role),
  }, Session)
end

--- The statement after which a server ends the present transaction when its mover says nothing for longer than any cutover
-- takes. A process that stands still keeps its connections, and others may wait for what the transaction holds: locks of
-- the shard, of tables, of the catalog's rows; snapshots that last are refused while it has advanced the epoch.
-- @tparam table context of the mover
-- @treturn string
function session.brief(context)
  return ("SET LOCAL idle_in_transaction_session_timeout = %d"):format((1 + 2 * context.options.max_cutover) * 1000)
end

--- A deadline for what should be quick.
-- @treturn number
function session.soon()
  return task.now() + PATIENCE
end

-- A primary that was demoted, or that another one has taken over from, must not be talked to any more.
local function is_current(self)
  return self.lease and self.endpoint == self.member.primary and self.lease:transaction_status() ~= "unknown"
end

--- The connection. Yields.
-- @tparam ?number deadline
-- @treturn[1] Lease
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Session:connect(deadline)
  if is_current(self) then
    return self.lease
  end
  self:close()
  deadline = deadline or session.soon()
  local endpoint = self.member.primary
  local lease, err = endpoint.pool:acquire(deadline)
  if not lease then
    return nil, err
  end
  -- The tables that come and go are a mover's own, and its triggers let a write share connections as before.
  lease.keeps_schema = true
  self.lease, self.endpoint = lease, endpoint
  local ok
  ok, err = lease:execute(SETTINGS .. names.literal(self.name), nil, { simple = true, deadline = deadline })
  if not ok then
    self:close()
    return nil, err
  end
  return lease
end

--- Run one statement outside of a transaction. Yields.
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table opts as for `Lease:execute`; `deadline` [soon]
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Session:execute(sql, params, opts)
  opts = opts or {}
  opts.deadline = opts.deadline or session.soon()
  local lease, err = self:connect(opts.deadline)
  if not lease then
    return nil, err
  end
  return lease:execute(sql, params, opts)
end

local function finish(self, point, lease, value, err, deadline)
  if value == nil then
    if lease:transaction_status() ~= "unknown" then
      lease:execute("ROLLBACK", nil, { deadline = session.soon() })
    end
    return nil, err
  end
  self.at(point .. ":before-commit")
  local done
  done, err = lease:execute("COMMIT", nil, { deadline = deadline or session.soon() })
  if not done then
    return nil, err
  end
  self.at(point .. ":after-commit")
  return value
end

--- Run a function in a transaction that begins with the check of the token. Yields.
-- @string point what `at` is called with, before `:before-commit` and `:after-commit`
-- @tparam function fn called with the lease; returns a value to commit, or nil and an error to roll back
-- @tparam[opt] table opts `lock_timeout` and `statement_timeout` in ms, `async` (the commit need not be on disk yet),
--   `moves_rows` (into or out of the live tables, unnoted), `deadline`, `unchecked` (without the token: for the transaction
--   that sets it), `brief` (the mover's context: others wait for what it holds)
-- @treturn[1] any what fn returned
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SQL` with the SQLSTATE `LS005` when another mover has taken over
function Session:transaction(point, fn, opts)
  opts = opts or {}
  local lease, err = self:connect(opts.deadline)
  if not lease then
    return nil, err
  end
  local parts = { "BEGIN" }
  for _, name in ipairs({ "lock_timeout", "statement_timeout" }) do
    parts[#parts + 1] = opts[name] and ("SET LOCAL %s = %d"):format(name, math.ceil(opts[name])) or nil
  end
  parts[#parts + 1] = opts.brief and session.brief(opts.brief) or nil
  parts[#parts + 1] = opts.moves_rows and "SET LOCAL lunashard.guarded = '1'; SET LOCAL lunashard.mover = '1'; "
    .. "SET CONSTRAINTS ALL DEFERRED" or nil
  parts[#parts + 1] = opts.async and "SET LOCAL synchronous_commit = off" or nil
  parts[#parts + 1] = not opts.unchecked and ("SELECT lunashard.check_token(%d, %d, '%s', %d)"):format(self.row.job,
    self.row.seq, self.role, self.token) or nil
  local ok, value
  ok, err = lease:execute(table.concat(parts, "; "), nil, { simple = true, deadline = opts.deadline or session.soon() })
  if not ok then
    return finish(self, point, lease, nil, err)
  end
  ok, value, err = pcall(fn, lease)
  if ok then
    ok, value, err = pcall(finish, self, point, lease, value, err, opts.deadline)
  end
  if not ok then
    self:discard("the mover was interrupted")
    error(value, 0)
  end
  return value, err
end

--- Give the connection back.
function Session:close()
  if self.lease then
    self.lease:release()
    self.lease, self.endpoint = nil, nil
  end
end

--- Close it.
-- @string reason
function Session:discard(reason)
  if self.lease then
    self.lease:discard(reason)
    self.lease, self.endpoint = nil, nil
  end
end

--- Run several statements as one message. Yields.
-- @tparam Lease lease
-- @tparam {string,...} texts without parameters
-- @tparam ?number deadline
-- @treturn[1] table the result of the last one
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function session.run(lease, texts, deadline)
  return lease:execute(table.concat(texts, "; "), nil, { simple = true, deadline = deadline or session.soon() })
end

--- The error of a mover that is not the present one any more.
-- @tparam table row
-- @treturn lunashard.error
function session.taken_over(row)
  return errors.new("LOCK_HELD", {
    message = ("move %d of job %d has been taken over by another mover"):format(row.seq, row.job),
  })
end

return session
