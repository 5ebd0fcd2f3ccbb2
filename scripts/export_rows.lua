#!/usr/bin/env -S lunashard run
-- Unloads rows of all shards, or those of some keys, into files or to stdout. A file gets its name when it is complete.

local lunashard = require("lunashard")
local output = require("lunashard.script.output")
local script = require("lunashard.script")
local statement = require("lunashard.router.statement")
local system = require("lunashard.core.system")

local function invalid(format, ...)
  return lunashard.errors.new("INVALID", { message = format:format(...), exit_code = 1 })
end

-- The query: a table with conditions, or what was given.
local function source_of(job)
  local args = job.args
  if args.query then
    if args.table or args.columns or args.where or #args.key > 0 then
      job:usage("--query says all itself: it goes without a table, --columns, --where and --key")
    end
    return args.query
  elseif not args.table then
    job:usage("name a table, or give a query with --query")
  end
  assert(job:check_table(args.table))
  local columns = {}
  for column in (args.columns or ""):gmatch("[^,]+") do
    columns[#columns + 1] = statement.quote_ident(column)
  end
  return ("SELECT %s FROM %s%s"):format(columns[1] and table.concat(columns, ", ") or "*", job:quoted_table(args.table),
    args.where and " WHERE (" .. args.where .. "\n)" or "")
end

local function literal(text)
  return "'" .. text:gsub("'", "''") .. "'"
end

-- Keys by shard, with a query for each that names them: `{ shard_id, query }`.
local function by_key(job, source)
  local declared = job.manager.tables[job.args.table]
  local column = declared and declared.shard_key or job.manager.strategy.shard_key
  if type(column) ~= "string" then
    job:usage("--key: the shard key has several columns; use --where with --shard")
  end
  local lists, parts = {}, {}
  for _, key in ipairs(job.args.key) do
    local shard = assert(job.manager:get_shard_for_write(key, { table = declared and job.args.table or nil }))
    lists[shard.shard_id] = lists[shard.shard_id] or {}
    table.insert(lists[shard.shard_id], literal(key))
  end
  for _, shard in ipairs(job.shards) do
    local keys = lists[shard.shard_id]
    parts[#parts + 1] = keys and {
      shard_id = shard.shard_id,
      query = ("%s %s %s IN (%s)"):format(source, job.args.where and "AND" or "WHERE", statement.quote_ident(column),
        table.concat(keys, ", ")),
    } or nil
  end
  return parts
end

-- COPY's own lines are the quickest; JSON is made by the server, a row a line.
local function copy_of(job, query)
  if job.args.format == "jsonl" then
    -- COPY's text format doubles every backslash, which none of JSON's may be: CSV with a quote that JSON never has.
    return ("SELECT row_to_json(t)::text FROM (%s\n) AS t"):format(query), "jsonl"
  end
  return query, job.args.format
end

-- In the text format a backslash is written as two, and JSON has no other character that COPY escapes.
local function unescaped(write)
  return function(bytes)
    return write((bytes:gsub("\\\\", "\\")))
  end
end

local function export(job, query, shard_id, sink, header, progress)
  local source, format = copy_of(job, query)
  local is_json = format == "jsonl"
  local function put(bytes)
    progress:add(select(2, bytes:gsub("\n", "\n")))
    return sink(bytes)
  end
  return job.plain:copy_out(source, is_json and unescaped(put) or put, {
    format = is_json and "text" or format, header = header and not is_json or nil, shard_id = shard_id,
    read_only = job.args.replicas or nil,
  })
end

-- A new file under another name until it is complete.
local function open_file(path, overwrite)
  if not overwrite and system.stat(path) then
    error(invalid("%s: the file exists; --overwrite replaces it", path), 0)
  end
  local partial = path .. ".partial"
  local file, reason = io.open(partial, "wb")
  if not file then
    error(invalid("%s", reason), 0)
  end
  local self = {}
  function self.write(bytes)
    local ok, problem = file:write(bytes)
    if not ok then
      error(invalid("%s: %s", partial, problem), 0)
    end
  end
  function self.finish()
    local ok, problem = file:close()
    if ok then
      ok, problem = os.rename(partial, path)
    end
    if not ok then
      os.remove(partial)
      error(invalid("%s: %s", partial, problem), 0)
    end
  end
  function self.give_up()
    if io.type(file) == "file" then
      file:close()
    end
    os.remove(partial)
  end
  return self
end

local function to_stdout()
  return {
    write = function(bytes)
      assert(output.put(bytes))
    end,
    finish = function()
      assert(output.put("", true))
    end,
    give_up = function() end,
  }
end

-- What the sink raised is what is to be told, not that it could not be handed over.
local function cause_of(err)
  local cause = err.failed and err.failed[1] and err.failed[1].error or err
  while lunashard.errors.is(cause.cause) do
    cause = cause.cause
  end
  return cause.exit_code and cause or err.failed and err.failed[1] and err.failed[1].error or err
end

-- All shards into one sink, one after the other, so that what fails is known by its shard.
local function into_one(job, parts, sink, progress)
  local first, total = true, 0
  local ok, err = pcall(function()
    for _, part in ipairs(parts) do
      local done, problem = export(job, part.query, part.shard_id, sink.write, first and job.args.header, progress)
      if not done then
        error(cause_of(problem), 0)
      end
      first, total = false, total + done.row_count
      progress:set(total)
      job.summary:add(part.shard_id, "ok", { rows = done.row_count })
    end
    sink.finish()
  end)
  if not ok then
    sink.give_up()
    error(err, 0)
  end
end

local function file_of(job, shard_id)
  local extension = job.args.format == "text" and "txt" or job.args.format
  return ("%s/%s.%s.%s"):format(job.args.dir, job.args.table or "rows", shard_id, extension)
end

-- A file for each shard, all at once; those that are there already are left alone.
local function into_files(job, parts, progress)
  local query = {}
  for _, part in ipairs(parts) do
    query[part.shard_id] = part.query
  end
  job:each_shard(function(shard)
    if not query[shard.shard_id] then
      return "ok", { rows = 0 }
    end
    local path = file_of(job, shard.shard_id)
    if system.stat(path) and not job.args.overwrite then
      return "ok", { file = path, already_there = true }
    end
    local sink = open_file(path, true)
    local ok, done, problem = pcall(export, job, query[shard.shard_id], shard.shard_id, sink.write, job.args.header, progress)
    if not ok or not done then
      sink.give_up()
      error(ok and cause_of(problem) or done, 0)
    end
    sink.finish()
    return "ok", { file = path, rows = done.row_count }
  end)
end

return script.main({
  summary = "unload rows of the shards as CSV, COPY's text or lines of JSON",
  example = "lunashard run -c cluster.lua scripts/export_rows.lua orders --where \"created_at < '2020-01-01'\" --dir /backup",
  shards = true,
  arguments = function(parser)
    parser:argument("table", "whose rows"):args("?")
    parser:option("--columns", "only these, with commas between")
    parser:option("--where", "only rows for which this SQL condition holds")
    parser:option("--key", "only rows of this key; may be given several times"):count("*")
    parser:option("--query", "a SELECT of your own, run on each shard")
    parser:option("--format", "csv, text or jsonl", "csv"):choices({ "csv", "text", "jsonl" })
    parser:flag("--header", "csv and text: the columns' names first")
    parser:option("--output", "one file for all; - is stdout [-]")
    parser:option("--dir", "a file for each shard in this directory; one that is there is left alone, so that a run that "
      .. "was broken off goes on")
    parser:flag("--overwrite", "files may exist, and are replaced")
    parser:flag("--replicas", "read from replicas where there are any")
  end,
  run = function(job)
    local args = job.args
    if args.dir and args.output then
      job:usage("give --output or --dir, not both")
    elseif args.json and not args.dir and (args.output or "-") == "-" then
      job:usage("--json is for the summary: the rows go to --output FILE or --dir DIR")
    end
    local source, parts = source_of(job), {}
    if #args.key > 0 then
      parts = by_key(job, source)
    else
      local declared = job.manager.tables[args.table or ""]
      for i, shard in ipairs(declared and declared.reference and { job.shards[1] } or job.shards) do
        parts[i] = { shard_id = shard.shard_id, query = source }
      end
    end
    local progress = job:progress("exporting", nil, "rows")
    if args.dir then
      into_files(job, parts, progress)
    else
      local is_stdout = (args.output or "-") == "-"
      into_one(job, parts, is_stdout and to_stdout() or open_file(args.output, args.overwrite), progress)
    end
    return true
  end,
})
