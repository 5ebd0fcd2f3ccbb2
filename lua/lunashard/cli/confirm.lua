--- The word that a command needs before it writes.
-- On a production cluster every command that writes, and on any cluster one that is severe, wants the cluster's name: typed
-- at a terminal, or given with `--yes NAME`. Without a terminal nothing is asked: the command is refused.
-- @module lunashard.cli.confirm

local descriptor = require("lunashard.core.descriptor")
local errors = require("lunashard.errors")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local confirm = {}

local STDIN, STDERR = 0, 2

--- Add `--yes NAME` to a command's arguments.
-- @param parser
function confirm.configure(parser)
  parser:option("--yes", "the cluster's name: goes on without a question where one would be asked"):argname("NAME")
end

local function invalid(format, ...)
  return nil, errors.new("INVALID", { message = format:format(...) })
end

--- Is this a production cluster?
-- @tparam Manager manager
-- @treturn boolean
function confirm.is_production(manager)
  return manager.options.environment == "production"
end

local wait_input = task.waits(function(input)
  return input:wait()
end)

-- The line that was typed, or nil at the end of the input. Others go on meanwhile: health checks, for one.
local function ask(question)
  io.stderr:write(question)
  io.stderr:flush()
  local input, text = descriptor.stdin(), ""
  local bytes
  repeat
    wait_input(input)
    bytes = input:read()
    text = text .. (bytes or "")
  until not bytes or text:find("\n", 1, true)
  input:close()
  return text:match("^([^\n]*)\n")
end

--- May a command write? Asks at a terminal, and yields then.
-- @tparam Manager manager
-- @tparam table how `what`: what it is about to do, in words that follow "this will"; `yes`: what was given with `--yes`;
--   `severe`: it wants the name on every cluster; `ask`: a function of the question that gives what was typed
--   [a line from the terminal]
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`: it was not confirmed, and nothing was done
function confirm.check(manager, how)
  local name = manager.name or "unnamed"
  local production = confirm.is_production(manager)
  local kind = production and "the production cluster" or "the cluster"
  if how.yes ~= nil and how.yes ~= name then
    return invalid("--yes names %q, but this is %s %q: nothing was done", how.yes, kind, name)
  elseif how.yes ~= nil or not (production or how.severe) then
    return true
  end
  local typed
  if how.ask then
    typed = how.ask(("this will %s on %s %q; its name, to go on: "):format(how.what, kind, name))
  elseif system.isatty(STDIN) and system.isatty(STDERR) then
    typed = ask(("lunashard: this will %s on %s %q\nType the cluster's name to go on: "):format(how.what, kind, name))
  else
    return invalid("this would %s on %s %q: say so with --yes %s", how.what, kind, name, name)
  end
  if typed == name then
    return true
  end
  return invalid("not confirmed: %s, not the cluster's name; nothing was done",
    typed == nil and "the input ended" or ("%q was typed"):format(typed))
end

return confirm
