--- Buckets that a mover closed and did not open again, because it is gone.
-- Whoever routes looks for such fences while guards are on. The lock in the catalog says whether somebody still sees to
-- the job; whoever gets it finishes the move, or gives it up where it can be. Nobody has to be woken for that. What a change
-- of ownership that was rolled back has left is mended without the lock, for its holder may stand still.
-- @module lunashard.rebalancer.recover
-- @local

local errors = require("lunashard.errors")
local fence = require("lunashard.rebalancer.fence")
local lock = require("lunashard.rebalancer.lock")
local move = require("lunashard.rebalancer.move")
local mover = require("lunashard.rebalancer.mover")
local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

local recover = {}

local PATIENCE = 5 -- seconds for a question
local GRACE = 1 -- seconds beyond what a mover may take

local OLD = [[
  SELECT job, seq FROM lunashard.move WHERE role = 'source' AND step = 'fenced'
     AND fenced_at < clock_timestamp() - make_interval(secs => $1)
  UNION ALL SELECT NULL, NULL WHERE has_table_privilege('lunashard.state', 'UPDATE') AND ]] .. fence.AHEAD

-- Of a mover that stood between these it is not known how far it came: it is cheaper to go on.
local GOES_ON = { verified = true, merged = true, flipped = true }

local STATE = "SELECT state FROM lunashard_catalog.move WHERE job = $1 AND seq = $2"

local function settle(manager, held, left)
  local context = { manager = manager, catalog = manager.catalog, token = held.token }
  local row = { job = left.job, seq = left.seq }
  local found, err = context.catalog:execute(STATE, { row.job, row.seq }, task.now() + PATIENCE)
  local ok
  if found and found.rows[1] then
    ok, err = (GOES_ON[found.rows[1].state] and move.run or move.abort)(context, row)
    if not ok and err.committed then
      ok, err = move.run(context, row)
    end
    context.catalog:note("recovered", ok and ("move %d was left closed by its mover, and is %s"):format(row.seq, row.state)
      or ("move %d was left closed by its mover: %s"):format(row.seq, tostring(err)), row.job, row.seq)
  end
  return ok, err
end

--- Look for fences that nobody sees to any more, and for epochs that are ahead, and see to them. Yields.
-- @tparam Manager manager with a catalog
-- @treturn[1] number of moves that were finished or given up
-- @treturn[2] nil
-- @treturn[2] lunashard.error the first one's that could not be
function recover.run(manager)
  local seconds, fences, failure = mover.OPTIONS.max_cutover + GRACE, {}, nil
  local looks = parallel.each(manager.members, function(member)
    return member.primary.pool:execute(OLD, { seconds }, { deadline = task.now() + PATIENCE, read_only = true })
  end)
  for i, member in ipairs(manager.members) do
    for _, left in ipairs(looks.results[i] and looks.results[i].rows or {}) do
      if left.job then
        fences[#fences + 1] = left
      else
        local ok, err = member.primary.pool:execute(fence.CATCH_UP, nil, { deadline = task.now() + PATIENCE, pipeline = false })
        failure = failure or not ok and err or nil
      end
    end
  end
  local done = 0
  for _, left in ipairs(fences) do
    local held, err = lock.acquire(manager.catalog, left.job, task.now() + PATIENCE, lock.RECOVERY)
    if held then
      local ok, settled, problem = pcall(settle, manager, held, left)
      held:release()
      if not ok then
        error(settled, 0)
      end
      done, err = done + (settled and 1 or 0), problem
    end
    if err and not errors.is(err, "LOCK_HELD") then
      failure = failure or err
    end
  end
  if failure then
    return nil, failure
  end
  return done
end

return recover
