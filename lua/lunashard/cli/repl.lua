--- `lunashard repl`: Lua and SQL on a live cluster, at a prompt or from a pipe.
-- @module lunashard.cli.repl

local batch = require("lunashard.repl.batch")
local bit = require("bit")
local cli = require("lunashard.cli")
local client = require("lunashard.attach.client")
local console = require("lunashard.repl.console")
local errors = require("lunashard.errors")
local sessions = require("lunashard.repl.session")
local system = require("lunashard.core.system")
local terminal = require("lunashard.core.terminal")

local command = {}

local GROUP_OR_WORLD_WRITABLE = 18 -- 0022

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:option("-c --cluster", "cluster file; without one a sandbox is offered [LUNASHARD_CLUSTER]")
  parser:option("--attach", "work inside the process that `lunashard serve` is, through its socket; the cluster is its own")
    :argname("<socket>")
  parser:epilog("At the prompt \\help lists what there is beside Lua and SQL; TAB completes, Ctrl-R searches, Ctrl-C stops what\n"
    .. "runs, Ctrl-D leaves. From a pipe or a file each statement is run, up to the first that fails.\n\n"
    .. "Example:\n  lunashard repl -c cluster.lua\n  echo 'SELECT count(*) FROM users;' | lunashard repl -c cluster.lua\n\n"
    .. "LUNASHARD_HISTORY   file of what was entered [~/.lunashard_history]; empty for none\n"
    .. "LUNASHARD_REPLRC    Lua that is run first [~/.config/lunashard/replrc.lua]; `function prompt(state)` there\n"
    .. "                    makes the prompt\n"
    .. "LUNASHARD_PAGER     or PAGER: what shows long results [less]")
end

local function rc_path()
  local given = os.getenv("LUNASHARD_REPLRC")
  if given then
    return given ~= "" and given or nil
  end
  local config, home = os.getenv("XDG_CONFIG_HOME"), os.getenv("HOME")
  local dir = config and config ~= "" and config or home and home .. "/.config"
  local path = dir and dir .. "/lunashard/replrc.lua"
  return path and system.stat(path) and path or nil
end

-- The user's own settings. What is wrong with them is said, and no reason not to begin.
local function load_rc(session)
  local path = rc_path()
  if not path then
    return
  end
  local real, reason = system.realpath(path)
  local info = real and system.stat(real)
  if not info then
    cli.say("repl: %s", reason)
  elseif bit.band(info.mode, GROUP_OR_WORLD_WRITABLE) ~= 0 then
    cli.say("repl: %s is not run: others may write it (mode %03o); chmod go-w it", path, info.mode)
  else
    local chunk, problem = loadfile(real, "t", session.env)
    local ok
    if chunk then
      ok, problem = pcall(chunk)
    end
    if not ok then
      cli.say("repl: %s", tostring(problem))
    end
  end
end

local function open_cluster(path)
  local cluster, err = require("lunashard").open(path, { protect = true })
  if not cluster then
    return nil, err
  end
  local count = #cluster.manager.shards
  cli.say("cluster %s (%s), %d shard%s", cluster.name or "without a name", path, count, count == 1 and "" or "s")
  if cluster.manager.plugins then
    cluster.manager.plugins:watch()
  end
  return cluster
end

-- The path of a sandbox's cluster file, when the user wants one.
local function offer_sandbox()
  local sandbox = require("lunashard.sandbox")
  local status = sandbox.status({})
  io.stderr:write("No cluster file was given (-c or LUNASHARD_CLUSTER).\n",
    status and "Use the sandbox that is here? [Y/n] " or "Start a sandbox of three throw-away PostgreSQL servers? [Y/n] ")
  local answer = io.read("*l")
  if not answer or answer:lower():find("^%s*n") then
    cli.usage_error("give the cluster's file with -c or LUNASHARD_CLUSTER")
  end
  local description, err = sandbox.start({
    on_progress = function(text)
      cli.say("sandbox: %s", text)
    end,
  })
  if not description then
    return nil, err
  end
  cli.say("remove it with `%s sandbox destroy`", cli.program())
  return description.cluster_file
end

-- At the prompt, or through what stdin has.
local function talk(session)
  if not console.terminal() then
    return batch.run(session)
  end
  cli.say("\\help lists what there is beside Lua and SQL; Ctrl-D leaves")
  local shown = console.new(session)
  local ok, err = pcall(shown.run, shown)
  shown:close()
  if not ok then
    error(err, 0)
  end
  return cli.exit.ok
end

local function attach(args)
  if args.cluster then
    cli.usage_error("--attach and -c exclude each other: the cluster is that of the process")
  end
  local fd = console.terminal()
  local session, err = client.attach(args.attach, { terminal = fd ~= nil, width = fd and terminal.size(fd) or nil })
  if not session then
    cli.say("repl: %s", err.message)
    return cli.exit.failed
  end
  cli.say("attached to process %d, cluster %s, %d shard%s", session.pid, session.name or "without a name", session.shards,
    session.shards == 1 and "" or "s")
  local ok, code = pcall(talk, session)
  session:close()
  if not ok and not errors.is(code, "CANCELED") then
    error(code, 0)
  end
  return ok and not session.is_gone and code or cli.exit.failed
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code
function command.run(args)
  if args.attach then
    return attach(args)
  end
  local path, err = args.cluster or os.getenv("LUNASHARD_CLUSTER"), nil
  if not path or path == "" then
    if not console.terminal() then
      cli.cluster_path(args)
    end
    path, err = offer_sandbox()
  end
  local cluster
  if path then
    cluster, err = open_cluster(path)
  end
  if not cluster then
    cli.say("repl: %s", err.message)
    return cli.exit.failed
  end
  local session
  session, err = sessions.new(cluster)
  if not session then
    cluster:close()
    cli.say("repl: %s", err.message)
    return cli.exit.failed
  end
  load_rc(session)
  local ok, code = pcall(talk, session)
  session:close()
  cluster:close()
  if not ok and errors.is(code, "CANCELED") then
    return cli.exit.failed -- by a signal, which decides the exit code
  elseif not ok then
    error(code, 0)
  end
  return code
end

return command
