--- `lunashard run`: a Lua script inside the runtime, with or without a cluster.
-- @module lunashard.cli.run

local cli = require("lunashard.cli")
local core = require("lunashard.core.task")
local errors = require("lunashard.errors")
local input = require("lunashard.cli.input")
local inspect = require("inspect")
local lock = require("lunashard.lock")
local task = require("lunashard.task")
local unhandled = require("lunashard.unhandled")

local command = {}

command.examples = {
  "lunashard run -c cluster.lua report.lua 2026-11",
  "lunashard run --lock nightly --timeout 3600 cleanup.lua",
  "lunashard run --watch worker.lua",
}

--- Options that take a value; what follows the script belongs to the script.
command.values = { ["-c"] = true, ["--cluster"] = true, ["--timeout"] = true, ["--lock"] = true }

local CANCEL_GRACE = 5 -- seconds that a script gets to end after its --timeout

local OWN_SOURCES = debug.getinfo(1, "S").source:match("^(.*)cli/run%.lua$")

local function seconds(text)
  local number = tonumber(text)
  if not number or number <= 0 or number ~= number then
    return nil, ("%q is not a number of seconds"):format(text)
  end
  return number
end

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:argument("script", "the file to run; - reads it from stdin. What follows it are its arguments")
  parser:option("-c --cluster", "cluster file; sets the globals cluster, manager and router [LUNASHARD_CLUSTER]")
  parser:option("--lock", "run only when no other run holds the lock of this name; exit code 5 when one does")
  parser:flag("--strict", "exit code 1 when an error was returned to the script and nobody looked at it")
  parser:flag("--watch", "load the cluster's plug-ins again when their files change")
  parser:option("--timeout", "end the script after so many seconds, with exit code 1"):convert(seconds)
end

-- The script as a function, or what is wrong with it.
local function load_script(path)
  local text, reason = input.read(path)
  if not text then
    return nil, "cannot read the script: " .. reason
  end
  -- `#!...` becomes a comment, so that line numbers stay right.
  return load((text:gsub("^#", "--#", 1)), path == "-" and "=stdin" or "@" .. path, "t")
end

