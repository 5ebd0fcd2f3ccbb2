--- Has a replica replayed what a client has written? Asked of the replica itself, for probes are too rare for that.
-- @module lunashard.manager.replay

local errors = require("lunashard.errors")
local lsn = require("lunashard.lsn")
local task = require("lunashard.task")

local replay = {}

local REPLAYED = "SELECT pg_catalog.pg_last_wal_replay_lsn()::text AS lsn"
local INSERTED = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS lsn"

-- A server's position never goes back, unless it is rebuilt, which takes longer than these seconds.
local FRESH = 1

--- The primary's position: that of every write that it has answered, or a later one. Yields.
-- @tparam table member
-- @number timeout seconds
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function replay.written(member, timeout)
  local result, err = member.primary.pool:execute(INSERTED, nil, { deadline = task.now() + timeout, read_only = true })
  if result then
    return result.rows[1].lsn
  end
  return nil, errors.new(err.code, {
    message = "the primary cannot say up to where it has written: " .. err.message,
    sqlstate = err.sqlstate,
    retryable = err.retryable,
    shard_id = member.shard_id,
    endpoint = member.primary.name,
    cause = err,
  })
end

-- One question serves all tasks that wait for the same replica: it tells as much to each.
local function ask(endpoint, deadline)
  if endpoint.asking then
    endpoint.asking:wait(deadline)
    return
  end
  local asking = task.event()
  endpoint.asking = asking
  local ok, result = pcall(endpoint.pool.execute, endpoint.pool, REPLAYED, nil, { deadline = deadline, read_only = true })
  if ok and result then -- nil of a server that was never a standby
    endpoint.replayed, endpoint.replayed_at = result.rows[1].lsn, task.now()
  end
  endpoint.asking = nil
  asking:notify()
  if not ok then
    error(result, 0)
  end
end

local function known(endpoint, position)
  return endpoint.replayed and task.now() - endpoint.replayed_at <= FRESH and lsn.reached(endpoint.replayed, position)
end

--- Has it replayed up to there? Yields, unless that is known.
-- @tparam table endpoint
-- @string position
-- @number deadline
-- @treturn boolean false also when it did not answer
function replay.has_reached(endpoint, position, deadline)
  if not known(endpoint, position) then
    ask(endpoint, deadline)
  end
  return known(endpoint, position) or false
end

return replay
