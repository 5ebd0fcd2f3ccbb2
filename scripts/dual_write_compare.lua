#!/usr/bin/env -S lunashard run
-- While a program writes to its old database and to the shards: do both say the same? Counts and checksums by ranges of the
-- primary key, row by row where they differ, and with --repair the old database's rows are written to the shards again.

local compare = require("lunashard.script.compare")
local pair = require("lunashard.script.pair")
local script = require("lunashard.script")

local function whole(text)
  local value = tonumber(text)
  if not value or value < 1 or value % 1 ~= 0 then
    return nil, ("expected a whole number from 1, got %q"):format(text)
  end
  return value
end

local function seconds(text)
  local value = tonumber(text)
  if not value or value < 0 then
    return nil, ("expected a number of seconds, got %q"):format(text)
  end
  return value
end

-- Which columns say something else; not what they say.
local function columns_that_differ(table_pair, one)
  local ours, theirs = table_pair:row_of(one.columns), table_pair:row_of(one.columns, one.shard)
  local names = {}
  for _, column in ipairs(ours and theirs and table_pair.columns or {}) do
    if ours[column.name] ~= theirs[column.name] then
      names[#names + 1] = column.name
    end
  end
  return table.concat(names, ", ")
end

local REPAIRABLE = { missing = true, different = true }

local function repair(job, table_pair, found)
  local rows = {}
  for _, one in ipairs(found) do
    if REPAIRABLE[one.what] then
      rows[#rows + 1] = table_pair:row_of(one.columns)
      one.repaired = true
    end
  end
  local written = table_pair:write(rows, "update")
  job:say("wrote %d row%s of %s to the shards", written, written == 1 and "" or "s", job.args.from)
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

local function run(job, table_pair)
  local progress = job:progress("comparing", table_pair.estimate > 0 and table_pair.estimate or nil, "rows")
  local listed, to_repair, has_doubted = {}, {}, false
  local report = compare.run(table_pair, {
    chunk = job.args.chunk, settle = job.args.settle,
    on_doubt = function()
      if not has_doubted then
        job:say("something differs: it is looked at once more after %g s, for it may be a write under way", job.args.settle)
      end
      has_doubted = true
    end,
    on_range = function(so_far)
      progress:set(so_far.source_rows)
    end,
    on_difference = function(one)
      if #listed < job.args.top then
        one.where = one.what == "different" and columns_that_differ(table_pair, one) or nil
        listed[#listed + 1] = one
      end
      if job.args.repair and REPAIRABLE[one.what] then
        to_repair[#to_repair + 1] = one
      end
    end,
  })
  job:close()
  if #to_repair > 0 and not job.dry_run then
    repair(job, table_pair, to_repair)
    report = compare.run(table_pair, { chunk = job.args.chunk, settle = job.args.settle })
  end
  job:difference(report.differences)
  for name, value in pairs(report) do
    job.result[name] = value
  end
  for _, one in ipairs(listed) do
    one.mark, one.columns = nil, nil
  end
  local ok, err = job:table("differing", { "what", "key", "shard", "where" }, listed)
  job:say("%d rows in %s, %d on the shards; %d missing, %d extra, %d different, %d twice%s", report.source_rows, job.args.from,
    report.shard_rows, report.missing, report.extra, report.different, report.twice,
    report.moving > 0 and (", %d changed meanwhile"):format(report.moving) or "")
  if report.missing + report.different > 0 and not job.args.repair then
    job:next_script("dual_write_compare", "%s --from %s --repair", job.args.table, job.args.from)
  end
  return ok, err
end

return script.main({
  summary = "does a table say the same in the old database and on the shards",
  example = "lunashard run -c cluster.lua scripts/dual_write_compare.lua users --from old.lua --exit-code",
  differences = true,
  writes = function(args)
    return args.repair and ("write rows of %s to the shards"):format(args.from) or nil
  end,
  arguments = function(parser)
    parser:argument("table", "on the shards")
    parser:option("--from", "a cluster file with one shard: the old database"):count(1)
    parser:option("--source-table", "the table's name there [the same]"):target("source_table")
    parser:option("--columns", "only these, with commas between [all that the shards have]")
    parser:option("--chunk", "rows that are compared at a time", "5000"):convert(whole)
    parser:option("--settle", "seconds after which what differs is looked at once more, for writes under way", "1")
      :convert(seconds)
    parser:option("--top", "so many differing rows are listed", "20"):convert(whole)
    parser:flag("--repair", "write rows that are missing or different to the shards, as the old database has them")
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
