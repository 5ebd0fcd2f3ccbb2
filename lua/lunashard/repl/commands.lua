--- The commands of a session: lines that begin with a backslash.
-- @module lunashard.repl.commands

local errors = require("lunashard.errors")

local commands = {}

-- name -> { usage, what it does, its module }, in the order of \help.
local LIST = {
  { "help", "", "this list", "display" },
  { "use", "[SHARD | key KEY]", "send statements there; without a name wherever their keys say", "routing" },
  { "route", "[TABLE] KEY...", "where keys live", "routing" },
  { "explain", "SQL", "where a statement would go, and why", "routing" },
  { "shards", "", "the shards, their servers and how they are", "cluster" },
  { "health", "", "every server as the last looks found it, and what is wrong", "cluster" },
  { "pools", "", "connections and statements of every server", "cluster" },
  { "plugins", "", "the plug-ins that are loaded", "cluster" },
  { "jobs", "", "jobs in the background, and the latest that moves rows", "cluster" },
  { "reload", "", "read the cluster file and the plug-ins again", "cluster" },
  { "timing", "[on | off]", "show how long statements take", "display" },
  { "x", "[on | off | auto]", "one line for each field; auto: when a row is too wide", "display" },
  { "rows", "N", "show so many rows of a result, 0 for all", "display" },
  { "o", "[FILE]", "write what comes out to a file; without a name to the terminal again", "display" },
  { "tb", "", "the whole traceback of the last error in Lua", "display" },
  { "watch", "[SECONDS] [SQL]", "run a statement, or the last one, again and again until Ctrl-C", "lines" },
  { "i", "FILE", "run the lines of a file; stops at the first that fails", "lines" },
  { "e", "", "edit the last line with $EDITOR, then run it", "lines" },
  { "save", "NAME [LINES]", "make a script of the last lines, all by default", "lines" },
  { "rw", "", "make a session on a production cluster writable", "production" },
  { "ro", "", "make it read-only again", "production" },
  { "q", "", "leave, as Ctrl-D does", "lines" },
}

local by_name = {}
for _, entry in ipairs(LIST) do
  by_name[entry[1]] = entry
end

--- The commands in their order: `{ name, arguments, what it does }`.
-- @treturn {table,...}
function commands.list()
  return LIST
end

--- Their names, with the backslash.
-- @treturn {string,...}
function commands.names()
  local names = {}
  for i, entry in ipairs(LIST) do
    names[i] = "\\" .. entry[1]
  end
  return names
end

--- Run a command. Yields.
-- @tparam Session session
-- @string line
-- @treturn boolean
function commands.run(session, line)
  local name, rest = line:match("^%s*\\(%S*)%s*(.-)%s*$")
  local entry = by_name[name]
  if not entry then
    local near = errors.nearest(name, by_name)
    session:fail(errors.new("INVALID", {
      message = ("there is no command \\%s%s"):format(name, near and ("; did you mean \\%s?"):format(near) or "; see \\help"),
    }))
    return false
  end
  local run = require("lunashard.repl.commands." .. entry[4])[name]
  local ok, err = run(session, rest)
  if ok == nil then
    session:fail(err)
    return false
  end
  return ok
end

return commands
