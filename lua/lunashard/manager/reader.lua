--- Which endpoint of a shard a read goes to.
-- @module lunashard.manager.reader

local errors = require("lunashard.errors")
local lag_limit = require("lunashard.manager.lag_limit")
local replay = require("lunashard.manager.replay")
local task = require("lunashard.task")

local reader = {}

local is_within = lag_limit.is_within

-- Seconds that a read waits for a replica to replay what it must see, where the primary could answer at once.
local PATIENCE = 0.1
-- Seconds after which a replica that was asked is given up for the moment, for another one may know.
local ANSWER = 0.5
-- Seconds between two questions to a replica that is not there yet: doubled from the first to the second.
local FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05

local function load_of(endpoint)
  local pool = endpoint.pool
  return pool and pool:load() or 0
end

-- The replica with the least to do, in turn among equals; nil when none will do.
local function least_loaded(member, seconds, bytes, avoid, tried, healthy)
  local replicas = member.replicas
  local n = #replicas
  local best, least = nil, math.huge
  member.turn = member.turn % n + 1
  for i = 0, n - 1 do
    local replica = replicas[(member.turn + i - 1) % n + 1]
    local record = replica.health
    local status = record.status
    if (status == "healthy" or not healthy and status ~= "unhealthy" and status ~= "unchecked")
      and is_within(record, seconds, bytes) and replica ~= avoid and not (tried and tried[replica])
      and not replica.unsettled then
      local load = load_of(replica)
      if load < least then
        best, least = replica, load
      end
    end
  end
  return best
end

local function choose_replica(member, seconds, bytes, avoid, tried)
  local best = least_loaded(member, seconds, bytes, avoid, tried, true)
  if not best and member.primary.health.status == "unhealthy" then
    best = least_loaded(member, seconds, bytes, avoid, tried, false)
  end
  return best
end

--- The endpoint for a read: of the healthy replicas within the limits the one with the least to do, otherwise the
-- primary; while that is down, a replica that is no better than degraded.
-- @tparam table member with at least one replica
-- @tparam ?number seconds the replica may be behind
-- @tparam ?number bytes the replica may be behind
-- @tparam ?table avoid an endpoint that it must not be
-- @treturn table endpoint; the primary also when that is to be avoided
function reader.choose(member, seconds, bytes, avoid)
  return choose_replica(member, seconds, bytes, avoid) or member.primary
end

-- One round over the replicas that will do: one that has replayed, or nil; and whether there was any.
local function find_replayed(member, seconds, bytes, avoid, position, give_up)
  local tried, any = {}, false
  while true do
    local replica = choose_replica(member, seconds, bytes, avoid, tried)
    if not replica then
      return nil, any
    end
    any, tried[replica] = true, true
    if replay.has_reached(replica, position, math.min(give_up, task.now() + ANSWER)) then
      return replica, true
    end
  end
end

--- The endpoint for a read that must see what was written up to a position. Yields.
-- A replica that has replayed it; one that soon does is waited for, and where none does, the primary it is. While
-- the primary is down, replicas have until the deadline.
-- @tparam table member
-- @tparam ?number seconds
-- @tparam ?number bytes
-- @tparam ?table avoid
-- @string position
-- @number deadline
-- @treturn[1] table endpoint
-- @treturn[2] nil
-- @treturn[2] lunashard.error `TIMEOUT`
function reader.after(member, seconds, bytes, avoid, position, deadline)
  local started, pause = task.now(), FIRST_PAUSE
  while true do
    local primary_is_up = member.primary.health.status ~= "unhealthy"
    local give_up = primary_is_up and math.min(deadline, started + PATIENCE) or deadline
    local replica, any = find_replayed(member, seconds, bytes, avoid, position, give_up)
    if replica then
      return replica
    elseif not any or primary_is_up and task.now() + pause >= give_up then
      return member.primary
    elseif task.now() + pause >= deadline then
      return nil, errors.new("TIMEOUT", {
        message = ("no replica has replayed %s in time, and the primary is down"):format(position),
        shard_id = member.shard_id,
        elapsed = task.now() - started,
      })
    end
    task.sleep(pause)
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
end

return reader
