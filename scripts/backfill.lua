#!/usr/bin/env -S lunashard run
-- Copies a table of one database to the shards, by batches in the order of its primary key. Where it stands is kept in a file,
-- so that a run that was broken off goes on from there; in the end both sides are compared.

local compare = require("lunashard.script.compare")
local lunashard = require("lunashard")
local pair = require("lunashard.script.pair")
local script = require("lunashard.script")
local system = require("lunashard.core.system")

local function whole(text)
  local value = tonumber(text)
  if not value or value < 1 or value % 1 ~= 0 then
    return nil, ("expected a whole number from 1, got %q"):format(text)
  end
  return value
end

local function milliseconds(text)
  local value = tonumber(text)
  if not value or value < 0 then
    return nil, ("expected a number of milliseconds, got %q"):format(text)
  end
  return value
end

local function columns_of(text)
  if not text then
    return nil
  end
  local list = {}
  for name in text:gmatch("[^,%s]+") do
    list[#list + 1] = name
  end
  return list
end

-- While a batch is written the next one is read.
local function copy(job, table_pair, state)
  local values, args = state.values, job.args
  values.copied, values.written = values.copied or 0, values.written or 0
  local progress = job:progress("copying", table_pair.estimate > 0 and table_pair.estimate or nil, "rows")
  progress:set(values.copied)
  local rows = table_pair:read(values.after, args.batch)
  while #rows > 0 do
    local after, following = table_pair:key_of(rows[#rows]), nil
    local reading = lunashard.spawn(function()
      following = table_pair:read(after, args.batch)
    end):watch()
    local ok, written = pcall(table_pair.write, table_pair, rows, args.on_conflict)
    if not ok then
      reading:cancel()
      reading:join()
      error(written, 0)
    end
    values.after, values.copied, values.written = after, values.copied + #rows, values.written + written
    assert(state:save())
    progress:set(values.copied)
    assert(reading:join())
    lunashard.sleep(args.throttle_ms / 1000)
    rows = following
  end
  job:close()
  return values
end

local function verify(job, table_pair)
  local progress = job:progress("verifying", table_pair.estimate > 0 and table_pair.estimate or nil, "rows")
  local listed = {}
  local report = compare.run(table_pair, {
    on_range = function(so_far)
      progress:set(so_far.source_rows)
    end,
    on_difference = function(one)
      if #listed < 20 then
        listed[#listed + 1] = { what = one.what, key = one.key, shard = one.shard }
      end
    end,
  })
  job:close()
  job.result.verified = report
  if report.differences == 0 then
    job:say("verified: %d rows are the same on both sides%s", report.source_rows,
      report.moving > 0 and (", %d changed meanwhile"):format(report.moving) or "")
    return true
  end
  local ok, err = job:table("differing", { "what", "key", "shard" }, listed)
  if not ok then
    return nil, err
  end
  job:next_script("dual_write_compare", "%s --from %s", job.args.table, job.args.from)
  return nil, lunashard.errors.new("INVALID", { exit_code = 1, message = ("%d rows differ: %d missing, %d extra, %d different, "
    .. "%d twice"):format(report.differences, report.missing, report.extra, report.different, report.twice) })
end

local function plan(job, table_pair, state)
  local names = {}
  for i, column in ipairs(table_pair.columns) do
    names[i] = column.name
  end
  job:say("1. read %s of about %d rows from %s, %d at a time%s", table.concat(names, ", "), table_pair.estimate, job.args.from,
    job.args.batch, state.is_resumed and (", after the key %s"):format(table.concat(state.values.after or {}, ", ")) or "")
  job:say("2. write each to the shard of its %s; rows that are there already: %s", table_pair.shard_key[1].name,
    job.args.on_conflict)
  job:say("3. %s", job.args.no_verify and "compare nothing" or "compare counts and checksums of both sides")
end

local function run(job, table_pair)
  local args = job.args
  local state = assert(job:state(args.state or ("backfill-%s.state"):format(args.table), {
    script = "backfill", table = args.table, source = system.realpath(args.from), source_table = args.source_table or args.table,
    cluster = job.cluster.name, columns = args.columns or "all",
  }, { restart = args.restart }))
  if job.dry_run then
    plan(job, table_pair, state)
    return true
  elseif state.is_resumed then
    job:say("goes on after %d rows, as %s says", state.values.copied or 0, state.path)
  end
  job:next("run the same again: it goes on where %s says", state.path) -- unless all goes well
  assert(state:save()) -- before anything is copied: can it be written?
  local values = copy(job, table_pair, state)
  job.result.copied, job.result.written = values.copied, values.written
  job:say("%d rows read, %d written%s", values.copied, values.written,
    values.copied > values.written and (" (%d were there already)"):format(values.copied - values.written) or "")
  job.next_command = nil
  local ok, err = true, nil
  if not args.no_verify then
    ok, err = verify(job, table_pair)
  end
  if ok then
    state:remove()
    for _, shard in ipairs(job.shards) do
      job.summary:add(shard.shard_id, values.written > 0 and "changed" or "ok")
    end
  end
  return ok, err
end

return script.main({
  summary = "copy a table from one database to the shards, resumable, and compare in the end",
  example = "lunashard run -c cluster.lua scripts/backfill.lua users --from old.lua --batch 2000 --throttle-ms 20",
  writes = function(args)
    return ("copy %s from %s"):format(args.table, args.from)
  end,
  lock = function(args)
    return "backfill " .. args.table
  end,
  arguments = function(parser)
    parser:argument("table", "on the shards")
    parser:option("--from", "a cluster file with one shard: the database that has the rows"):count(1)
    parser:option("--source-table", "the table's name there [the same]"):target("source_table")
    parser:option("--columns", "only these, with commas between [all that the shards have]")
    parser:option("--batch", "rows at a time", "5000"):convert(whole)
    parser:option("--throttle-ms", "pause between two batches", "0"):convert(milliseconds):target("throttle_ms")
    parser:option("--on-conflict", "a row that is there already: skip it, update it, or fail", "skip")
      :choices({ "skip", "update", "fail" }):target("on_conflict")
    parser:option("--state", "the file that says where it stands [backfill-TABLE.state]")
    parser:flag("--restart", "begin anew, whatever that says")
    parser:flag("--no-verify", "compare nothing in the end"):target("no_verify")
  end,
  run = function(job)
    local args = job.args
    local table_pair = pair.open(job, { from = args.from, table = args.table, source_table = args.source_table,
      columns = columns_of(args.columns) })
    local ok, done, err = pcall(run, job, table_pair)
    table_pair:close()
    if not ok then
      error(done, 0)
    end
    return done, err
  end,
})
