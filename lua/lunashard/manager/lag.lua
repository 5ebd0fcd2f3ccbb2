--- How far a replica is behind, told from what it says itself and from where its primary was when.
-- A server that lost its primary says that it has replayed all it received, and the age of the last transaction
-- says nothing while none comes: each alone misleads. A replica that has reached a position of the primary's holds
-- all that was committed before that position was seen.
-- @module lunashard.manager.lag

local lag = {}

local KEPT = 64 -- positions of a primary

local function note_primary(member, endpoint, found, now)
  local trail = member.trail
  if not trail or trail.endpoint ~= endpoint or trail.timeline ~= found.timeline then
    trail = { endpoint = endpoint, timeline = found.timeline, n = 0 }
    member.trail = trail
  end
  local last = trail[trail.n]
  if last and last.lsn == found.lsn then
    last.at = now
    return
  elseif trail.n == KEPT then
    table.remove(trail, 1)
    trail.n = KEPT - 1
  end
  trail.n = trail.n + 1
  trail[trail.n] = { lsn = found.lsn, at = now }
end

-- Seconds since the primary was last seen at a position that is replayed by now.
local function since(trail, lsn, now)
  for i = trail.n, 1, -1 do
    if trail[i].lsn <= lsn then
      return now - trail[i].at
    end
  end
  return math.huge
end

--- Fill `lag_bytes` and `lag_seconds` of an endpoint's record.
-- @tparam table member
-- @tparam table endpoint
-- @tparam table found by a probe
-- @number now on the clock of `lunashard.now`
function lag.measure(member, endpoint, found, now)
  local record = endpoint.health
  if not found.in_recovery then
    record.lag_bytes, record.lag_seconds = nil, nil
    if endpoint == member.primary and found.lsn then
      note_primary(member, endpoint, found, now)
    end
    return
  end
  local trail, lsn = member.trail, found.lsn
  if not lsn then
    record.lag_bytes, record.lag_seconds = nil, nil
    return
  end
  local newest = trail and trail[trail.n].lsn or found.received or lsn
  local caught_up = lsn >= newest and (not found.received or lsn >= found.received)
  record.lag_bytes = math.max(0, newest - lsn, (found.received or lsn) - lsn)
  if caught_up then
    record.lag_seconds = 0
  else
    local seconds = math.min(trail and since(trail, lsn, now) or math.huge, found.replay_age or math.huge)
    record.lag_seconds = seconds < math.huge and seconds or nil
  end
end

return lag
