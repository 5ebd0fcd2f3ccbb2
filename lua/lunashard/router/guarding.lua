--- Statements while rows may move: each behind a guard, and again when that refuses.
-- Nothing of this is needed while no rebalance job is open and the catalog knows us (`manager.guarding` is false):
-- statements go without a guard then, but say by which generation of the map they were routed, so that none of them is
-- sent after the map has changed, or the promise to the catalog has run out (see `lunashard.catalog.lease`).
--
-- `under` is what a statement relies on, here and in all parts of the router: a guard (see
-- `lunashard.router.guards`), the number of a generation, or @{EXEMPT}: it touches nothing that moves.
--
--    error                        means                                          what follows
--    STALE_MAP, from our side     not sent, or the answer of a read dropped      it is routed anew
--    LS001                        the guard refused: nothing ran                 the map is refreshed; when that brings
--                                                                                nothing new, a cutover is waited for
--    LS003                        a write without guard during a job: it did     it is guarded
--                                 nothing
--
-- Whoever waits for a cutover does so until the statement's deadline, and no more than `max_waiters` at a time.
-- @module lunashard.router.guarding

local errors = require("lunashard.errors")
local guards = require("lunashard.router.guards")
local lease = require("lunashard.catalog.lease")
local task = require("lunashard.task")

local guarding = {}

local now = task.now

--- What a statement relies on that touches nothing that moves.
guarding.EXEMPT = 0

local REFUSED = { LS001 = true, LS003 = true }
-- Seconds between two tries during a cutover: from the first to the second, half as long again each time.
local FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.05
-- So many times in a row it is routed anew at once.
local AT_ONCE = 3
local REFRESH_TIMEOUT = 2 -- seconds
local LEAST = 0.01 -- seconds that a try should have

--- Is it certain that nothing was done, for want of the right map or guard?
-- @tparam lunashard.error err
-- @treturn boolean
function guarding.is_stale(err)
  return err.code == "STALE_MAP" or err.code == "SQL" and REFUSED[err.sqlstate] == true
end

local is_stale = guarding.is_stale

--- The first of failed shards that has to do with the map.
-- @tparam {table,...} failed as `SHARDS_FAILED` has them
-- @treturn ?lunashard.error
function guarding.stale_among(failed)
  for _, one in ipairs(failed) do
    if is_stale(one.error) then
      return one.error
    end
  end
end

local function gave_up(manager, state, deadline, err)
  local why = "%s, and the map that would be right could not be had in %.3g s"
  if state.refused then
    why = "%s; not waited for, since %d statements do so already (max_waiters)"
  end
  return nil, errors.new("STALE_MAP", {
    message = why:format(err.message, state.refused and manager.waiting_for_map or now() - state.started),
    shard_id = err.shard_id,
    endpoint = err.endpoint,
    detail = err.detail,
    elapsed = now() - state.started,
    cause = state.refresh_error or err,
    deadline_passed = deadline ~= nil,
  })
end

-- The map is refreshed; true when there may be something new in it since the try began.
local function refresh(manager, state, deadline)
  local catalog = manager.catalog
  local ok, err = catalog:refresh(math.min(deadline or math.huge, now() + REFRESH_TIMEOUT))
  state.refresh_error = not ok and err or nil
  return ok and catalog.map ~= state.map
end

-- Until another map is in use than the one of this try.
local function wait_for_map(catalog, state, until_then)
  repeat
    local woken = catalog.changed:wait(until_then)
  until not woken or catalog.map ~= state.map
end

local function pause(manager, state, deadline)
  if (manager.waiting_for_map or 0) >= manager.options.max_waiters then
    state.refused = true
    return false
  end
  state.pause = math.min(state.pause and state.pause * 1.5 or FIRST_PAUSE, LONGEST_PAUSE)
  if deadline and now() + state.pause + LEAST >= deadline then
    return false
  end
  manager.waiting_for_map = (manager.waiting_for_map or 0) + 1
  local ok, err = pcall(wait_for_map, manager.catalog, state, now() + state.pause)
  manager.waiting_for_map = manager.waiting_for_map - 1
  if not ok then
    error(err, 0)
  end
  return not deadline or now() + LEAST / 2 < deadline
end

