--- Where a shard's writes go, after its endpoints were probed.
-- `decision` says who is primary and who gets no traffic, `policy` asks the user, `promotion` makes a primary when
-- none is left; here the outcome is put into the shard and told.
-- @module lunashard.manager.failover

local decision = require("lunashard.manager.failover.decision")
local events = require("lunashard.events")
local policy = require("lunashard.manager.failover.policy")
local promotion = require("lunashard.manager.failover.promotion")
local task = require("lunashard.task")

local failover = {}

-- A primary that was found to be one so recently (seconds) is not probed again because a session of it is read only.
local FRESH = 0.2

-- What follows the primary: the connection's part of a shard's public description.
local FOLLOWING = { "host", "port", "database", "user", "sslmode", "pool_size" }

-- ---- looking --------------------------------------------------------------------

local function observe(member)
  local seen = {}
  for i, endpoint in ipairs(member.endpoints) do
    local record = endpoint.health
    seen[i] = {
      name = endpoint.name,
      alive = record.answered == true,
      misses = record.misses or 0,
      in_recovery = record.in_recovery,
      timeline = record.timeline,
      system_identifier = record.system_identifier,
      started = record.started,
    }
  end
  return seen
end

local function candidate_of(member, name)
  for _, endpoint in ipairs(member.endpoints) do
    if endpoint.name == name then
      return {
        endpoint = name,
        host = endpoint.host,
        port = endpoint.port,
        reason = "promoted",
        in_recovery = false,
        timeline = endpoint.health.timeline,
        lsn = endpoint.health.lsn,
        primary = member.primary.name,
      }
    end
  end
end

-- The decision, without those whom the user does not want.
local function decide(manager, member, state)
  local limit, vetoed = manager.options.max_consecutive_failures, {}
  local asked = {}
  while true do
    local known = decision.make(state.known, observe(member), limit, vetoed)
    local name = known.primary
    if name == state.known.primary or asked[name] or not manager.options.enable_auto_failover then
      return known
    end
    -- While the user's function waits the world goes on, so what it is about is looked at again.
    asked[name] = true
    vetoed[name] = not policy.choose(manager, member, { candidate_of(member, name) }) or nil
  end
end

-- ---- telling --------------------------------------------------------------------

local function tell(manager, member, kind, endpoint, message, more)
  local event = { kind = kind, shard_id = member.shard_id, endpoint = endpoint }
  for name, value in pairs(more or {}) do
    event[name] = value
  end
  event.message = ("%s: %s"):format(member.shard_id, message)
  events.emit(event, manager)
end

local function tell_of_fences(manager, member, state, known)
  for _, endpoint in ipairs(member.endpoints) do
    local name = endpoint.name
    local fence, told = known.fenced[name], state.told[name]
    -- What was seen before the switch may be the last of the old primary; an alert is for one that is there now.
    local is_old_news = fence and fence.kind == "old_timeline" and (endpoint.health.last_probe or 0) <= state.switched
    if fence and fence.kind ~= "former" and fence.kind ~= told and not is_old_news then
      tell(manager, member, "fenced", name, ("%s gets no traffic: %s"):format(name, fence.text))
    elseif not fence and told and known.primary ~= name then
      tell(manager, member, "restored", name, name .. " is a replica again")
    end
    if not is_old_news then
      state.told[name] = fence and fence.kind or nil
    end
  end
end

local function report(manager, member, state, known)
  local before = state.known
  if known.made_anew then
    tell(manager, member, "made_anew", known.primary,
      "all endpoints are of another database cluster, or of an earlier timeline, than before; they are taken as they are")
  end
  if known.primary ~= before.primary then
    local auto = manager.options.enable_auto_failover
    tell(manager, member, "failover", known.primary,
      (auto and "%s is the primary now, in place of %s; writes go there" or
        "%s is the primary now, in place of %s, which is used all the same: enable_auto_failover is off"):format(
        known.primary, before.primary), { from = before.primary, to = known.primary })
  end
  tell_of_fences(manager, member, state, known)
  if known.refusal and known.refusal ~= before.refusal then
    tell(manager, member, known.conflict and "split_brain" or "no_primary", known.primary, known.refusal)
  elseif before.refusal and not known.refusal then
    tell(manager, member, "writes", known.primary, ("writes are accepted again, by %s"):format(known.primary))
  end
end

-- ---- acting ---------------------------------------------------------------------

