--- Standbys after a rebalance job: one that has not replayed the job's last moves is not read.
-- While guards are on, each statement asks the standby itself what that owns. When they are off, nobody does any more, and
-- a standby within `max_replica_lag` may still lack rows that have come, or show those that have gone. So all of them are
-- left alone (`endpoint.unsettled`) until they say that they own what their primaries own. While a primary cannot be
-- asked, its standbys are trusted when so much time has passed that any that is read must have replayed it all.
-- @module lunashard.catalog.standbys
-- @local

local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

local standbys = {}

local FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0 -- seconds between two looks; doubled from the first to the second
local STATE = "SELECT version, in_transition FROM lunashard.state"

-- Where lag is limited in bytes alone.
local LONG = 60 -- seconds

-- What is known of a standby's lag is as old as its last probe.
local function patience(manager, member)
  return (member.max_lag_seconds or LONG) + 1.1 * manager.options.health_check_interval + manager.options.health_check_timeout
end

local function standbys_of(member)
  local list = {}
  for _, endpoint in ipairs(member.endpoints) do
    list[#list + 1] = endpoint ~= member.primary and endpoint or nil
  end
  return list
end

local function state_of(endpoint, deadline)
  local result = endpoint.pool and endpoint.pool:execute(STATE, nil, { deadline = deadline, read_only = true })
  return result and result.rows[1]
end

-- One look at all that are not settled yet; are they now?
local function look(manager, member, off_since)
  local list = {}
  for _, endpoint in ipairs(standbys_of(member)) do
    list[#list + 1] = endpoint.unsettled and endpoint or nil
  end
  if #list == 0 then
    return true
  end
  local deadline = task.now() + manager.options.health_check_timeout
  local wanted = state_of(member.primary, deadline) -- before the standbys say theirs
  if not wanted and task.now() - off_since < patience(manager, member) then
    return false
  end
  parallel.each(list, function(endpoint)
    local own = wanted and state_of(endpoint, deadline)
    if not wanted or own and own.version == wanted.version and own.in_transition == wanted.in_transition then
      endpoint.unsettled = nil
      list[endpoint] = true
    end
    return true
  end)
  for _, endpoint in ipairs(list) do
    if not list[endpoint] then
      return false
    end
  end
  return true
end

local function settle(catalog, manager, member, off_since)
  local epoch, pause = catalog.settling, FIRST_PAUSE
  task.daemon(function()
    while not manager.closed and catalog.settling == epoch do
      local ok, settled = pcall(look, manager, member, off_since)
      if ok and settled then
        return
      end
      task.sleep(pause)
      pause = math.min(pause * 2, LONGEST_PAUSE)
    end
  end)
end

--- A map is about to be taken into use. Does not yield.
-- @tparam table catalog
-- @tparam table found the map
function standbys.note(catalog, found)
  local manager = catalog.owner.manager
  if catalog.settling == found.guard_epoch and not found.guards then
    return
  end
  catalog.settling = not found.guards and found.guard_epoch or nil
  for _, member in ipairs(manager.members) do
    local unsettled = not found.guards and found.quiet < patience(manager, member)
    for _, endpoint in ipairs(standbys_of(member)) do
      endpoint.unsettled = unsettled or nil
    end
    if unsettled and member.endpoints[2] then
      settle(catalog, manager, member, task.now() - found.quiet)
    end
  end
end

return standbys
