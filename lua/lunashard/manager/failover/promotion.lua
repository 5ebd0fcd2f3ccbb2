--- Promotion by us, for those who run no Patroni or repmgr: `promote = true`.
--
-- Whoever promotes while the primary lives makes two of them, and whoever promotes a replica that is behind loses
-- what was acknowledged. So nothing is promoted unless
--
-- 1. nothing at all was heard from the primary, at all addresses of its name, for `health_check_interval` and for
--    `max_consecutive_failures` probes, the last of them right before the promotion; one that says that it is
--    starting up, or has no connection left, is there;
-- 2. every other configured endpoint of the shard answers, is a standby and a copy of this shard: the one that is
--    silent might be the one that has everything;
-- 3. none of them still receives WAL: a primary that we alone cannot reach is not gone;
-- 4. one of them has at least as much WAL, received or replayed, as each of the others, and is on no lower timeline;
-- 5. that is at least as much as the primary was last seen to have written;
-- 6. `choose_primary` does not veto.
--
-- From then on no write is sent to the old primary, also when it returns meanwhile; when it returns later it is on
-- the lower timeline and stays fenced. What the primary acknowledged after it was last probed and no replica had
-- received is lost: only synchronous replication prevents that.
-- Several programs that watch the same shard come to the same choice, for no position moves any more by then.
-- @module lunashard.manager.failover.promotion

local errors = require("lunashard.errors")
local events = require("lunashard.events")
local parallel = require("lunashard.parallel")
local policy = require("lunashard.manager.failover.policy")
local probe = require("lunashard.manager.probe")
local task = require("lunashard.task")

local promotion = {}

local TAKES_AT_MOST = 30 -- seconds from pg_promote() until the server accepts writes
local LONGEST_PAUSE = 5 -- between two attempts

