--- All rows of three shards in order.
local bare = require("bare")
local psql = require("psql")
local servers = require("servers")
local target = require("target")
local worker = require("worker")

local SQL = "SELECT user_id, name FROM users ORDER BY user_id"

local function ours(ctx)
  return worker.ours(ctx, "stream", { sql = SQL, rows = servers.USERS })
end

-- COPY is the fastest way to read it all, and nothing of it stays in psql.
local function by_fdw(ctx)
  local seconds, reason = psql.time(ctx, ctx.coordinator, ("COPY (%s) TO STDOUT"):format(SQL))
  if not seconds then
    return nil, reason
  end
  return { rate = servers.USERS / seconds, seconds = seconds }
end

local function by_asyncpg(ctx)
  return worker.python(ctx, "stream", { sql = SQL, rows = servers.USERS, prefetch = 10000 })
end

local function by_bare(ctx)
  return bare.rows(ctx, SQL, servers.USERS)
end

local WORK = ("ordered stream of %d rows of 2 columns from 3 shards, one task x 3 connections"):format(servers.USERS)

return {
  {
    name = "stream",
    needs = { "users", "coordinator" },
    measures = { { "ours", ours }, { "fdw", by_fdw, "postgres_fdw" }, { "asyncpg", by_asyncpg, "asyncpg" },
      { "bare", by_bare } },
    rows = {
      {
        name = "stream_fdw", work = WORK, unit = "per_second",
        against = "postgres_fdw MergeAppend, fetch_size 10000, psql COPY (...) TO STDOUT",
        ours = { "ours", "rate" }, peer = { "fdw", "rate" }, target = target.at_least(2),
      },
      {
        name = "stream_asyncpg", work = WORK, unit = "per_second",
        against = "asyncpg cursors (fetched 10000 at a time, ahead) and heapq.merge, uvloop",
        ours = { "ours", "rate" }, peer = { "asyncpg", "rate" }, target = target.at_least(2),
      },
      {
        name = "stream_bare", work = WORK, unit = "per_second",
        against = "what the servers give to anybody: a loop in C that skips the rows, without order",
        ours = { "ours", "rate" }, peer = { "bare", "rate" },
      },
      {
        name = "stream_memory", work = "growth of memory (RSS) during that stream", unit = "bytes",
        ours = { "ours", "growth" }, target = target.below(64 * 1024 * 1024, "< 64 MiB"),
      },
    },
  },
}
