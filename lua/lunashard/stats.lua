--- What the runtime itself has done so far.
-- @module lunashard.stats

local core = require("lunashard.core.task")

local stats = {}

--- Tasks, and turns of the loop that took too long.
-- While one task computes, or anything else does without waiting, all others stand still, and so does all that is
-- heard of servers. A turn of more than 100 ms is counted here, and said on stderr with the task that ran, by the
-- place of its function and of the wait that it came to; one line in ten seconds at the most.
-- @treturn table `tasks` and `operations` (under way), `stalls` (how many), `stalled_seconds` (in all),
--   `longest_stall` (seconds), `last_stall` (what was said of it; nil when there was none)
function stats.read()
  local counts = core.counts()
  local n, seconds, longest, last = core.stalls()
  return {
    tasks = counts.tasks,
    operations = counts.ops,
    stalls = n,
    stalled_seconds = seconds,
    longest_stall = longest,
    last_stall = last,
  }
end

return stats
