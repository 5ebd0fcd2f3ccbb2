--- Where a key belongs, without any server.
local cjson = require("cjson.safe")
local target = require("target")
local worker = require("worker")

-- Programs that print a line of JSON for each number of shards, all in nanoseconds.
local function figures_of(argv)
  local result, reason = worker.run({ argv = argv, env = { LUNASHARD_CLUSTER = false } })
  if not result then
    return nil, reason
  end
  local figures = {}
  for line in result.stdout:gmatch("[^\n]+") do
    local one = cjson.decode(line)
    for name, ns in pairs(one or {}) do
      local way = name:match("^(.*)_ns$")
      if way then
        figures[way .. one.shards] = ns * 1e-9
      end
    end
  end
  return figures
end

local function in_c()
  return figures_of({ worker.BINARY:match("^(.*)/") .. "/bench/route_c" })
end

local function in_lua(ctx)
  return figures_of({ worker.BINARY, "run", ctx.dir .. "/route.lua" })
end

local function row_c(shards)
  return {
    name = "route_c_" .. shards, work = ("route a key in C, %d shards, keys by batch"):format(shards), unit = "seconds",
    against = "row hash and table look-up in bare C", ours = { "c", "batch" .. shards }, peer = { "c", "bare" .. shards },
    target = target.at_most(1.5),
  }
end

local function row_lua(shards)
  return {
    name = "route_lua_" .. shards, work = ("route a key from a compiled Lua trace, %d shards, one by one"):format(shards),
    unit = "seconds", ours = { "lua", "number" .. shards }, target = target.below(40e-9, "<= 40 ns"),
  }
end

return {
  {
    name = "route",
    measures = { { "c", in_c }, { "lua", in_lua } },
    rows = { row_c(16), row_c(256), row_lua(16), row_lua(256) },
  },
}
