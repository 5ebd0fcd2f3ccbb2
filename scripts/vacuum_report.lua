#!/usr/bin/env -S lunashard run
-- What vacuum has left to do: dead rows by table, the age of transaction ids, and who holds vacuum up.

local script = require("lunashard.script")

local TABLES = [[
  SELECT CASE WHEN pg_table_is_visible(relid) THEN relname ELSE schemaname || '.' || relname END AS "table",
         n_live_tup AS live, n_dead_tup AS dead,
         round(100.0 * n_dead_tup / nullif(n_live_tup + n_dead_tup, 0), 1)::float8 AS dead_percent,
         to_char(greatest(last_vacuum, last_autovacuum), 'YYYY-MM-DD HH24:MI') AS vacuumed,
         to_char(greatest(last_analyze, last_autoanalyze), 'YYYY-MM-DD HH24:MI') AS analyzed
    FROM pg_stat_user_tables
   WHERE n_dead_tup >= $1 AND 100.0 * n_dead_tup >= $2 * (n_live_tup + n_dead_tup)
   ORDER BY n_dead_tup DESC LIMIT $3]]

-- Beyond autovacuum_freeze_max_age the server vacuums whatever it costs; at 2^31 it stops taking writes.
local AGES = [[
  SELECT age(datfrozenxid)::int8 AS xid_age, current_setting('autovacuum_freeze_max_age')::int8 AS freeze_at,
         pg_database_size(datname) AS bytes FROM pg_database WHERE datname = current_database()]]

-- Rows that died after these began cannot be removed yet.
local HOLDERS = [[
  SELECT 'session ' || pid AS holder, state AS what, extract(epoch FROM now() - xact_start)::int8 AS seconds
    FROM pg_stat_activity
   WHERE xact_start < now() - make_interval(secs => $1) AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
     AND datname = current_database()
  UNION ALL
  SELECT 'prepared transaction ' || gid, 'prepared', extract(epoch FROM now() - prepared)::int8
    FROM pg_prepared_xacts WHERE prepared < now() - make_interval(secs => $1) AND database = current_database()
  UNION ALL
  SELECT 'replication slot ' || slot_name, CASE WHEN active THEN 'active' ELSE 'not active' END, NULL
    FROM pg_replication_slots WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL)
   ORDER BY 3 DESC NULLS LAST LIMIT 20]]

local function with_shard(list, shard_id, rows)
  for _, row in ipairs(rows) do
    row.shard = shard_id
    list[#list + 1] = row
  end
end

local function by_shard(job, rows)
  local place = {}
  for i, shard in ipairs(job.shards) do
    place[shard.shard_id] = i
  end
  for i, row in ipairs(rows) do
    row.order = i
  end
  table.sort(rows, function(a, b)
    if a.shard ~= b.shard then
      return place[a.shard] < place[b.shard]
    end
    return a.order < b.order
  end)
  for _, row in ipairs(rows) do
    row.order = nil
  end
end

local function number(text)
  local value = tonumber(text)
  if not value or value < 0 then
    return nil, ("expected a number, 0 or more, got %q"):format(text)
  end
  return value
end

return script.main({
  summary = "what vacuum has left to do on each shard, and who holds it up",
  example = "lunashard run -c cluster.lua scripts/vacuum_report.lua --min-dead 1000 --exit-code",
  shards = true,
  differences = true,
  arguments = function(parser)
    parser:option("--min-dead", "only tables with so many dead rows", "10000"):convert(number):target("min_dead")
    parser:option("--min-percent", "and with so many of a hundred dead", "10"):convert(number):target("min_percent")
    parser:option("--min-age", "transactions that have been open for so many seconds", "300"):convert(number):target("min_age")
    parser:option("--top", "so many tables of a shard at the most", "20"):convert(number)
  end,
  run = function(job)
    local args, tables, databases, holders = job.args, {}, {}, {}
    job:each_shard(function(shard)
      local found = shard:rows(TABLES, { args.min_dead, args.min_percent, args.top })
      local held = shard:rows(HOLDERS, { args.min_age })
      local age = shard:rows(AGES)[1]
      age.percent = math.floor(100 * age.xid_age / age.freeze_at)
      with_shard(tables, shard.shard_id, found)
      with_shard(databases, shard.shard_id, { age })
      with_shard(holders, shard.shard_id, held)
      job:difference(#found + #held + (age.percent >= 90 and 1 or 0))
      return "ok", { tables = #found, holders = #held, xid_age = age.xid_age }
    end)
    for _, rows in ipairs({ tables, databases, holders }) do
      by_shard(job, rows)
    end
    local ok, err = job:table("tables", { "shard", "table", "live", "dead", "dead_percent", "vacuumed", "analyzed" }, tables)
    if ok then
      ok, err = job:table("databases", { "shard", "xid_age", "freeze_at", "percent", "bytes" }, databases)
    end
    if ok then
      ok, err = job:table("holders", { "shard", "holder", "what", "seconds" }, holders)
    end
    if holders[1] then
      job:next_script("kill_long_queries", "--idle-in-transaction %d --dry-run", args.min_age)
    elseif tables[1] then
      job:next("lunashard sql -c %s --shard %s 'VACUUM (VERBOSE) %s'", job.cluster.path, tables[1].shard, tables[1].table)
    end
    return ok, err
  end,
})
