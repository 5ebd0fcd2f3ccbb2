--- What is said when a line was stopped: also which shard has not answered to that.
-- @module lunashard.repl.stopping

local task = require("lunashard.task")

local stopping = {}

local GRACE = 0.8 -- seconds that the shards have to answer; after 1 the connection is given up
local LOOK = 0.02

local function busy_shards(session)
  local busy = {}
  for _, member in ipairs(session.manager and session.manager.members or {}) do
    for _, endpoint in ipairs(member.endpoints) do
      if endpoint.pool and endpoint.pool:stats().cancelling > 0 then
        busy[#busy + 1] = member.shard_id
        break
      end
    end
  end
  return busy
end

--- Wait until the shards have ended what they did for a line, and say who has not. Yields, for a second at the most.
-- @tparam Session session
function stopping.report(session)
  local deadline = task.now() + GRACE
  local busy = busy_shards(session)
  while #busy > 0 and task.now() < deadline do
    task.sleep(LOOK)
    busy = busy_shards(session)
  end
  session.err("cancelled" .. (#busy == 0 and "" or ("; %s did not answer: the statement may still run there"):format(
    table.concat(busy, ", "))) .. "\n")
end

return stopping