-- After a refusal, until it is worth another try; nil and an error when it is not.
local function settle(manager, state, deadline, err)
  state.tries = state.tries + 1
  if manager.closed then
    return nil, err
  elseif err.code == "STALE_MAP" and not state.guarded then
    lease.check(manager)
    if state.tries <= AT_ONCE then
      return true
    end
  elseif err.sqlstate == "LS003" then
    return not state.guarded or nil, err
  elseif refresh(manager, state, deadline) and state.tries <= AT_ONCE then
    return true
  elseif err.code == "STALE_MAP" and not err.sqlstate and state.tries > AT_ONCE then -- whose it is cannot be found out now
    return nil, err
  end
  if not pause(manager, state, deadline) then
    return gave_up(manager, state, deadline, err)
  end
  return true
end

--- Do something under the map as it is, and again when that turns out not to be so. Yields.
-- @tparam Manager manager
-- @tparam ?number deadline
-- @tparam func fn called with whether guards are needed; what it returns is returned unless that is nil and an error that
--   @{is_stale}. Such an error must mean that nothing was done.
-- @tparam[opt] lunashard.error refused what has been refused already
-- @return what fn returned; `STALE_MAP` when it cannot be had before the deadline
function guarding.through(manager, deadline, fn, refused)
  local state = { tries = 0, started = now(), guarded = false }
  while true do
    if refused then
      local ok, why_not = settle(manager, state, deadline, refused)
      if not ok then
        return nil, why_not
      end
    end
    -- Once refused a guard, whatever we believe of jobs.
    state.guarded = manager.catalog ~= nil and (manager.guarding or state.tries > 0)
    state.map = manager.catalog and manager.catalog.map
    local value, err, extra = fn(state.guarded)
    if value ~= nil or not (manager.catalog and errors.is(err) and is_stale(err)) then
      return value, err, extra
    end
    refused = err
  end
end

--- Is a shard in the cluster file and not in the catalog? It owns nothing then, and has no guards. Before rows can come
-- there, all who route must have read a map that names it.
-- @tparam Manager manager with a catalog
-- @string shard_id
-- @treturn boolean
function guarding.is_absent(manager, shard_id)
  local map = manager.catalog.map
  if map.shards[shard_id] or map.joined[shard_id] ~= nil then
    return false
  end
  for _, silent in ipairs(map.silent or {}) do
    if silent == shard_id then
      return false
    end
  end
  return true
end

--- What a statement for all of a shard relies on. Does not yield.
-- @tparam Manager manager
-- @tparam table member
-- @treturn table|number under
function guarding.whole(manager, member)
  return guarding.is_absent(manager, member.shard_id) and guarding.EXEMPT or guards.shard(manager, member)
end

--- What a statement for keys relies on. Yields when a directory has to be asked.
-- @tparam Manager manager
-- @tparam boolean guarded
-- @tparam table member
-- @tparam ?string table_name
-- @param key nil: it is for the whole shard
-- @treturn[1] table|number under
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function guarding.under(manager, guarded, member, table_name, key)
  if not guarded then
    return manager.generation
  elseif key == nil then
    return guarding.whole(manager, member)
  end
  return guards.keys(manager, member, table_name, { key })
end

--- What a statement for some whole shards relies on: the same map for all of them. Does not yield.
-- @tparam Manager manager
-- @tparam boolean guarded
-- @tparam {table,...} members
-- @treturn func from a member to what its part relies on
function guarding.under_all(manager, guarded, members)
  local generation, by_member = manager.generation, {}
  for _, member in ipairs(guarded and members or {}) do
    by_member[member] = guarding.whole(manager, member)
  end
  return function(member)
    return by_member[member] or generation
  end
end

--- The error for what was routed by a map that has changed meanwhile.
-- @treturn nil
-- @treturn lunashard.error `STALE_MAP`
function guarding.changed()
  return nil, errors.new("STALE_MAP", { message = "the shard map changed while the statement was routed" })
end

--- Refuse what cannot be guarded.
-- @tparam Manager manager
-- @string what
-- @treturn nil
-- @treturn lunashard.error `JOB_OPEN`
function guarding.refusal(manager, what)
  return nil, errors.new("JOB_OPEN", {
    message = ("%s while rows are being moved%s"):format(what,
      manager.catalog.guards and "" or ", and whether they are the catalog cannot be asked now"),
  })
end

return guarding
