--- What follows from the health of a shard's endpoints for where its statements go.
-- @module lunashard.manager.failover

local failover = {}

--- Look at a shard after its endpoints were probed. May yield; never called twice at a time for one member.
-- @tparam Manager manager
-- @tparam table member
function failover.consider(manager, member) -- luacheck: no unused args
  local record = member.primary.health
  if record.circuit == "closed" then
    member.write_refusal = nil
  else
    member.write_refusal = ("the primary %s is down: %s"):format(member.primary.name,
      record.last_error and record.last_error.message or "it does not answer")
  end
end

return failover
