--- `lunashard repl` on a pseudo-terminal.
-- @module spec.support.repl

local cli = require("spec.support.cli")
local pty = require("spec.support.pty")

local repl = {}

local DOWN = [[
return {
  name = "down",
  shards = {
    { shard_id = "shard1", host = "127.0.0.1", port = 1, database = "app", user = "app" },
    { shard_id = "shard2", host = "127.0.0.1", port = 1, database = "app", user = "app" },
  },
  strategy = { "hash", shard_key = "user_id" },
  tables = { users = { shard_key = "user_id", type = "int8" }, countries = { reference = true } },
}
]]

-- So that what a line looks like does not depend on the state of the cluster.
local PROMPT = 'function prompt(state) return state.continuation and "   -> " or "down> " end\n'

local opened = {}

--- Start it, on a cluster without a server that answers unless the options name another. Yields.
-- @tparam[opt] table options of `pty.spawn`, and `cluster`, a path; `home`, a directory; `arguments`, more of them;
--   `prompt` to be waited for, false for none [`down> `, which it is without `cluster`]
-- @treturn Pty with `home`
function repl.start(options)
  options = options or {}
  local home = options.home or cli.directory()
  local env = { HOME = home, XDG_CONFIG_HOME = false, LUNASHARD_HISTORY = false,
    LUNASHARD_REPLRC = not options.cluster and cli.write(home, "replrc.lua", PROMPT),
    LUNASHARD_PAGER = false, PAGER = false }
  for name, value in pairs(options.env or {}) do
    env[name] = value
  end
  local cluster = options.cluster or cli.write(home, "cluster.lua", DOWN)
  local argv = { "repl" }
  if cluster ~= "" then
    argv = { "repl", "-c", cluster }
  end
  for _, argument in ipairs(options.arguments or {}) do
    argv[#argv + 1] = argument
  end
  local terminal = pty.lunashard(argv, { env = env, columns = options.columns, rows = options.rows, cwd = home })
  opened[#opened + 1] = terminal
  terminal.home = home
  if options.prompt ~= false then
    terminal:see(options.prompt or "down")
    terminal:expect("\27[J")
  end
  return terminal
end

--- Enter a line and wait until it is being run.
-- @tparam Pty terminal
-- @string text
function repl.enter(terminal, text)
  terminal:type(text .. "\r")
  terminal:expect("\27[?2004l")
end

--- Close all that were started. Yields.
function repl.close_all()
  for _, terminal in ipairs(opened) do
    terminal:close()
  end
  opened = {}
  cli.remove_all()
end

return repl
