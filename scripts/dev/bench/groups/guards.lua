--- What a catalog costs, and what guards cost while rows may move.
local servers = require("servers")
local target = require("target")
local worker = require("worker")

local function ours(ctx)
  return worker.ours(ctx, "guards", { tasks = 32, keys = servers.USERS, manager = { connection_pool_size = 20 } })
end

return {
  {
    name = "guards",
    needs = { "users" },
    measures = { { "ours", ours } },
    rows = {
      {
        name = "catalog_reads", work = "point reads by primary key with a catalog and no job open, 32 tasks", unit = "per_second",
        against = "the same of a static cluster", ours = { "ours", "catalog" }, peer = { "ours", "static" },
        target = target.at_least(0.95),
      },
      {
        name = "guarded_reads", work = "point reads by primary key, each behind its guard, 32 tasks", unit = "per_second",
        against = "the same without guards", ours = { "ours", "guarded" }, peer = { "ours", "static" },
        target = target.at_least(0.3),
      },
      {
        name = "guarded_writes", work = "UPDATEs by primary key, each behind its guard, 32 tasks", unit = "per_second",
        against = "the same without guards", ours = { "ours", "guarded_writes" }, peer = { "ours", "static_writes" },
        target = target.at_least(0.6),
      },
    },
  },
}
