--- The command line: finds the command, parses its arguments, gives the exit code.
--
-- Each command is one file, `lunashard.cli.<name>`, loaded when it is named. It returns a table with
-- `configure(parser)` (argparse), `run(args) -> exit code`, and, when what follows its first argument is not
-- its own, `values`, the set of its options that take a value; `args.rest` has the others. One that is
-- `passthrough` gets all of its arguments in `args.rest`. `examples`, a list of lines, ends its help.
-- @module lunashard.cli

local argparse = require("argparse")
local cjson = require("cjson.safe")
local ffi = require("ffi")
local errors = require("lunashard.errors")
local system = require("lunashard.core.system")

local cli = {}

--- Exit codes.
-- @table exit
cli.exit = { ok = 0, failed = 1, usage = 2, differences = 3, partial = 4, locked = 5, pipe = 141 }

--- The version, as `--version` prints it.
cli.version = "0.1.0"

local COMMANDS = {
  { "check", "what is wrong with a cluster, or with a plug-in's file, and what to do" },
  { "cluster", "the catalog: where every bucket lives, and whether every row is there" },
  { "completion", "what completes commands and options in a shell" },
  { "distribution", "how keys spread over shards, and which of them another version would move" },
  { "explain", "where a statement or a key would go, and why; connects nowhere" },
  { "help", "what a command does; the reference of all of them" },
  { "new", "write a plug-in to begin with, and a spec for it" },
  { "rebalance", "move rows between shards while they are read and written" },
  { "repl", "Lua and SQL at a prompt, on a live cluster" },
  { "route", "which shard, bucket and server a key belongs to" },
  { "run", "run a Lua script, usually against a cluster" },
  { "sandbox", "throw-away local PostgreSQL servers to try things on" },
  { "schema", "change the schema of all shards, or find where they differ" },
  { "serve", "keep a cluster open: its health, plug-ins and jobs, metrics and a page over HTTP" },
  { "sql", "run one statement, and show its rows as a table, CSV or JSON" },
  { "status", "how the shards and their servers do, once or all the time" },
  { "test", "run busted specs inside the runtime" },
}

local Help = {} -- metatable of what --help raises
local Usage = {} -- metatable of what a wrong command line raises
local Output = {} -- metatable of what is raised when stdout takes nothing any more

local EPIPE = 32

ffi.cdef("int ferror(void *stream); void clearerr(void *stream);")

