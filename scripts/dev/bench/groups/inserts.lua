--- Inserts of one row each.
local pgbench = require("pgbench")
local psql = require("psql")
local servers = require("servers")
local target = require("target")
local worker = require("worker")

local SQL = "INSERT INTO orders (user_id, amount, note) VALUES ($1, $2, 'a note of thirty characters...')"

local function empty(ctx)
  psql.everywhere(ctx, "TRUNCATE orders; CHECKPOINT;", psql.as_superuser)
end

local function ours(ctx)
  empty(ctx)
  return worker.ours(ctx, "inserts", {
    tasks = 128, keys = servers.USERS, sql = SQL, manager = { connection_pool_size = 20 },
  })
end

local function by_pgbench(ctx)
  empty(ctx)
  local sql = SQL:gsub("$1", ":id"):gsub("$2", ":amount")
  return pgbench.run(ctx, {
    servers = ctx.servers,
    clients = 128,
    file = servers.write(ctx, "inserts.sql",
      ("\\set id random(1, %d)\n\\set amount random(1, 1000)\n%s;\n"):format(servers.USERS, sql)),
  })
end

return {
  {
    name = "inserts128",
    needs = { "orders" },
    measures = { { "ours", ours }, { "pgbench", by_pgbench, "pgbench" } },
    rows = {
      {
        name = "inserts128", work = "inserts of one row, fsync off, 3 shards, 128 tasks x at most 20 connections a shard",
        against = "pgbench -M prepared, 3 processes, 128 clients", unit = "per_second",
        ours = { "ours", "rate" }, peer = { "pgbench", "rate" }, target = target.at_least(1.5),
      },
    },
  },
}
