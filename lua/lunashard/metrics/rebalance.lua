--- What is measured of rows that move between shards: the latest job, as `lunashard serve` knows it.
-- @module lunashard.metrics.rebalance

local rebalance = require("lunashard.serve.rebalance")
local text = require("lunashard.metrics.text")

local metrics = {}

local STATES = { "planned", "capturing", "copying", "catchup", "fencing", "fenced", "verified", "merged", "flipped", "done",
  "aborted" }

--- Write them; nothing where no job was ever seen.
-- @tparam Writer out
-- @tparam Manager manager
function metrics.write(out, manager)
  local told = rebalance.of(manager)
  if not told then
    return
  end
  for _, one in ipairs({
    { "job", "Number of the latest job.", told.job_id },
    { "running", "1 while somebody runs it.", told.status == "running" and not told.interrupted and 1 or 0 },
    { "open", "1 until it has ended.", told.open and 1 or 0 },
    { "failed", "1 when it failed or was left by whoever ran it.", (told.status == "failed" or told.interrupted) and 1 or 0 },
    { "progress_ratio", "How much of it is done, 0 to 1.", told.progress_percent / 100 },
    { "rows", "Rows that it moves in all.", told.total_rows },
    { "rows_copied", "Rows that were copied.", told.rows_copied },
    { "rows_migrated", "Rows that have changed hands.", told.total_migrated },
    { "rows_per_second", "Rows a second since it began.", told.rate or 0 },
    { "backlog", "Changes that are yet to be carried over.", told.backlog or 0 },
    { "open_fences", "Moves whose buckets nobody can write to now.", #(told.fences or {}) },
    { "last_pause_seconds", "How long the last cutover kept statements waiting.", told.last_pause or 0 },
    { "longest_pause_seconds", "The longest such time.", told.longest_pause or 0 },
  }) do
    out:family("lunashard_rebalance_" .. one[1], "gauge", one[2])
    out:sample("", one[3])
  end
  out:family("lunashard_rebalance_moves", "gauge", "Its moves by state.")
  for _, name in ipairs(STATES) do
    out:sample(text.labels("state", name), told.moves[name] or 0)
  end
end

return metrics
