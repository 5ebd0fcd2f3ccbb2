--- The command line: finds the command, parses its arguments, gives the exit code.
--
-- Each command is one file, `lunashard.cli.<name>`, loaded when it is named. It returns a table with
-- `configure(parser)` (argparse), `run(args) -> exit code`, and, when what follows its first argument is not
-- its own, `values`, the set of its options that take a value; `args.rest` has the others. One that is
-- `passthrough` gets all of its arguments in `args.rest`.
-- @module lunashard.cli

local argparse = require("argparse")
local errors = require("lunashard.errors")
local system = require("lunashard.core.system")

local cli = {}

--- Exit codes.
-- @table exit
cli.exit = { ok = 0, failed = 1, usage = 2, differences = 3, partial = 4, locked = 5 }

--- The version, as `--version` prints it.
cli.version = "0.1.0"

local COMMANDS = {
  { "check", "what is wrong with a plug-in's file, before it is used" },
  { "distribution", "how keys spread over shards, and which of them another version would move" },
  { "new", "write a plug-in to begin with, and a spec for it" },
  { "explain", "where a statement or a key would go, and why; connects nowhere" },
  { "repl", "Lua and SQL at a prompt, on a live cluster" },
  { "run", "run a Lua script, usually against a cluster" },
  { "sandbox", "throw-away local PostgreSQL servers to try things on" },
  { "serve", "keep a cluster open: its health, plug-ins and jobs, metrics and a page over HTTP" },
  { "test", "run busted specs inside the runtime" },
}

local Help = {} -- metatable of what --help raises
local Usage = {} -- metatable of what a wrong command line raises

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

local function help_text()
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
  local command = require("lunashard.cli." .. entry[1])
  local parser = argparse("lunashard " .. entry[1], entry[2])
  command.configure(parser)
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

local function usage_failure(name, message)
  cli.say("%s%s (see: lunashard %s--help)", name and name .. ": " or "", message, name and name .. " " or "")
  return cli.exit.usage
end

-- So ends what computes, or waits for a file, when a signal comes.
local function is_interrupt(err)
  return type(err) == "string" and err:find("interrupted$") ~= nil
end

--- Run a command line. Yields.
-- @tparam {string,...} arguments without the program's name
-- @treturn number exit code
function cli.main(arguments)
  local name = table.remove(arguments, 1)
  if name == nil then
    io.stderr:write(help_text())
    return cli.exit.usage
  elseif name == "--help" or name == "-h" or name == "help" then
    io.stdout:write(help_text())
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
  -- What is raised on purpose passes as it is; anything else is a bug of ours and gets its traceback.
  local ok, result = xpcall(function()
    return run_command(entry, arguments)
  end, function(err)
    local kind = getmetatable(err)
    local passes = kind == Help or kind == Usage or errors.is(err) or is_interrupt(err)
    return passes and err or debug.traceback(tostring(err), 2)
  end)
  if ok then
    return result
  elseif getmetatable(result) == Help then
    io.stdout:write(result.text, "\n")
    return cli.exit.ok
  elseif getmetatable(result) == Usage then
    return usage_failure(name, result.message)
  elseif errors.is(result, "CANCELED") or is_interrupt(result) then
    return cli.exit.failed -- by a signal, which decides the exit code
  end
  cli.say("%s: %s", name, tostring(result))
  return cli.exit.failed
end

return cli
