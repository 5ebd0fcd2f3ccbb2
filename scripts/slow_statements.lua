#!/usr/bin/env -S lunashard run
-- Which statements take the time, over all servers of all shards: from pg_stat_statements where that is loaded, otherwise
-- by looking at what runs for a few seconds. Values are left out.

local lunashard = require("lunashard")
local normal = require("lunashard.sql.normal")
local script = require("lunashard.script")

local EXTENSION = [[
  SELECT quote_ident(n.nspname) AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
   WHERE e.extname = 'pg_stat_statements' AND current_setting('shared_preload_libraries') ~ 'pg_stat_statements']]

local STATEMENTS = [[
  SELECT query, sum(calls)::float8 AS calls, sum(total_exec_time)::float8 / 1000 AS seconds,
         max(max_exec_time)::float8 AS longest_ms, sum(rows)::float8 AS rows
    FROM %s.pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
   GROUP BY query ORDER BY 3 DESC LIMIT 500]]

local RUNNING = [[
  SELECT query, pid, extract(epoch FROM clock_timestamp() - query_start)::float8 AS seconds
    FROM pg_stat_activity
   WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database()]]

local PAUSE = 0.1 -- seconds between two looks

local function seconds(text)
  local value = tonumber(text)
  if not value or value <= 0 or value > 3600 then
    return nil, ("expected a number of seconds up to 3600, got %q"):format(text)
  end
  return value
end

local function whole(text)
  local value = tonumber(text)
  if not value or value < 1 or value % 1 ~= 0 then
    return nil, ("expected a whole number from 1, got %q"):format(text)
  end
  return value
end

local function entry_of(all, query, where)
  local text = normal.of(query)
  local entry = all[text]
  if not entry then
    entry = { statement = text, calls = 0, seconds = 0, longest_ms = 0, rows = 0, by_shard = {} }
    all[text] = entry
  end
  entry.by_shard[where] = entry.by_shard[where] or 0
  return entry
end

local function add_kept(all, where, rows)
  for _, row in ipairs(rows) do
    local entry = entry_of(all, row.query, where)
    entry.calls, entry.seconds, entry.rows = entry.calls + row.calls, entry.seconds + row.seconds, entry.rows + row.rows
    entry.longest_ms = math.max(entry.longest_ms, row.longest_ms)
    entry.by_shard[where] = entry.by_shard[where] + row.seconds
  end
end

-- A statement that is seen again in the same process, and older, is the same run of it.
local function watch(all, ask, where, how_long)
  local seen, last = {}, lunashard.now()
  local stop = last + how_long
  while true do
    local rows, err = ask(RUNNING)
    if not rows then
      return nil, err
    end
    local now, present = lunashard.now(), {}
    for _, row in ipairs(rows) do
      local entry = entry_of(all, row.query, where)
      local before = seen[row.pid]
      local is_same = before and before.query == row.query and row.seconds >= before.seconds
      entry.calls = entry.calls + (is_same and 0 or 1)
      local more = math.min(row.seconds, now - last)
      entry.seconds, entry.by_shard[where] = entry.seconds + more, entry.by_shard[where] + more
      entry.longest_ms = math.max(entry.longest_ms, row.seconds * 1000)
      present[row.pid] = row
    end
    seen, last = present, now
    if now >= stop then
      return true
    end
    lunashard.sleep(math.min(PAUSE, stop - now))
  end
end

local function look_at(job, all, endpoint)
  local function ask(sql)
    local result, err = endpoint.pool:execute(sql, nil, { deadline = lunashard.now() + 10, read_only = true, pipeline = false })
    return result and result.rows, err
  end
  local found, err = ask(EXTENSION)
  if found and found[1] and not job.args.sample then
    local rows
    rows, err = ask(STATEMENTS:format(found[1].schema))
    if not rows then
      return nil, err
    end
    add_kept(all, endpoint.shard_id, rows)
    return "pg_stat_statements"
  elseif not found then
    return nil, err
  end
  local ok
  ok, err = watch(all, ask, endpoint.shard_id, job.args.sample or 3)
  return ok and "sampled", err
end

local function ranked(all, top)
  local list, total = {}, 0
  for _, entry in pairs(all) do
    list[#list + 1] = entry
    total = total + entry.seconds
  end
  table.sort(list, function(a, b)
    return a.seconds > b.seconds or a.seconds == b.seconds and a.statement < b.statement
  end)
  for i, entry in ipairs(list) do
    local most, slowest = -1, nil
    for shard_id, time in pairs(entry.by_shard) do
      if time > most or time == most and shard_id < slowest then
        most, slowest = time, shard_id
      end
    end
    entry.share_percent = total > 0 and math.floor(1000 * entry.seconds / total + 0.5) / 10 or 0
    entry.mean_ms = entry.calls > 0 and math.floor(1e6 * entry.seconds / entry.calls + 0.5) / 1000 or nil
    entry.most_on, entry.seconds = slowest, math.floor(entry.seconds * 1000 + 0.5) / 1000
    entry.longest_ms = math.floor(entry.longest_ms * 10 + 0.5) / 10
    if i > top then
      list[i] = nil
    end
  end
  return list
end

return script.main({
  summary = "which statements take the time, over all shards",
  example = "lunashard run -c cluster.lua scripts/slow_statements.lua --top 5",
  shards = true,
  differences = true,
  arguments = function(parser)
    parser:option("--top", "how many", "10"):convert(whole)
    parser:option("--sample", "look at what runs for so many seconds, also where pg_stat_statements is loaded [3]")
      :convert(seconds)
    parser:option("--longer", "only statements of which one run took so many seconds"):convert(seconds)
    parser:flag("--primaries", "leave the replicas alone")
  end,
  run = function(job)
    local all, sources = {}, {}
    job:each_shard(function(shard)
      local member, source = assert(job.manager:member(shard.shard_id)), nil
      for _, endpoint in ipairs(job.args.primaries and { member.primary } or member.endpoints) do
        source = assert(look_at(job, all, endpoint))
      end
      sources[source] = true
      return "ok", { source = source }
    end)
    if job.args.longer then
      for text, entry in pairs(all) do
        all[text] = entry.longest_ms >= job.args.longer * 1000 and entry or nil
      end
    end
    local list = ranked(all, job.args.top)
    if sources.sampled and not job.args.sample then
      job:say("looked at what ran for 3 s; with shared_preload_libraries = 'pg_stat_statements' and CREATE EXTENSION "
        .. "pg_stat_statements the servers keep count themselves")
    end
    if job.args.longer then
      job:difference(#list)
    end
    local columns = { "seconds", "share_percent", "calls", "mean_ms", "longest_ms", "most_on", "statement" }
    return job:table("statements", columns, list)
  end,
})