local function is_same(list, other)
  for i = 1, math.max(#list, #other) do
    if list[i] ~= other[i] then
      return false
    end
  end
  return true
end

-- The description that users hold stays the same table.
local function describe(manager, member)
  local info = member.info
  for _, name in ipairs(FOLLOWING) do
    info[name] = member.primary.info[name]
  end
  local replicas = {}
  for _, endpoint in ipairs(member.endpoints) do
    if endpoint ~= member.primary then
      replicas[#replicas + 1] = endpoint.info
    end
  end
  info.replicas = replicas[1] and replicas or nil
  manager.shard_health[member.shard_id] = member.primary.health
end

local function apply(manager, member, state, known)
  local primary, replicas, fenced = member.primary, {}, {}
  for _, endpoint in ipairs(member.endpoints) do
    local fence = known.fenced[endpoint.name]
    if fence and not endpoint.fenced then
      endpoint.pool:refuse_waiting(fence.text)
    end
    fenced[endpoint] = fence and fence.text
    endpoint.fenced = fence and fence.text
    if endpoint.name == known.primary then
      primary = endpoint
    elseif not fence then
      replicas[#replicas + 1] = endpoint
    end
  end
  member.fenced = fenced
  if not is_same(member.replicas, replicas) then
    member.replicas = replicas
  end
  if primary ~= member.primary then
    member.primary.role, primary.role = "replica", "primary"
    member.primary = primary
    state.promoting = nil
    describe(manager, member)
  end
end

-- Why no write is sent now. One that is certain to fail need not wait for that.
local function refusal_of(manager, member, state)
  local record = member.primary.health
  if state.promoting then
    return state.promoting
  elseif state.known.refusal and manager.options.enable_auto_failover then
    return state.known.refusal
  elseif record.circuit ~= "closed" then
    return ("the primary %s is down: %s"):format(member.primary.name,
      record.last_error and record.last_error.message or "it does not answer")
  end
end

local function new_state(member)
  return { known = decision.new(member.primary.name), told = {}, switched = 0 }
end

--- Look at a shard after its endpoints were probed. Yields. Never called twice at a time for one member.
-- Sets the member's `primary`, `replicas`, `fenced` (endpoint -> why), `write_refusal`, and `halted`: why also
-- transactions that are open must not commit. With `enable_auto_failover = false` it only reports.
-- @tparam Manager manager
-- @tparam table member
function failover.consider(manager, member)
  member.failover = member.failover or new_state(member)
  local state = member.failover
  local known = decide(manager, member, state)
  if manager.closed or member.monitor.stopped then
    return
  end
  if known.primary ~= state.known.primary then
    state.switched = member.primary.health.last_probe or 0
  end
  report(manager, member, state, known)
  state.known = known
  if manager.options.enable_auto_failover then
    apply(manager, member, state, known)
    local halted = state.promoting or known.refusal
    if halted and not member.halted then
      member.primary.pool:refuse_waiting(halted)
    end
    member.halted = halted
  end
  member.write_refusal = refusal_of(manager, member, state)
  if manager.options.promote and manager.options.enable_auto_failover then
    promotion.consider(manager, member, state)
  end
end

--- The endpoints of a shard were configured anew.
-- @tparam Manager manager
-- @tparam table member with its new `endpoints` and `primary`
-- @string configured name of the endpoint that is primary by the configuration
function failover.reconfigured(manager, member, configured)
  local known = member.failover and member.failover.known
  if known then
    known.configured = configured
    if known.primary ~= member.primary.name then -- another address, or the choice of who edits the file
      known.primary = member.primary.name
      known.owner = known.owner and known.primary
      known.fenced[known.primary] = nil
    end
  end
  describe(manager, member)
end

-- Probe a shard, unless that has just been done for the same reason.
local function check(manager, member)
  if member.primary.health.in_recovery ~= false or task.now() - (member.checked_at or -FRESH) >= FRESH then
    require("lunashard.manager.monitor").check_now(manager, member)
    member.checked_at = task.now()
  end
end

--- An endpoint has refused a write as read only: is somebody else the primary? Yields until the shard was probed.
-- @tparam Manager manager
-- @tparam table member
-- @tparam table endpoint
-- @tparam ?number deadline
-- @treturn boolean
function failover.moved(manager, member, endpoint, deadline)
  if member.primary == endpoint then
    task.daemon(check, manager, member):join(deadline and math.max(0, deadline - task.now()))
  end
  return member.primary ~= endpoint
end

--- A statement met a primary that is not what it was, or is not there: probe the shard, without waiting for that.
-- @tparam Manager manager
-- @tparam table member
-- @number[opt=0.2] fresh seconds for which a probe made for such a reason is good
function failover.suspect(manager, member, fresh)
  if not member.is_checked and task.now() - (member.checked_at or -math.huge) >= (fresh or FRESH) then
    member.is_checked = true
    task.daemon(function()
      check(manager, member)
      member.is_checked = false
    end)
  end
end

--- Why a transaction that writes must not go on where it is: what it commits there would be lost.
-- @tparam table member
-- @tparam table endpoint
-- @treturn ?string
function failover.objection(member, endpoint)
  if member.primary ~= endpoint then
    return ("%s is not the primary any more, %s is"):format(endpoint.name, member.primary.name)
  end
  return member.halted
end

return failover
