--- Where a key belongs when a user's plug-in says so, without any server.
local cjson = require("cjson.safe")
local target = require("target")
local worker = require("worker")

local function measure(ctx)
  local result, reason = worker.run({
    argv = { worker.BINARY, "run", ctx.dir .. "/plugin.lua" },
    env = { LUNASHARD_CLUSTER = false },
  })
  local figures = result and cjson.decode(result.stdout)
  if not figures then
    return nil, reason or "it printed no figures"
  end
  return {
    untrusted = figures.untrusted_ns * 1e-9,
    trusted = figures.trusted_ns * 1e-9,
  }
end

return {
  {
    name = "plugin",
    measures = { { "plugin", measure } },
    rows = {
      {
        name = "plugin_untrusted", work = "route a key through a user's strategy, within limits", unit = "seconds",
        against = "the same strategy, trusted", ours = { "plugin", "untrusted" }, peer = { "plugin", "trusted" },
        target = target.below(2e-6, "<= 2 us"),
      },
      {
        name = "plugin_trusted", work = "route a key through a user's strategy that is trusted", unit = "seconds",
        ours = { "plugin", "trusted" }, target = target.below(1e-6, "<= 1 us"),
      },
    },
  },
}