local function find(name)
  local names = {}
  for _, command in ipairs(COMMANDS) do
    if command[1] == name then
      return command
    end
    names[#names + 1] = command[1]
  end
  local near = errors.nearest(name, names)
  return nil, near and ("did you mean %q?"):format(near) or "commands are: " .. table.concat(names, ", ")
end

--- The help that names the commands.
-- @treturn string
function cli.help_text()
  local lines = { "Usage: lunashard COMMAND [arguments]", "", "A Lua-scriptable sharding runtime for PostgreSQL.", "" }
  lines[#lines + 1] = "Commands:"
  for _, command in ipairs(COMMANDS) do
    lines[#lines + 1] = ("  %-12s %s"):format(command[1], command[2])
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "`lunashard COMMAND --help` says more. LUNASHARD_CLUSTER names the cluster file when -c does not."
  return table.concat(lines, "\n") .. "\n"
end

--- Say something on stderr that is not data.
-- @string format
-- @param ...
function cli.say(format, ...)
  io.stderr:write("lunashard: ", select("#", ...) > 0 and format:format(...) or format, "\n")
end

local program

--- What to type for this program: its name when that is on PATH, otherwise where it is.
-- @treturn string
function cli.program()
  if program then
    return program
  end
  local path = assert(system.realpath("/proc/self/exe"))
  for dir in (os.getenv("PATH") or ""):gmatch("[^:]+") do
    if system.realpath(dir .. "/lunashard") == path then
      program = "lunashard"
      return program
    end
  end
  local here = system.realpath(".")
  program = here and path:sub(1, #here + 1) == here .. "/" and path:sub(#here + 2) or path
  return program
end

--- The path of the cluster file that a command is for. Ends the command when none was given.
-- @tparam table args
-- @treturn string
function cli.cluster_path(args)
  local path = args.cluster or os.getenv("LUNASHARD_CLUSTER")
  if not path or path == "" then
    cli.usage_error("give the cluster's file with -c or LUNASHARD_CLUSTER")
  end
  return path
end

--- End a command because its arguments are wrong: exit code 2. Raises.
-- @string message one line
function cli.usage_error(message)
  error(setmetatable({ message = message }, Usage), 0)
end

--- End a command because stdout takes nothing any more. Raises.
-- @string reason
-- @number number the system's, of the error
function cli.stop_output(reason, number)
  error(setmetatable({ reason = reason, number = number }, Output), 0)
end

-- Those of an action are the examples that name it.
local function add_examples(parser, examples)
  local own = {}
  for _, line in ipairs(examples) do
    own[#own + 1] = (line .. " "):find(parser._name .. " ", 1, true) and "  " .. line or nil
  end
  if #own > 0 then
    parser:epilog((parser._epilog and parser._epilog .. "\n\n" or "") .. "Examples:\n" .. table.concat(own, "\n"))
  end
  for _, sub in ipairs(parser._commands) do
    add_examples(sub, examples)
  end
end

--- All commands, in the order of the help.
-- @treturn {table,...} each `{ name, summary }`
function cli.commands()
  return COMMANDS
end

--- Declare a command's arguments, and the examples of its help.
-- @param parser of argparse
-- @string name
-- @treturn table the command
function cli.configure(parser, name)
  local command = require("lunashard.cli." .. name)
  command.configure(parser)
  add_examples(parser, command.examples or {})
  return command
end

-- argparse prints and exits by itself; ours raises, so that one place decides.
local function adopt(parser)
  function parser.error(_, message)
    cli.usage_error((message:gsub("\n+Did", "; did")))
  end
  parser:add_help({
    action = function()
      error(setmetatable({ text = parser:get_help() }, Help), 0)
    end,
  })
  for _, sub in ipairs(parser._commands) do
    adopt(sub)
  end
end

-- Arguments up to and including the first that is no option (nor an option's value), and the rest.
local function split(arguments, values)
  local i = 1
  while i <= #arguments do
    local argument = arguments[i]
    if argument == "--" then
      table.remove(arguments, i)
      break
    elseif argument:sub(1, 1) ~= "-" or argument == "-" then
      break
    end
    i = i + (values[argument] and 2 or 1)
  end
  local own, rest = {}, {}
  for j, argument in ipairs(arguments) do
    table.insert(j <= i and own or rest, argument)
  end
  return own, rest
end

local function run_command(entry, arguments)
  local parser = argparse("lunashard " .. entry[1], entry[2])
  local command = cli.configure(parser, entry[1])
  adopt(parser)
  local rest
  if command.passthrough and arguments[1] ~= "--help" and arguments[1] ~= "-h" then
    arguments, rest = {}, arguments
  elseif command.values then
    arguments, rest = split(arguments, command.values)
  end
  local args = parser:parse(arguments)
  args.rest = rest
  return command.run(args)
end

-- Whoever reads JSON reads it of a wrong command line too. What follows a script is the script's own.
local function wants_json(name, arguments)
  for _, argument in ipairs(name == "run" and {} or arguments) do
    if argument == "--json" then
      return true
    end
  end
  return false
end

local function usage_failure(name, message, is_json)
  if is_json then
    io.stdout:write(cjson.encode({ error = { code = "INVALID", message = message } }), "\n")
  end
  cli.say("%s%s (see: lunashard %s--help)", name and name .. ": " or "", message, name and name .. " " or "")
  return cli.exit.usage
end

-- So ends what computes, or waits for a file, when a signal comes.
local function is_interrupt(err)
  return type(err) == "string" and err:find("interrupted$") ~= nil
end

-- Data that could not be written is a failure, whoever wrote it and whatever came of the rest.
local function say_output(name, reason, number)
  if number == EPIPE then
    cli.say("%sstdout was closed by its reader", name and name .. ": " or "")
    return cli.exit.pipe
  end
  cli.say("%scannot write to stdout: %s", name and name .. ": " or "", reason)
  return cli.exit.failed
end

--- Say that stdout takes no more, before the end: of a command that stops then.
-- @string name the command's
-- @string reason
-- @number number of the error
-- @treturn number exit code
function cli.output_failed(name, reason, number)
  ffi.C.clearerr(io.stdout) -- said once is enough
  return say_output(name, reason, number)
end

local function check_output(name, code)
  local ok, reason, number = io.stdout:flush()
  if ok and ffi.C.ferror(io.stdout) ~= 0 then
    ok, reason = false, "some of it was not taken"
  end
  return ok and code or say_output(name, reason, number)
end

local function dispatch(name, arguments)
  if name == nil then
    io.stderr:write(cli.help_text())
    return cli.exit.usage
  elseif name == "--help" or name == "-h" then
    io.stdout:write(cli.help_text())
    return cli.exit.ok
  elseif name == "--version" then
    io.stdout:write("lunashard ", cli.version, "\n")
    return cli.exit.ok
  elseif name:sub(1, 1) == "-" then
    return usage_failure(nil, ("unknown option %q"):format(name))
  end
  local entry, hint = find(name)
  if not entry then
    return usage_failure(nil, ("unknown command %q; %s"):format(name, hint))
  end
  local is_json = wants_json(name, arguments)
  -- What is raised on purpose passes as it is; anything else is a bug of ours and gets its traceback.
  local ok, result = xpcall(function()
    return run_command(entry, arguments)
  end, function(err)
    local kind = getmetatable(err)
    local passes = kind == Help or kind == Usage or kind == Output or errors.is(err) or is_interrupt(err)
    return passes and err or debug.traceback(tostring(err), 2)
  end)
  if ok then
    return result
  elseif getmetatable(result) == Help then
    io.stdout:write(result.text, "\n")
    return cli.exit.ok
  elseif getmetatable(result) == Usage then
    return usage_failure(name, result.message, is_json)
  elseif getmetatable(result) == Output then
    return say_output(name, result.reason, result.number), true
  elseif errors.is(result, "CANCELED") or is_interrupt(result) then
    return cli.exit.failed -- by a signal, which decides the exit code
  end
  cli.say("%s: %s", name, tostring(result))
  return cli.exit.failed
end

--- Run a command line. Yields.
-- @tparam {string,...} arguments without the program's name
-- @treturn number exit code
function cli.main(arguments)
  local name = table.remove(arguments, 1)
  local code, is_told = dispatch(name, arguments)
  return is_told and code or check_output(name, code)
end

return cli
