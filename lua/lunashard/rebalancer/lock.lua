--- Who may move: the holder of a session lock in the catalog's database, whose steps on the shards carry a token that
-- grows with each holder. The lock is free when its session is gone; the token keeps out a holder that was believed dead.
-- @module lunashard.rebalancer.lock

local errors = require("lunashard.errors")
local locks = require("lunashard.lock")

local lock = {}

local Mover = {}
Mover.__index = Mover

--- Name of the lock, one for all jobs, for one is open at a time.
lock.NAME = "rebalance"

--- The `application_name` of who only sees to what a mover has left closed, and is done within seconds.
lock.RECOVERY = "lunashard recovery"

local TAKE = "UPDATE lunashard_catalog.job SET token = token + 1 WHERE id = $1::bigint RETURNING token"

--- The error of a mover that is not the present one any more.
-- @tparam number job its id
-- @treturn lunashard.error
function lock.taken_over(job)
  return errors.new("LOCK_HELD", { message = ("job %.0f has been taken over by another mover"):format(job) })
end

--- Take the lock alone, for work that belongs to no job. Yields.
-- @tparam table catalog of the manager
-- @tparam ?number deadline
-- @string[opt] as the `application_name` of the holder's session
-- @treturn[1] Lock
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` naming the holder
function lock.hold(catalog, deadline, as)
  local lease, err = catalog:lease(deadline)
  if not lease then
    return nil, err
  end
  if as then
    local ok
    ok, err = lease:execute(("SET application_name = '%s'"):format(as), nil, { deadline = deadline })
    if not ok then
      lease:release()
      return nil, err
    end
  end
  return locks.take(lease, lock.NAME, deadline)
end

--- Become the one who moves for a job. Yields.
-- @tparam table catalog of the manager
-- @tparam number job its id
-- @tparam ?number deadline
-- @string[opt] as see `hold`
-- @treturn[1] table with `token`, `is_held`, `release`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` naming the holder, or why the catalog could not be asked
function lock.acquire(catalog, job, deadline, as)
  local held, err = lock.hold(catalog, deadline, as)
  if not held then
    return nil, err
  end
  local lease, result = held.lease
  result, err = lease:execute(TAKE, { job }, { deadline = deadline })
  if result and not result.rows[1] then
    err = errors.new("INVALID", { message = ("there is no rebalance job %s"):format(tostring(job)) })
  end
  if not result or not result.rows[1] then
    held:release()
    return nil, err
  end
  return setmetatable({ held = held, lease = lease, token = result.rows[1].token }, Mover)
end

--- Does its session still hold the lock? Asks the server. Yields.
-- @tparam ?number deadline
-- @treturn boolean
function Mover:is_held(deadline)
  return self.held:is_held() and self.lease:execute("SELECT 1", nil, { deadline = deadline }) ~= nil
end

--- Give the lock back.
function Mover:release()
  self.held:release()
end

return lock
