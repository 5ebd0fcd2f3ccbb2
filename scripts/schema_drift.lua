#!/usr/bin/env -S lunashard run
-- Where the schemas of the shards differ, object by object, and the SQL that would make them one again.

local diff = require("lunashard.schema.diff")
local lunashard = require("lunashard")
local script = require("lunashard.script")
local system = require("lunashard.core.system")

-- The model is the one that was named, or the first that can be read.
local function compare(job)
  local ids = {}
  for i, shard in ipairs(job.shards) do
    ids[i] = shard.shard_id
  end
  local schemas
  for name in (job.args.schemas or ""):gmatch("[^,]+") do
    schemas = schemas or {}
    schemas[#schemas + 1] = name
  end
  if job.args.against then
    assert(job.manager:member(job.args.against))
    return assert(diff.run(job.plain, { against = job.args.against, shard_ids = ids, schemas = schemas }))
  end
  local unreadable = {}
  for _, id in ipairs(ids) do
    local report, err = diff.run(job.plain, { against = id, shard_ids = ids, schemas = schemas })
    if report then
      return report
    end
    unreadable[#unreadable + 1] = { shard_id = id, error = err }
  end
  error(lunashard.errors.new("SHARDS_FAILED", { failed = unreadable, total = #ids, message = "no shard could be read" }), 0)
end

local function write_mend(job, shard_id, differences)
  local path = ("%s/%s.sql"):format(job.args.mend, shard_id)
  local text = ("-- Makes the schema of %s like that of the others. Read it before you run it.\n%s"):format(shard_id,
    diff.script(differences))
  local ok, reason = system.write_file(path, text, 420) -- 0644
  if not ok then
    error(lunashard.errors.new("INVALID", { message = "--mend: " .. reason, exit_code = 1 }), 0)
  end
  return path
end

return script.main({
  summary = "where the schemas of the shards differ, and what would mend it",
  example = "lunashard run -c cluster.lua scripts/schema_drift.lua --mend /tmp/mend --exit-code",
  shards = true,
  differences = true,
  arguments = function(parser)
    parser:option("--against", "the shard that is right [the first that can be read]")
    parser:option("--schemas", "only these, with commas between")
    parser:option("--mend", "write what would mend it to this directory, a file for each shard")
    parser:flag("--definitions", "show what is there and what should be, too")
  end,
  run = function(job)
    local report = compare(job)
    job.result.against, job.result.objects = report.against, report.objects
    job.summary:add(report.against, "ok", "the model")
    local rows = {}
    for _, shard in ipairs(report.shards) do
      if shard.error then
        job.summary:add(shard.shard_id, require("lunashard.script.summary").state_of(shard.error), nil, shard.error)
      else
        job.summary:add(shard.shard_id, "ok", { differences = #shard.differences })
        job:difference(#shard.differences)
        for _, one in ipairs(shard.differences) do
          rows[#rows + 1] = { shard = shard.shard_id, what = one.what, kind = one.kind, name = one.name, found = one.found,
            expected = one.expected }
        end
        if job.args.mend and #shard.differences > 0 then
          local path = write_mend(job, shard.shard_id, shard.differences)
          job:say("%s: wrote %s", shard.shard_id, path)
          job:next_script("deploy_schema", "%s --shard %s --allow-drift --dry-run", path, shard.shard_id)
        end
      end
    end
    local columns = { "shard", "what", "kind", "name" }
    if job.args.definitions then
      columns = { "shard", "what", "kind", "name", "found", "expected" }
    end
    return job:table("differences", columns, rows)
  end,
})
