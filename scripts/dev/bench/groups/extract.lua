--- What it costs to find the key in a statement, without any server.
local cjson = require("cjson.safe")
local target = require("target")
local worker = require("worker")

local function measure(ctx)
  local result, reason = worker.run({
    argv = { worker.BINARY, "run", ctx.dir .. "/extract.lua" },
    env = { LUNASHARD_CLUSTER = false },
  })
  local figures = result and cjson.decode(result.stdout)
  if not figures then
    return nil, reason or "it printed no figures"
  end
  return {
    cached = figures.cached_ns * 1e-9,
    routed = figures.routed_ns * 1e-9,
    first = figures.first_ns * 1e-9,
  }
end

return {
  {
    name = "extract",
    measures = { { "extract", measure } },
    rows = {
      {
        name = "extract_cached", work = "find the key of a statement seen before", unit = "seconds",
        against = "and route it", ours = { "extract", "cached" }, peer = { "extract", "routed" },
        target = target.below(1e-6, "< 1 us"),
      },
      {
        name = "extract_first", work = "find the key of a new statement, by PostgreSQL's parser", unit = "seconds",
        ours = { "extract", "first" }, target = target.below(1e-3, "< 1 ms"),
      },
    },
  },
}