--- Which standbys hold as much as there is, in configured order.
-- @tparam {table,...} found of each endpoint but the old primary: `name`; `err`, when it did not answer; `in_recovery`,
--   `streaming`, `timeline`, `lsn` and `received` (bytes), `is_foreign`
-- @tparam ?number written how far the primary was seen to have written, in bytes
-- @treturn[1] {table,...} the most advanced of `found`
-- @treturn[2] nil
-- @treturn[2] string why nobody may be promoted
function promotion.most_advanced(found, written)
  local timeline, position = 0, 0
  if #found == 0 then
    return nil, "it has no replica"
  end
  for _, one in ipairs(found) do
    if one.err then
      return nil, ("%s, which may hold more than the others, does not answer: %s"):format(one.name, one.err.message)
    elseif one.is_foreign then
      return nil, one.name .. " is no copy of this shard"
    elseif not one.in_recovery then
      return nil, one.name .. " accepts writes already"
    elseif one.streaming then
      return nil, one.name .. " still receives WAL, so its primary is not gone"
    end
    one.position = math.max(one.lsn or 0, one.received or 0)
    timeline, position = math.max(timeline, one.timeline or 0), math.max(position, one.position)
  end
  local list = {}
  for _, one in ipairs(found) do
    if one.position == position and (one.timeline or 0) == timeline then
      list[#list + 1] = one
    end
  end
  if not list[1] then
    return nil, "the replica with the most WAL is not on the latest timeline, so that none can be said to hold everything"
  elseif written and position < written then
    return nil, ("%s lacks the last %.0f bytes that the primary was seen to have written"):format(list[1].name,
      written - position)
  end
  return list
end

local function tell(manager, member, endpoint, message)
  events.emit({
    kind = "promotion",
    shard_id = member.shard_id,
    endpoint = endpoint.name,
    message = ("%s: %s"):format(member.shard_id, message),
  }, manager)
end

-- One alert for each reason, not for each attempt.
local function refuse(manager, member, state, reason)
  if state.promotion_refused ~= reason and not manager.closed then
    state.promotion_refused = reason
    tell(manager, member, member.primary, ("%s is not replaced: %s"):format(member.primary.name, reason))
  end
end

local function is_gone(manager, state, endpoint)
  local record, options = endpoint.health, manager.options
  return not state.known.refusal and record.silent_since ~= nil
    and record.misses >= options.max_consecutive_failures
    and task.now() - record.silent_since >= options.health_check_interval
end

local function examine(manager, member, state)
  local others = {}
  for _, endpoint in ipairs(member.endpoints) do
    if endpoint ~= member.primary then
      others[#others + 1] = endpoint
    end
  end
  local deadline = task.now() + manager.options.health_check_timeout
  local outcomes = parallel.each(others, function(endpoint)
    return probe.run(endpoint, deadline)
  end)
  local found = {}
  for i, endpoint in ipairs(others) do
    local one = outcomes.results[i] or { err = outcomes.errors[i] }
    one.name, one.endpoint_object = endpoint.name, endpoint
    one.is_foreign = state.known.system_identifier ~= nil and one.system_identifier ~= nil
      and one.system_identifier ~= state.known.system_identifier
    found[i] = one
  end
  return found
end

local function candidates_of(member, list)
  local candidates = {}
  for i, one in ipairs(list) do
    candidates[i] = {
      endpoint = one.name,
      host = one.endpoint_object.host,
      port = one.endpoint_object.port,
      reason = "most_advanced",
      in_recovery = true,
      timeline = one.timeline,
      lsn = one.position,
      primary = member.primary.name,
    }
  end
  return candidates
end

local function explain(endpoint, err)
  if err.sqlstate == "42501" then
    return ("promote = true, but the user may not promote %s; on the primary, in this database: GRANT EXECUTE ON "
      .. "FUNCTION pg_catalog.pg_promote(boolean, integer) TO the user of this shard"):format(endpoint.name)
  end
  return ("pg_promote() on %s failed: %s: %s"):format(endpoint.name, err.code, err.message)
end

-- The new primary is found as if somebody else had promoted it.
local function await(manager, member, endpoint)
  local monitor = require("lunashard.manager.monitor")
  local deadline = task.now() + TAKES_AT_MOST
  repeat
    monitor.check_now(manager, member)
    if manager.closed or member.primary == endpoint then
      return true
    end
    task.sleep(0.05)
  until task.now() >= deadline
  return nil, errors.new("TIMEOUT", { message = ("it did not accept writes within %d s"):format(TAKES_AT_MOST) })
end

local function promote(manager, member, state, endpoint)
  local old = member.primary
  state.promoting = ("%s is being promoted in place of %s"):format(endpoint.name, old.name)
  member.write_refusal = state.promoting
  tell(manager, member, endpoint, ("promoting %s: %s has not answered %d probes, and no replica has more WAL"):format(
    endpoint.name, old.name, old.health.misses))
  local deadline = task.now() + manager.options.connection_timeout
  local done, err = endpoint.pool:execute("SELECT pg_catalog.pg_promote(false)", nil,
    { deadline = deadline, pipeline = false })
  if done then
    done, err = await(manager, member, endpoint)
  end
  if not done then
    refuse(manager, member, state, explain(endpoint, err))
  end
end

local function attempt(manager, member, state)
  local monitor = require("lunashard.manager.monitor")
  local old = member.primary
  monitor.check_now(manager, member)
  if manager.closed or member.primary ~= old or not is_gone(manager, state, old) then
    return
  end
  local list, reason = promotion.most_advanced(examine(manager, member, state),
    state.known.owner == old.name and old.health.timeline == state.known.timeline and old.health.lsn or nil)
  if not list then
    return refuse(manager, member, state, reason)
  end
  local name = policy.choose(manager, member, candidates_of(member, list))
  if not name then
    return refuse(manager, member, state, "choose_primary does not want any of its replicas promoted")
  elseif manager.closed or member.primary ~= old or not is_gone(manager, state, old) then
    return
  end
  for _, one in ipairs(list) do
    if one.name == name then
      promote(manager, member, state, one.endpoint_object)
    end
  end
end

local MAY_PROMOTE = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_promote(boolean, integer)', 'execute') AS may"

-- A right that is missing is told of while it can still be granted: a standby takes no GRANT.
local function check_rights(manager, member)
  local result = member.primary.pool:execute(MAY_PROMOTE, nil,
    { deadline = task.now() + manager.options.connection_timeout, read_only = true, pipeline = false })
  if result and not result.rows[1].may and not manager.closed then
    tell(manager, member, member.primary, explain(member.primary, { sqlstate = "42501" }))
  end
end

local function run(manager, member, state, fn)
  state.promotion_runs = true
  task.daemon(function()
    local ok, err = pcall(fn, manager, member, state)
    state.promotion_runs, state.promoting = false, nil
    state.promote_after = task.now() + math.min(manager.options.health_check_interval, LONGEST_PAUSE)
    if not ok then
      refuse(manager, member, state, "promotion failed: " .. tostring(err))
    end
  end)
end

--- After each decision: begin a promotion when one is due, in a task of its own.
-- @tparam Manager manager with `promote = true`
-- @tparam table member
-- @tparam table state of `failover`, with `known` (the decision)
function promotion.consider(manager, member, state)
  local primary = member.primary
  if primary.health.answered then
    state.promotion_refused = nil
    if not state.rights_checked and primary.health.in_recovery == false then
      state.rights_checked = true
      run(manager, member, state, check_rights)
    end
  elseif not state.promotion_runs and is_gone(manager, state, primary)
    and task.now() >= (state.promote_after or 0) then
    run(manager, member, state, attempt)
  end
end

return promotion
