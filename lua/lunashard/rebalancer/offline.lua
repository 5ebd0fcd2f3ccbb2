--- The strategy `offline`: the buckets of a move are closed first, and copied then.
-- Nothing has to be caught up with, and no cutover is to be short: a move carries far more than a live one, and there are
-- few of them. The price is announced before the job begins, measured while it runs, and told at its end.
-- @module lunashard.rebalancer.offline

local plan = require("lunashard.rebalancer.plan")

local offline = {}

--- How much one move may carry. A key is closed for as long as its whole move takes: for some seconds with these. All of its
-- buckets are locked at once, which the server's table of locks must have room for.
-- @table LIMITS
offline.LIMITS = { rows = 200000, buckets = 1500, bytes = 512 * 2 ^ 20 }

--- The limits of a job's moves, for `plan.make`.
-- @tparam ?string strategy of the job
-- @treturn ?table nil for those of a live job
function offline.limits(strategy)
  return strategy == "offline" and offline.LIMITS or nil
end

--- Note in a plan for how long keys will be closed. Pure.
-- @tparam table made from `plan.make`; gets `strategy`, `estimated_downtime` (seconds, the longest for one key) and
--   `estimated_closed` (added up over all moves)
-- @number pause seconds that a row is slowed down by
function offline.announce(made, pause)
  made.strategy, made.estimated_downtime, made.estimated_closed = "offline", 0, 0
  for _, move in ipairs(made.moves) do
    local seconds = plan.seconds({ move }, move.rows, 1) + move.rows * pause
    made.estimated_downtime = math.max(made.estimated_downtime, seconds)
    made.estimated_closed = made.estimated_closed + seconds
  end
end

--- For how long buckets were closed. Pure.
-- @tparam {table,...} moves of the job, each `pause_seconds` once it has changed hands
-- @treturn number seconds, added up over the moves
function offline.downtime(moves)
  local seconds = 0
  for _, move in ipairs(moves) do
    seconds = seconds + (move.pause_seconds or 0)
  end
  return seconds
end

return offline
