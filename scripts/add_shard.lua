#!/usr/bin/env -S lunashard run
-- A shard that has joined the cluster file gets its share of the rows, while these are read and written.
-- With --create-tables it first gets the tables, as they are on another shard. Broken off, it goes on with
-- `lunashard rebalance resume`.

local diff = require("lunashard.schema.diff")
local lunashard = require("lunashard")
local script = require("lunashard.script")

local function invalid(format, ...)
  error(lunashard.errors.new("INVALID", { message = format:format(...) }), 0)
end

-- The first other shard is the model.
local function model_of(job, shard_id)
  for _, shard in ipairs(job.manager.shards) do
    if shard.shard_id ~= shard_id then
      return shard.shard_id
    end
  end
  invalid("%s is the only shard of the cluster file: add it to those that there are", shard_id)
end

local function create_tables(job, shard_id)
  local model = model_of(job, shard_id)
  local report = assert(diff.run(job.plain, { against = model, shard_ids = { model, shard_id } }))
  for _, shard in ipairs(report.shards) do
    if shard.shard_id == shard_id and shard.error then
      error(shard.error, 0)
    elseif shard.shard_id == shard_id and #shard.differences > 0 then
      job:say("%d objects are made on %s as they are on %s", #shard.differences, shard_id, model)
      if not job.dry_run then
        assert(job.plain:execute_on_all_shards(diff.script(shard.differences), { shard_ids = { shard_id } }))
      end
    end
  end
end

local function show(job, plan)
  local rows = {}
  for i, one in ipairs(plan.shards) do
    rows[i] = { group = plan.group, shard = one.shard_id, buckets = one.buckets, rows = math.floor(one.rows),
      ["buckets after"] = one.buckets_after, ["rows after"] = math.floor(one.rows_after) }
  end
  assert(job:table("plan_" .. plan.group:gsub("%W", "_"), { "group", "shard", "buckets", "rows", "buckets after",
    "rows after" }, rows))
end

local function move(job, rebalancer, group)
  local made, err = rebalancer:create_rebalance_job({ group = group })
  if not made then
    error(err, 0)
  end
  show(job, made.plan)
  local bar = job:progress("job " .. made.job_id, math.max(made.total_rows, 1), "rows")
  local watcher = lunashard.spawn(function()
    while true do
      bar:set(math.min(made.rows_copied or 0, math.max(made.total_rows, 1)))
      lunashard.sleep(0.2)
    end
  end):watch()
  local ok
  ok, err = rebalancer:execute_job(made.job_id)
  watcher:cancel()
  job:close()
  if not ok then
    job:next("lunashard rebalance resume %d -c %s", made.job_id, job.cluster.path)
    error(err, 0)
  end
  return made
end

return script.main({
  summary = "give a shard that has joined the cluster file its share of the rows",
  example = "lunashard run -c cluster.lua scripts/add_shard.lua shard4 --create-tables",
  writes = "move rows to a new shard",
  arguments = function(parser)
    parser:argument("shard", "the shard, as the cluster file names it")
    parser:flag("--create-tables", "first make what is missing there, as it is on the first other shard"):target("tables")
    parser:option("--throttle-ms", "pause after each batch of rows"):convert(tonumber):target("throttle_ms")
  end,
  run = function(job)
    local shard_id = job.args.shard
    local known, err = job.manager:member(shard_id)
    if not known then
      error(err, 0)
    elseif not job.manager.catalog then
      invalid("the cluster has no catalog: run `lunashard cluster init` with the shards that there were before")
    end
    if job.args.tables then
      create_tables(job, shard_id)
    end
    local rebalancer = lunashard.rebalancer({ shard_manager = job.manager, throttle_ms = job.args.throttle_ms })
    local groups = {}
    for name in pairs(job.manager.catalog.groups) do
      groups[#groups + 1] = name
    end
    table.sort(groups)
    job.result.jobs = {}
    for i, group in ipairs(groups) do
      if job.dry_run then
        show(job, assert(rebalancer:plan({ group = group })))
      else
        local done = move(job, rebalancer, group)
        job.result.jobs[i] = { job_id = done.job_id, group = group, rows = done.total_migrated,
          seconds = done.duration_seconds, longest_pause = done.longest_pause }
        job:say("group %s: %d rows moved to %s in %.1f s; the longest pause was %.0f ms", group, done.total_migrated, shard_id,
          done.duration_seconds, (done.longest_pause or 0) * 1000)
      end
    end
    job.summary:add(shard_id, "ok", job.dry_run and "nothing was moved" or "has its share")
    job:next("lunashard %s -c %s", job.dry_run and "rebalance plan" or "cluster verify", job.cluster.path)
    return true
  end,
})
