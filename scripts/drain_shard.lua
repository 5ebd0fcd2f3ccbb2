#!/usr/bin/env -S lunashard run
-- Moves everything away from a shard, while it is read and written, and sees that nothing is left there. Broken off, it goes
-- on with `lunashard rebalance resume`.

local lunashard = require("lunashard")
local script = require("lunashard.script")

local function move(job, rebalancer, group, shard_id)
  local made, err = rebalancer:create_rebalance_job({ group = group, planner = "drain", shard = shard_id })
  local ok = made
  if made then
    job:say("group %s: %d buckets with %.0f rows leave %s, in about %.0f s", group, made.plan.buckets, made.plan.rows, shard_id,
      made.plan.estimated_seconds)
    ok, err = rebalancer:execute_job(made.job_id)
  end
  if not ok then
    if made then
      job:next("lunashard rebalance resume %d -c %s", made.job_id, job.cluster.path)
    end
    error(err, 0)
  end
  return made
end

-- Rows that are left there, by table; nobody may have written past the router.
local function rows_left(job, shard_id)
  local rows, left = {}, 0
  for name, declared in pairs(job.manager.tables) do
    if not declared.reference then
      local sql = "SELECT count(*) AS n FROM " .. job:quoted_table(name)
      local found = assert(job.plain:execute(sql, nil, { shard_id = shard_id }))
      rows[#rows + 1] = { table = name, rows = found.rows[1].n }
      left = left + found.rows[1].n
    end
  end
  table.sort(rows, function(a, b)
    return a.table < b.table
  end)
  return rows, left
end

return script.main({
  summary = "move everything away from a shard",
  example = "lunashard run -c cluster.lua scripts/drain_shard.lua shard3",
  writes = "move all rows away from a shard",
  severe = true,
  arguments = function(parser)
    parser:argument("shard", "the shard")
    parser:option("--throttle-ms", "pause after each batch of rows"):convert(tonumber):target("throttle_ms")
  end,
  run = function(job)
    local shard_id = job.args.shard
    local known, err = job.manager:member(shard_id)
    if not known then
      error(err, 0)
    elseif not job.manager.catalog then
      error(lunashard.errors.new("INVALID", { message = "the cluster has no catalog: run `lunashard cluster init`" }), 0)
    end
    local rebalancer = lunashard.rebalancer({ shard_manager = job.manager, throttle_ms = job.args.throttle_ms })
    local groups, moved = {}, 0
    for name in pairs(job.manager.catalog.groups) do
      groups[#groups + 1] = name
    end
    table.sort(groups)
    for _, group in ipairs(groups) do
      if job.dry_run then
        local plan = assert(rebalancer:plan({ group = group, planner = "drain", shard = shard_id }))
        job:say("group %s: %d buckets with %.0f rows would leave %s", group, plan.buckets, plan.rows, shard_id)
      else
        moved = moved + move(job, rebalancer, group, shard_id).total_migrated
      end
    end
    local rows, left = rows_left(job, shard_id)
    if not job.dry_run and left > 0 then
      error(lunashard.errors.new("INVALID", { message = ("%d rows are on %s yet, which no map says are there: see `lunashard "
        .. "cluster verify`"):format(left, shard_id), exit_code = 1 }), 0)
    end
    job.result.rows_moved = moved
    job.summary:add(shard_id, "ok", job.dry_run and "nothing was moved" or { rows_moved = moved })
    if job.dry_run then
      job:next("lunashard run -c %s scripts/drain_shard.lua %s", job.cluster.path, shard_id)
    else
      job:say("%s owns nothing any more: take it out of the cluster file", shard_id)
      job:next("lunashard cluster status -c %s", job.cluster.path)
    end
    return job:table("left", { "table", "rows" }, rows)
  end,
})
