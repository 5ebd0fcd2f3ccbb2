--- Bulk loading.
local psql = require("psql")
local servers = require("servers")
local target = require("target")
local worker = require("worker")

local function empty(ctx)
  psql.everywhere(ctx, "TRUNCATE loads; CHECKPOINT;", psql.as_superuser)
end

local function of_file(ctx)
  empty(ctx)
  return worker.ours(ctx, "load", { rows = servers.LOADS, file = ctx.loads })
end

local function of_rows(ctx)
  empty(ctx)
  return worker.ours(ctx, "load", { rows = servers.LOADS })
end

local function by_psql(ctx)
  empty(ctx)
  local seconds, reason = psql.time(ctx, ctx.servers[1], ("\\copy loads FROM '%s'"):format(ctx.loads))
  if not seconds then
    return nil, reason
  end
  return { rate = servers.LOADS / seconds, seconds = seconds }
end

local function by_asyncpg(ctx)
  empty(ctx)
  return worker.python(ctx, "load", { rows = servers.LOADS })
end

local function by_asyncpg_routed(ctx)
  empty(ctx)
  return worker.python(ctx, "load", { rows = servers.LOADS, routes = ctx.routes })
end

local WORK = ("bulk load of %d rows of 4 columns by key into 3 shards, copy_in of "):format(servers.LOADS)

return {
  {
    name = "load",
    needs = { "users", "routes", "loads" },
    measures = {
      { "file", of_file },
      { "psql", by_psql, "psql" },
      { "rows", of_rows },
      { "asyncpg", by_asyncpg, "asyncpg" },
      { "routed", by_asyncpg_routed, "asyncpg" },
    },
    rows = {
      {
        name = "load_psql", work = WORK .. "a file", unit = "per_second",
        against = "one psql \\copy of the same file into one shard",
        ours = { "file", "rate" }, peer = { "psql", "rate" }, target = target.at_least(0.9),
      },
      {
        name = "load_asyncpg", work = WORK .. "Lua rows", unit = "per_second",
        against = "asyncpg copy_records_to_table for each shard, rows made and routed by their hash in Python, uvloop",
        ours = { "rows", "rate" }, peer = { "asyncpg", "rate" }, target = target.at_least(1.3),
      },
      {
        name = "load_asyncpg_routed", work = WORK .. "Lua rows", unit = "per_second",
        against = "the same without routing: whose a row is stands in an array already",
        ours = { "rows", "rate" }, peer = { "routed", "rate" },
      },
    },
  },
}
