--- What waiting costs.
local target = require("target")
local worker = require("worker")

return {
  {
    name = "idle",
    measures = {
      { "ours", function(ctx)
        return worker.ours(ctx, "idle", { tasks = 10000 })
      end },
    },
    rows = {
      {
        name = "idle", work = "memory (RSS) of a task that waits, of 10000 parked ones", unit = "bytes",
        ours = { "ours", "bytes" }, target = target.below(4096, "< 4 KiB"),
      },
    },
  },
}
