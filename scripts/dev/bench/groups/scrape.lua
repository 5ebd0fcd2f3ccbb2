--- What Prometheus costs the loop, without any server.
local cjson = require("cjson.safe")
local target = require("target")
local worker = require("worker")

local function measure(ctx)
  local result, reason = worker.run({
    argv = { worker.BINARY, "run", ctx.dir .. "/scrape.lua" },
    env = { LUNASHARD_CLUSTER = false },
  })
  local figures = result and cjson.decode(result.stdout)
  if not figures then
    return nil, reason or "it printed no figures"
  end
  return { scrape = figures.scrape_ns * 1e-9 }
end

return {
  {
    name = "scrape",
    measures = { { "scrape", measure } },
    rows = {
      {
        name = "scrape", work = "write the metrics of 64 shards with a replica each", unit = "seconds",
        ours = { "scrape", "scrape" }, target = target.below(5e-3, "<= 5 ms"),
      },
    },
  },
}
