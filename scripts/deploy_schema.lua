#!/usr/bin/env -S lunashard run
-- A schema change on all shards, with what a person would look at before and after: the shards are the same to begin with,
-- one goes first, what was done is kept so that a run that was broken off is run again, and in the end they are the same.

local apply = require("lunashard.schema.apply")
local diff = require("lunashard.schema.diff")
local lunashard = require("lunashard")
local script = require("lunashard.script")

local function invalid(format, ...)
  return lunashard.errors.new("INVALID", { message = format:format(...) })
end

local function read_plan(path)
  local file, reason = io.open(path, "rb")
  local text = file and file:read("*a") -- a directory opens, and fails here
  if file then
    file:close()
  end
  if not text then
    error(invalid("%s", reason or path .. ": cannot be read"), 0)
  end
  return assert(apply.plan(text, path:match("[^/]*$")))
end

local function whole(text)
  local value = tonumber(text)
  if not value or value < 1 or value % 1 ~= 0 then
    return nil, ("expected a whole number from 1, got %q"):format(text)
  end
  return value
end

local function options_of(job)
  local args, ids = job.args, {}
  for i, shard in ipairs(job.shards) do
    ids[i] = shard.shard_id
  end
  return { change = args.change, canary = args.canary, shard_ids = ids, parallel = args.parallel, again = args.again,
    go_on = args.go_on, lock_timeout = args.lock_timeout }
end

-- Has an earlier run of this change got to some of the shards?
local function is_resumed(preview)
  local pending
  for _, record in ipairs(preview.shards) do
    local n = record.pending and #record.pending
    if n and pending and n ~= pending then
      return true
    end
    pending = pending or n
  end
  return false
end

local function refuse_drift(job, options)
  local report = assert(diff.run(job.plain, { shard_ids = options.shard_ids }))
  if report.same then
    return
  end
  for _, shard in ipairs(report.shards) do
    for _, one in ipairs(shard.differences or {}) do
      job:say("%s: %s %s is %s there, beside %s", shard.shard_id, one.kind, one.name, one.what, report.against)
    end
  end
  job:next_script("schema_drift")
  error(lunashard.errors.new("INVALID", { exit_code = 1,
    message = "the shards' schemas differ before anything was done; mend that first, or say --allow-drift" }), 0)
end

local STATES = { changed = "changed", unchanged = "ok", pending = "ok", failed = "failed", unreachable = "unreachable",
  skipped = "skipped" }

local function tell(job, report)
  local rows = {}
  for i, record in ipairs(report.shards) do
    rows[i] = { shard = record.shard_id, outcome = record.outcome, steps = record.steps, applied = record.applied,
      pending = record.pending and #record.pending, seconds = record.duration and math.floor(record.duration * 1000) / 1000 }
    job.summary:add(record.shard_id, STATES[record.outcome], { applied = record.applied, steps = record.steps }, record.error)
    for _, name in ipairs(record.cleaned or {}) do
      job:say("%s: removed the invalid index %s", record.shard_id, name)
    end
  end
  return job:table("shards", job.dry_run and { "shard", "outcome", "steps", "pending" }
    or { "shard", "outcome", "steps", "applied", "seconds" }, rows)
end

local function show_plan(job, plan)
  local steps = {}
  for i, step in ipairs(plan.steps) do
    steps[i] = { step = step.number, line = step.line, what = step.title,
      how = step.transactional and "a transaction" or "by itself" }
  end
  return job:table("steps", { "step", "line", "how", "what" }, steps)
end

return script.main({
  summary = "apply a schema change to all shards: checked before, one shard first, checked after",
  example = "lunashard run -c cluster.lua scripts/deploy_schema.lua change.sql --canary shard1 --dry-run",
  writes = function(args)
    return "apply " .. args.file
  end,
  lock = "deploy_schema",
  shards = true,
  arguments = function(parser)
    parser:argument("file", "SQL")
    parser:option("--change", "the name under which it is kept what is done [the file's]")
    parser:option("--canary", "the shard that goes first and alone [the first]")
    parser:option("--parallel", "how many shards at a time after it [4]"):convert(whole)
    parser:option("--lock-timeout", "seconds that a statement waits for a lock, and others behind it [5]"):convert(whole)
      :target("lock_timeout")
    parser:flag("--go-on", "go on with other shards after a failure"):target("go_on")
    parser:flag("--again", "do also what is done already")
    parser:flag("--allow-drift", "the shards' schemas may differ before and after"):target("allow_drift")
  end,
  run = function(job)
    local plan, options = read_plan(job.args.file), options_of(job)
    for _, one in ipairs(apply.destroys(plan)) do
      job:say("%s:%d: this %s", plan.name, one.line, one.what)
    end
    local preview = assert(apply.preview(job.plain, plan, options))
    local resumed = is_resumed(preview)
    if resumed then
      job:say("goes on with what an earlier run of this change has left")
    elseif not job.args.allow_drift and #preview.failed == 0 then
      refuse_drift(job, options)
    end
    if job.dry_run then
      local ok, err = show_plan(job, plan)
      if not ok then
        return nil, err
      end
      return tell(job, preview)
    elseif #apply.destroys(plan) > 0 then
      job:confirm("destroy what " .. plan.name .. " says")
    end
    local progress = job:progress("steps", #plan.steps * #job.shards, "steps of shards")
    options.on_progress = function()
      progress:add()
    end
    local report = assert(apply.run(job.plain, plan, options))
    local ok, err = tell(job, report)
    if not report.complete then
      job:next("mend what failed, and run the same command again: what is done is not done twice")
    elseif ok and not job.args.allow_drift then
      local after = assert(diff.run(job.plain, { shard_ids = options.shard_ids }))
      job.result.same = after.same
      if not after.same then
        job:next_script("schema_drift")
        return nil, lunashard.errors.new("INVALID", { exit_code = 1,
          message = "all was applied, and the shards' schemas differ" })
      end
    end
    return ok, err
  end,
})
