--- Runs one measurement in a process of its own: ours in another `lunashard run`, a peer's in Python.
-- Either prints its figures as a line of JSON, the last on stdout.
local cjson = require("cjson.safe")
local process = require("lunashard.process")
local system = require("lunashard.core.system")

local worker = {}

--- The path of the program.
worker.BINARY = assert(system.realpath("/proc/self/exe"))
local TIMEOUT = 120

--- Run a program to its end. Yields.
-- @tparam table options of `lunashard.process.run`
-- @treturn[1] table its result
-- @treturn[2] nil
-- @treturn[2] string the reason, its last words included
function worker.run(options)
  options.timeout = options.timeout or TIMEOUT
  local result, err = process.run(options)
  if not result then
    return nil, err.message
  elseif result.code ~= 0 then
    local last = (result.stderr .. result.stdout):match("([^\n]+)%s*$")
    return nil, ("%s: %s"):format(options.argv[1]:match("[^/]+$"), last or "ended with code " .. tostring(result.code))
  end
  return result
end

--- Run a program that prints its figures. Yields.
-- @tparam {string,...} argv
-- @tparam[opt] table env as of `lunashard.process.run`
-- @treturn[1] table figures
-- @treturn[2] nil
-- @treturn[2] string reason
function worker.figures(argv, env)
  local result, reason = worker.run({ argv = argv, env = env or { LUNASHARD_CLUSTER = false } })
  if not result then
    return nil, reason
  end
  local figures = cjson.decode(result.stdout:match("([^\n]+)%s*$") or "")
  if not figures then
    return nil, "it printed no figures"
  end
  return figures
end

--- Measure our side. Yields.
-- @tparam table ctx
-- @string name of a file in ours/
-- @tparam table options
-- @treturn[1] table figures
-- @treturn[2] nil
-- @treturn[2] string reason
function worker.ours(ctx, name, options)
  options.cluster = ctx.cluster_file
  options.seconds = ctx.seconds
  options.warm_up = ctx.warm_up
  return worker.figures({ worker.BINARY, "run", ctx.dir .. "/ours.lua", name, cjson.encode(options) })
end

--- Measure a peer that is a Python program. Yields.
-- @tparam table ctx
-- @string name of a file in peers/
-- @tparam table options
function worker.python(ctx, name, options)
  options.servers = ctx.servers
  options.user, options.password = "app", ctx.password
  options.seconds = ctx.seconds
  options.warm_up = ctx.warm_up
  local path = ctx.work_dir .. "/options.json" -- not on the command line, for it holds the password
  assert(system.write_file(path, cjson.encode(options), 384))
  return worker.figures({ ctx.peers.asyncpg, "-B", ("%s/peers/%s.py"):format(ctx.dir, name), path })
end

return worker
