#!/usr/bin/env -S lunashard run
-- How the rows of every sharded table spread over the shards, which shards have more than their share, and which keys
-- are to blame.

local script = require("lunashard.script")

-- A partitioned table is as large as its partitions; one that is not has no partition tree.
local PARTS = [[
  (SELECT coalesce(p.relid, to_regclass($1)) AS relid FROM (SELECT 1) AS one
     LEFT JOIN LATERAL pg_partition_tree(to_regclass($1)) AS p ON true WHERE p.isleaf IS NOT FALSE) AS t]]

local ESTIMATE = [[
  SELECT coalesce(sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE coalesce(s.n_live_tup, 0) END), 0)::int8 AS rows,
         coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8 AS bytes
    FROM ]] .. PARTS .. [[ JOIN pg_class c ON c.oid = t.relid LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid]]

local SIZE = "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::int8 AS bytes FROM " .. PARTS

local HOT = "SELECT concat_ws(', ', %s) AS key, count(*) AS rows FROM %s GROUP BY %s ORDER BY 2 DESC, 1 LIMIT %d"

local function ratio(text)
  local value = tonumber(text)
  if not value or value <= 1 then
    return nil, ("expected a number above 1, got %q"):format(text)
  end
  return value
end

local function whole(text)
  local value = tonumber(text)
  if not value or value < 0 or value % 1 ~= 0 then
    return nil, ("expected a whole number, got %q"):format(text)
  end
  return value
end

local function tables_of(job)
  local names = {}
  if #job.args.table > 0 then
    for i, name in ipairs(job.args.table) do
      local declared = job.manager.tables[name]
      if declared and declared.reference then
        job:usage(("%s is a reference table: every shard has all of it"):format(name))
      end
      assert(job:check_table(name))
      names[i] = name
    end
    return names
  end
  for name, declared in pairs(job.manager.tables) do
    names[#names + 1] = not declared.reference and name or nil
  end
  table.sort(names)
  if #names == 0 then
    job:usage("the cluster file declares no sharded table: name one with --table")
  end
  return names
end

local function key_columns(job, name)
  local declared = job.manager.tables[name]
  local key = declared and declared.shard_key or job.manager.strategy.shard_key
  return type(key) == "table" and key or { key }
end

local function measure(job, shard, name)
  local quoted = job:quoted_table(name)
  local row
  if job.args.exact then
    row = shard:rows(SIZE, { quoted })[1]
    row.rows = shard:rows("SELECT count(*) AS n FROM " .. quoted)[1].n
  else
    row = shard:rows(ESTIMATE, { quoted })[1]
  end
  row.table, row.shard = name, shard.shard_id
  return row
end

local function hot_keys(job, shard, name, list)
  local columns = {}
  for i, column in ipairs(key_columns(job, name)) do
    columns[i] = require("lunashard.router.statement").quote_ident(column)
  end
  local text = table.concat(columns, ", ")
  for _, row in ipairs(shard:rows(HOT:format(text, job:quoted_table(name), text, job.args.hot))) do
    row.table, row.shard = name, shard.shard_id
    list[#list + 1] = row
  end
end

-- Each shard's share beside that which its weight gives it.
local function judge(job, name, rows)
  local total, weight = 0, 0
  for _, shard in ipairs(job.manager.shards) do
    weight = weight + shard.weight
  end
  for _, row in ipairs(rows) do
    total = total + tonumber(row.rows)
  end
  local worst
  for _, row in ipairs(rows) do
    local even = assert(job.manager:member(row.shard)).info.weight / weight
    row.share_percent = total > 0 and math.floor(1000 * tonumber(row.rows) / total + 0.5) / 10 or 0
    row.times_even = total > 0 and math.floor(100 * tonumber(row.rows) / total / even + 0.5) / 100 or nil
    if row.times_even and row.times_even > job.args.max_skew and (not worst or row.times_even > worst.times_even) then
      worst = row
    end
  end
  if worst then
    job:difference()
    job:say("%s: %s has %.2f times its share of the rows", name, worst.shard, worst.times_even)
  end
  return worst
end

return script.main({
  summary = "how rows spread over the shards, and which keys make the difference",
  example = "lunashard run -c cluster.lua scripts/check_distribution.lua --table users --exact --hot 3 --exit-code",
  differences = true,
  arguments = function(parser)
    parser:option("--table", "this table; may be given several times [all that are declared as sharded]"):count("*")
    parser:flag("--exact", "count the rows; otherwise they are as the servers estimate them")
    parser:option("--hot", "show the keys with the most rows, so many of each shard; reads the tables", "0"):convert(whole)
    parser:option("--max-skew", "how many times its even share a shard may have", "1.25"):convert(ratio):target("max_skew")
  end,
  run = function(job)
    local names, found, hot = tables_of(job), {}, {}
    local progress = job:progress("tables", #names * #job.shards, "tables of shards")
    job:each_shard(function(shard)
      local own = {}
      for _, name in ipairs(names) do
        own[name] = measure(job, shard, name)
        if job.args.hot > 0 then
          hot_keys(job, shard, name, hot)
        end
        progress:add()
      end
      found[shard.shard_id] = own
      return "ok"
    end)
    local all, worst = {}, nil
    for _, name in ipairs(names) do
      local rows = {}
      for _, shard in ipairs(job.shards) do
        rows[#rows + 1] = found[shard.shard_id] and found[shard.shard_id][name] or nil
      end
      worst = judge(job, name, rows) or worst
      for _, row in ipairs(rows) do
        all[#all + 1] = row
      end
    end
    local ok, err = job:table("tables", { "table", "shard", "rows", "share_percent", "times_even", "bytes" }, all)
    if ok and job.args.hot > 0 then
      table.sort(hot, function(a, b)
        if a.table ~= b.table then
          return a.table < b.table
        end
        return tonumber(a.rows) > tonumber(b.rows)
      end)
      ok, err = job:table("hot_keys", { "table", "shard", "key", "rows" }, hot)
    end
    if worst then
      job:next("lunashard distribution -c %s --table %s", job.cluster.path, worst.table)
    end
    return ok, err
  end,
})
