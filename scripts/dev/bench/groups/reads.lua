--- Point reads by primary key.
local bare = require("bare")
local pgbench = require("pgbench")
local pgbouncer = require("pgbouncer")
local servers = require("servers")
local target = require("target")
local worker = require("worker")

local POOL = 20

local function ours(tasks, more)
  return function(ctx)
    local options = { tasks = tasks, keys = servers.USERS, manager = { connection_pool_size = POOL } }
    for name, value in pairs(more or {}) do
      options[name] = value
    end
    return worker.ours(ctx, "reads", options)
  end
end

local function by_pgbench(clients, more)
  return function(ctx)
    local options = {
      servers = ctx.servers,
      clients = clients,
      file = servers.write(ctx, "reads.sql", ("\\set id random(1, %d)\nSELECT * FROM users_local WHERE user_id = :id;\n")
        :format(ctx.local_keys)),
    }
    for name, value in pairs(more or {}) do
      options[name] = value
    end
    return pgbench.run(ctx, options)
  end
end

-- Its version 1.18 cannot keep prepared statements in transaction pooling.
local function through_pgbouncer(clients)
  return function(ctx)
    return pgbouncer.with(ctx, POOL, function(seen)
      return by_pgbench(clients, { servers = seen, protocol = "extended" })(ctx)
    end)
  end
end

local function by_asyncpg(ctx)
  return worker.python(ctx, "reads", { tasks = 32, connections = 32, keys = servers.USERS, routes = ctx.routes })
end

local function by_bare(in_flight, own_syncs)
  return function(ctx)
    return bare.reads(ctx, in_flight, own_syncs)
  end
end

local function counting(ctx)
  local figures, reason = worker.figures({ worker.BINARY, "run", ctx.dir .. "/counting.lua" })
  return figures and { statement = figures.statement_ns * 1e-9 }, reason
end

local PGBENCH_32 = "pgbench -M prepared, 3 processes, 32 clients"
local PGBENCH_128 = "pgbench -M prepared, 3 processes, 128 clients"
local WORK = "point reads by primary key, 3 shards, %d tasks x at most 20 connections a shard"
local BARE = "what the servers give to anybody: %d such reads in flight from a loop in C that skips the answers%s"

return {
  {
    name = "reads32",
    needs = { "users", "routes" },
    measures = {
      { "ours", ours(32) },
      { "pgbench", by_pgbench(32, { cpu = true }), "pgbench" },
      { "asyncpg", by_asyncpg, "asyncpg" },
      { "bare", by_bare(32) },
      { "counting", counting },
    },
    rows = {
      {
        name = "reads32", work = WORK:format(32), against = PGBENCH_32, unit = "per_second",
        ours = { "ours", "rate" }, peer = { "pgbench", "rate" }, target = target.at_least(1.8),
      },
      {
        name = "reads32_asyncpg", work = WORK:format(32), unit = "per_second",
        against = "asyncpg on uvloop, 3 pools, 32 connections, routed by a table look-up, 32 tasks",
        ours = { "ours", "rate" }, peer = { "asyncpg", "rate" }, target = target.at_least(20),
      },
      {
        name = "reads32_bare", work = WORK:format(32), against = BARE:format(32, ""), unit = "per_second",
        ours = { "ours", "rate" }, peer = { "bare", "rate" },
      },
      {
        name = "cpu32", work = "CPU of the process for a point read, 32 tasks", against = PGBENCH_32, unit = "seconds",
        ours = { "ours", "cpu" }, peer = { "pgbench", "cpu" }, target = target.at_most(0.5),
      },
      {
        name = "counting", work = "count a statement for the metrics", against = "the CPU of a point read, 32 tasks",
        unit = "seconds", ours = { "counting", "statement" }, peer = { "ours", "cpu" }, target = target.at_most(0.02),
      },
    },
  },
  {
    name = "latency32",
    needs = { "users" },
    measures = { { "ours", ours(32, { latencies = true }) }, { "pgbench", by_pgbench(32, { latencies = true }), "pgbench" } },
    rows = {
      {
        name = "p99_32", work = "99th percentile of the latency of a point read, 32 tasks", against = PGBENCH_32,
        unit = "seconds", ours = { "ours", "p99" }, peer = { "pgbench", "p99" }, target = target.at_most(1),
      },
    },
  },
  {
    name = "reads128",
    needs = { "users" },
    measures = {
      { "ours", ours(128) },
      { "pgbench", by_pgbench(128), "pgbench" },
      { "unbatched", ours(128, { manager = { connection_pool_size = POOL, read_batches = false } }) },
      { "pgbouncer", through_pgbouncer(128), "pgbouncer" },
      { "bare_syncs", by_bare(128, true) },
    },
    rows = {
      {
        name = "reads128", work = WORK:format(128), against = PGBENCH_128, unit = "per_second",
        ours = { "ours", "rate" }, peer = { "pgbench", "rate" }, target = target.at_least(3.5),
      },
      {
        name = "reads128_syncs", work = WORK:format(128) .. ", each with its own Sync (read_batches = false)",
        against = PGBENCH_128, unit = "per_second",
        ours = { "unbatched", "rate" }, peer = { "pgbench", "rate" }, target = target.at_least(1.8),
      },
      {
        name = "reads128_syncs_bare", work = WORK:format(128) .. ", each with its own Sync (read_batches = false)",
        against = BARE:format(128, ", each with its own Sync"), unit = "per_second",
        ours = { "unbatched", "rate" }, peer = { "bare_syncs", "rate" },
      },
      {
        name = "reads128_pgbouncer", work = WORK:format(128), unit = "per_second",
        against = "pgbench -M extended, 3 processes, 128 clients through one pgbouncer, pools of 20",
        ours = { "ours", "rate" }, peer = { "pgbouncer", "rate" },
      },
    },
  },
}