-- Frames of the user's own files, innermost first.
local function user_frames()
  local frames = {}
  local level = 3
  while true do
    local info = debug.getinfo(level, "Sln")
    if not info then
      return frames
    end
    local is_ours = info.what == "C" or (OWN_SOURCES and info.source:sub(1, #OWN_SOURCES) == OWN_SOURCES)
    if not is_ours and info.currentline > 0 then
      local where = info.what == "main" and "main chunk" or info.name and ("function '%s'"):format(info.name) or "function"
      frames[#frames + 1] = ("  %s:%d: in %s"):format(info.short_src, info.currentline, where)
    end
    level = level + 1
  end
end

local function readable(value)
  if type(value) == "table" and not (getmetatable(value) or {}).__tostring then
    return inspect(value, { newline = " ", indent = "" })
  end
  return tostring(value)
end

local function on_raise(err)
  return { err = err, frames = user_frames() }
end

local function report_raised(script, raised, has_cluster)
  local err = raised.err
  local text = readable(err)
  if type(err) ~= "string" then
    text = ("%s: %s"):format(script, text)
  end
  local global = not has_cluster and type(err) == "string" and err:match("global '(%a+)' %(a nil value%)")
  if global == "router" or global == "manager" or global == "cluster" then
    text = text .. "; it is set when a cluster file is given with -c or LUNASHARD_CLUSTER"
  end
  cli.say("%s", text)
  for _, frame in ipairs(raised.frames) do
    io.stderr:write(frame, "\n")
  end
end

-- What the script returned: `false` and `nil, err` are failures, anything else is success.
local function report_returned(script, value, err)
  if value == false and err == nil then
    cli.say("%s: returned false", script)
    return cli.exit.failed
  elseif value == false or (value == nil and err ~= nil) then
    cli.say("%s: %s", script, readable(err))
    return cli.exit.failed
  end
  return cli.exit.ok
end

-- The script's outcome as xpcall gives it; or nil when it took too long.
local function execute(chunk, args)
  local outcome
  local function body()
    outcome = { xpcall(chunk, on_raise, unpack(args.rest)) }
  end
  if not args.timeout then
    body()
    return outcome
  end
  local running = task.spawn(body)
  local ended = running:join(args.timeout)
  if not ended then
    running:cancel()
    running:join(CANCEL_GRACE)
    return nil
  end
  return outcome
end

local function open_cluster(path)
  if not path or path == "" then
    return nil
  end
  local cluster, err = require("lunashard").open(path)
  if not cluster then
    return nil, err
  end
  local count = #cluster.manager.shards
  cli.say("cluster %s (%s), %d shard%s", cluster.name or "without a name", path, count, count == 1 and "" or "s")
  return cluster
end

local function set_globals(args, cluster)
  local script_arguments = { [0] = args.script }
  for i, value in ipairs(args.rest) do
    script_arguments[i] = value
  end
  rawset(_G, "arg", script_arguments)
  if cluster then
    rawset(_G, "cluster", cluster)
    rawset(_G, "manager", cluster.manager)
    rawset(_G, "router", cluster.router)
  end
  local dir = args.script:match("^(.*)/[^/]*$") or "."
  package.path = ("%s/?.lua;%s/?/init.lua;%s"):format(dir, dir, package.path)
end

-- A lock on the cluster, or the exit code.
local function take_lock(args, cluster)
  if not cluster then
    cli.usage_error("--lock is kept in a cluster: give its file with -c or LUNASHARD_CLUSTER")
  end
  local held, err = lock.acquire(cluster.manager, args.lock)
  if not held then
    cli.say("%s", err.message)
    return nil, err.code == "LOCK_HELD" and cli.exit.locked or cli.exit.failed
  end
  return held
end

local function watch_plugins(cluster)
  if not cluster then
    cli.usage_error("--watch looks after a cluster's plug-ins: give its file with -c or LUNASHARD_CLUSTER")
  elseif not cluster.manager.plugins then
    cluster:close()
    cli.usage_error("--watch: the cluster file names no folder of plug-ins (plugins = \"plugins/\")")
  end
  cluster.manager.plugins:watch()
end

-- The exit code of a script that ended by itself, in view of what it did not look at.
local function check_loose_ends(args, code)
  local n, text = unhandled.count()
  if n > 0 then
    cli.say("%d error%s returned and not looked at%s", n, n == 1 and " was" or "s were", text and "; " .. text or "")
    code = args.strict and cli.exit.failed or code
  end
  if core.counts().failed > 0 then -- each was printed when it happened
    return cli.exit.failed
  end
  return code
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code: 1 when the script raises, returns `false` or `nil, err`, or takes too long, or when a
--   task that nobody joined has raised; 5 when the lock is held
function command.run(args)
  local chunk, problem = load_script(args.script)
  if not chunk then
    cli.say("%s", problem)
    return cli.exit.failed
  end
  local cluster, err = open_cluster(args.cluster or os.getenv("LUNASHARD_CLUSTER"))
  if err then
    cli.say("%s", err.message)
    return cli.exit.failed
  end
  if args.watch then
    watch_plugins(cluster)
  end
  local held, code
  if args.lock then
    held, code = take_lock(args, cluster)
    if not held then
      return code
    end
  end
  if cluster then
    unhandled.watch(cluster.router)
  end
  set_globals(args, cluster)
  local outcome = execute(chunk, args)
  if held and not held:is_held() then
    cli.say("the lock %q was lost while the script ran: its session on %s ended", args.lock, held.lease.shard_id)
  end
  if cluster then
    cluster:close()
  end
  if not outcome then
    cli.say("%s: timed out after %gs (--timeout)", args.script, args.timeout)
    return cli.exit.failed
  elseif outcome[1] then
    return check_loose_ends(args, report_returned(args.script, outcome[2], outcome[3]))
  elseif errors.is(outcome[2].err, "CANCELED") then
    if not core.is_exiting() then
      cli.say("%s: interrupted", args.script)
    end
  else
    report_raised(args.script, outcome[2], cluster ~= nil)
  end
  return cli.exit.failed
end

return command
