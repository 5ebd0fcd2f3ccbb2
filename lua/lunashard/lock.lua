--- Named locks between runs, such as the nightly job that must not run twice.
-- A session advisory lock on the first shard's primary: the server frees it when the session
-- ends, however that ends, also by kill -9.
-- @module lunashard.lock

local errors = require("lunashard.errors")
local task = require("lunashard.task")

local lock = {}

local Lock = {}
Lock.__index = Lock

-- One key for both statements: the database's advisory locks are shared with its other users.
local KEY = "hashtextextended('lunashard lock ' || $1, 0)"

local HOLDER = [[
  SELECT a.pid, a.application_name, host(a.client_addr) AS address,
         extract(epoch FROM clock_timestamp() - a.backend_start)::int AS seconds
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
   WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
     AND (l.classid::bigint << 32 | l.objid::bigint) = ]] .. KEY

local function held(lease, name, deadline)
  local result = lease:execute(HOLDER, { name }, { deadline = deadline, read_only = true })
  local holder = result and result.rows[1]
  local who = holder and (" (%s from %s, server process %d, for %d s)"):format(holder.application_name,
    holder.address or "a local socket", holder.pid, holder.seconds) or ""
  return nil, errors.new("LOCK_HELD", {
    message = ("the lock %q is held by another run%s"):format(name, who),
    shard_id = lease.shard_id,
    holder = holder and holder.application_name,
  })
end

--- Take a lock in a session, or say at once who has it. Yields.
-- @local
-- @tparam Lease lease which is given back when the lock cannot be had
-- @string name
-- @tparam ?number deadline
-- @treturn[1] Lock
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` (`holder`: its application_name), or why the server could not be asked
function lock.take(lease, name, deadline)
  local result, err = lease:execute("SELECT pg_try_advisory_lock(" .. KEY .. ") AS taken", { name }, { deadline = deadline })
  if result and not result.rows[1].taken then
    result, err = held(lease, name, deadline)
  end
  if not result then
    lease:release()
    return nil, err
  end
  return setmetatable({ lease = lease, name = name }, Lock)
end

--- Take a lock, or say at once who has it. Yields.
-- @tparam Manager manager initialized
-- @string name
-- @tparam[opt=10] number timeout seconds for the answer
-- @treturn[1] Lock with `release`; it ends with the task that took it, at the latest
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD`, or why the shard could not be asked
function lock.acquire(manager, name, timeout)
  local deadline = task.deadline(timeout or 10)
  local lease, err = manager.members[1].primary.pool:acquire(deadline)
  if not lease then
    return nil, err
  end
  return lock.take(lease, name, deadline)
end

--- Is the session that holds the lock still there, as far as is known?
-- @treturn boolean
function Lock:is_held()
  return self.lease:transaction_status() ~= "unknown"
end

--- Give the lock back.
function Lock:release()
  self.lease:release()
end

return lock
