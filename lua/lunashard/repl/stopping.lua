--- What is said when a line was stopped: also which shard has not answered to that.
-- @module lunashard.repl.stopping

local task = require("lunashard.task")

local stopping = {}

local GRACE = 1 -- seconds that the shards have to answer
local LOOK = 0.02

local function loads(session)
  local list = {}
  for _, member in ipairs(session.manager and session.manager.members or {}) do
    local load = 0
    for _, endpoint in ipairs(member.endpoints) do
      load = load + (endpoint.pool and endpoint.pool:load() or 0)
    end
    list[member.shard_id] = load
  end
  return list
end

local function busy_shards(session, before)
  local busy = {}
  for shard_id, load in pairs(loads(session)) do
    if load > (before[shard_id] or 0) then
      busy[#busy + 1] = shard_id
    end
  end
  table.sort(busy)
  return busy
end

--- Look at what the shards have to do before a line runs.
-- @tparam Session session
-- @treturn table for `report`
function stopping.watch(session)
  return loads(session)
end

--- Wait until the shards have ended what they did for a line, and say who has not. Yields, for a second at the most.
-- @tparam Session session
-- @tparam table before from `watch`
function stopping.report(session, before)
  local deadline = task.now() + GRACE
  local busy = busy_shards(session, before)
  while #busy > 0 and task.now() < deadline do
    task.sleep(LOOK)
    busy = busy_shards(session, before)
  end
  session.err("cancelled" .. (#busy == 0 and "" or ("; %s did not answer: the statement may still run there"):format(
    table.concat(busy, ", "))) .. "\n")
end

return stopping
