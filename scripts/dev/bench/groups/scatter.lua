--- All shards at once.
local pgbench = require("pgbench")
local servers = require("servers")
local target = require("target")
local worker = require("worker")

local SLOW = "SELECT pg_sleep(0.02)"

local function slow(shards)
  return function(ctx)
    return worker.ours(ctx, "scatter", { sql = SLOW, shards = shards })
  end
end

local function slow_row(name, where)
  return {
    name = name, work = "scatter of a 20 ms query to " .. where .. ", one task", against = "the slowest shard alone",
    unit = "seconds", ours = { "ours", "together" }, peer = { "ours", "slowest" }, target = target.within(1.05, 0.001),
  }
end

local ROWS = 30000
local COUNT = ("SELECT count(*) AS count FROM users WHERE user_id <= %d"):format(ROWS)

local function count(ctx)
  return worker.ours(ctx, "count", { sql = COUNT, expected = ROWS })
end

-- One client of the coordinating database.
local function by_coordinator(sql)
  return function(ctx)
    return pgbench.run(ctx, {
      servers = { ctx.coordinator }, clients = 1, file = servers.write(ctx, "count.sql", sql .. ";\n"),
    })
  end
end

-- Aggregates are not pushed down through partitions; written out like this they are, and run at the same time.
local function union_of_counts()
  local parts = {}
  for i = 1, 3 do
    parts[i] = COUNT:gsub("users", "users_" .. i, 1)
  end
  return ("SELECT sum(count) FROM (%s) counts"):format(table.concat(parts, " UNION ALL "))
end

local function count_row(name, against, peer)
  return {
    name = name, work = ("scatter count of %d rows on 3 shards, one task"):format(ROWS), against = against,
    unit = "per_second", ours = { "ours", "rate" }, peer = { peer, "rate" }, target = target.faster,
  }
end

return {
  {
    name = "scatter3",
    needs = {},
    measures = { { "ours", slow() } },
    rows = { slow_row("scatter3", "3 shards") },
  },
  {
    name = "scatter16",
    needs = { "databases" },
    measures = { { "ours", slow(16) } },
    rows = { slow_row("scatter16", "16 shards (databases of one server)") },
  },
  {
    name = "count",
    needs = { "users", "coordinator", "plproxy" },
    prepare = function(ctx)
      ctx.count_sql = COUNT
    end,
    measures = {
      { "ours", count },
      { "plproxy", by_coordinator("SELECT sum(c) FROM count_users() c"), "plproxy" },
      { "fdw", by_coordinator(COUNT), "postgres_fdw" },
      { "fdw_union", by_coordinator(union_of_counts()), "postgres_fdw" },
    },
    rows = {
      count_row("count_plproxy", "PL/Proxy RUN ON ALL, pgbench -M prepared with one client", "plproxy"),
      count_row("count_fdw", "postgres_fdw partitions with async append, pgbench -M prepared with one client", "fdw"),
      count_row("count_fdw_union", "postgres_fdw, a count of each partition written out in UNION ALL", "fdw_union"),
    },
  },
}
