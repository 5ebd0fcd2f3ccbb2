--- `lunashard sandbox`: throw-away local PostgreSQL servers.
-- stdout is data: the cluster file's path after `start`, a table or JSON for `status`.
-- @module lunashard.cli.sandbox

local cjson = require("cjson.safe")
local cli = require("lunashard.cli")
local sandbox = require("lunashard.sandbox")

local command = {}

command.examples = {
  "lunashard sandbox start --shards 3 --replicas 1",
  "lunashard sandbox status --json",
  "lunashard sandbox kill shard2",
  "lunashard sandbox promote shard2",
  "lunashard sandbox demote shard2",
  "lunashard sandbox rejoin shard2",
  "lunashard sandbox stop",
  "lunashard sandbox destroy",
}

local function add_place(parser)
  parser:option("--name", "which sandbox, when there are several", "sandbox")
  parser:option("--dir", "a directory for it instead of one below TMPDIR or /tmp")
  parser:flag("--json", "JSON on stdout, also on failure")
  return parser
end

local function whole_number(text)
  local number = tonumber(text)
  if not number or number % 1 ~= 0 then
    return nil, ("%q is not a whole number"):format(text)
  end
  return number
end

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:command_target("action")
  parser:require_command(true)
  local start = add_place(parser:command("start", "start the servers; makes them first when there are none"))
  start:option("--shards", "number of shards [3]"):convert(whole_number)
  start:option("--replicas", "streaming replicas of each shard [0]"):convert(whole_number)
  start:flag("--tls", "servers offer TLS; the cluster file checks their certificate")
  add_place(parser:command("stop", "stop the servers and keep their data"))
  add_place(parser:command("status", "what runs where"))
  add_place(parser:command("destroy", "stop the servers and remove everything"))
  local kill = add_place(parser:command("kill", "kill a server as a crash would (SIGKILL); `start` starts it again"))
  kill:argument("server", "such as shard2 or shard2_replica1")
  local promote = add_place(parser:command("promote", "make a replica the primary"))
  promote:argument("server", "the shard, or one of its replicas")
  local demote = add_place(parser:command("demote", "restart a primary as a standby, before another one is promoted"))
  demote:argument("server", "such as shard2")
  local rejoin = add_place(parser:command("rejoin", "make a server a standby of its shard's primary, rewound or copied"))
  rejoin:argument("server", "such as shard2 or shard2_replica1")
end

local function print_json(value)
  io.stdout:write(cjson.encode(value), "\n")
end

local function print_table(description)
  local format = "%-18s %-8s %-8s %-6s %-8s %s\n"
  io.stdout:write(format:format("SERVER", "ROLE", "STATE", "PORT", "PID", "DATABASE"))
  for _, server in ipairs(description.servers) do
    local pid = server.pid and ("%d"):format(server.pid) or "-"
    local port = ("%d"):format(server.port)
    io.stdout:write(format:format(server.name, server.role, server.state, port, pid, server.database))
  end
end

local function own_name(args)
  if args.dir then
    return " --dir " .. args.dir
  end
  return args.name ~= "sandbox" and " --name " .. args.name or ""
end

local function print_started(description, args)
  local first = description.servers[1]
  cli.say("%d servers run; connect to one with", #description.servers)
  io.stderr:write(
    ("  PGPASSFILE=%s psql -h 127.0.0.1 -p %d -U app %s\n"):format(description.passfile, first.port, first.database),
    ("stop them with `%s sandbox stop%s`; next:\n"):format(cli.program(), own_name(args)),
    ("  %s run -c %s script.lua\n"):format(cli.program(), description.cluster_file)
  )
  io.stdout:write(description.cluster_file, "\n")
end

local actions = {}

function actions.start(options, args)
  options.shards, options.replicas, options.tls = args.shards, args.replicas, args.tls
  options.on_progress = function(text)
    cli.say("sandbox: %s", text)
  end
  local description, err = sandbox.start(options)
  return description, err, print_started
end

function actions.stop(options)
  local description, err = sandbox.stop(options)
  return description, err, function(_, args)
    cli.say("sandbox: stopped; start it again with `%s sandbox start%s`", cli.program(), own_name(args))
  end
end

function actions.status(options)
  local description, err = sandbox.status(options)
  return description, err, print_table
end

function actions.destroy(options)
  local dir, err = sandbox.destroy(options)
  return dir and { dir = dir, destroyed = true }, err, function()
    cli.say("sandbox: removed %s", dir)
  end
end

function actions.kill(options, args)
  local description, err = sandbox.kill(options, args.server)
  return description, err, function()
    cli.say("sandbox: killed %s; start it again with `%s sandbox start%s`", args.server, cli.program(), own_name(args))
  end
end

function actions.promote(options, args)
  local description, err = sandbox.promote(options, args.server)
  return description, err, print_table
end

function actions.demote(options, args)
  local description, err = sandbox.demote(options, args.server)
  return description, err, print_table
end

function actions.rejoin(options, args)
  options.on_progress = function(text)
    cli.say("sandbox: %s", text)
  end
  local description, err = sandbox.rejoin(options, args.server)
  return description, err, print_table
end

-- The ranges are checked by the module, which raises plain strings for misuse.
local function call(args)
  local options = { name = args.name, dir = args.dir }
  local ok, description, err, report = pcall(actions[args.action], options, args)
  if not ok and type(description) == "string" then
    cli.usage_error((description:gsub("^[^:]+:%d+: ", "")))
  elseif not ok then
    error(description, 0)
  end
  return description, err, report
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code
function command.run(args)
  local description, err, report = call(args)
  if not description then
    cli.say("sandbox: %s", err.message)
    if args.json then
      print_json({ error = { code = err.code, message = err.message } })
    end
    return cli.exit.failed
  end
  if args.json then
    print_json(description)
  else
    report(description, args)
  end
  return cli.exit.ok
end

return command
