--- All commands with their arguments as one tree, for what describes them: the manual and the shells' completion.
-- @module lunashard.cli.tree

local argparse = require("argparse")
local cli = require("lunashard.cli")

local tree = {}

-- Where --help shows it: last.
local function put_help_last(parser)
  parser:add_help(true)
  for _, sub in ipairs(parser._commands) do
    put_help_last(sub)
  end
end

--- The tree.
-- @treturn table a parser of argparse, with a command for each of ours
function tree.root()
  local root = argparse("lunashard", "A Lua-scriptable sharding runtime for PostgreSQL.")
  for _, entry in ipairs(cli.commands()) do
    local parser = root:command(entry[1], entry[2])
    cli.configure(parser, entry[1])
    put_help_last(parser)
  end
  return root
end

--- Walk over the commands and their actions, in the order of the help.
-- @param parser
-- @tparam func visit called with each parser and its words, such as `{ "schema", "apply" }`
-- @tparam[opt] {string,...} words
function tree.walk(parser, visit, words)
  for _, command in ipairs(parser._commands) do
    local own = { unpack(words or {}) }
    own[#own + 1] = command._name
    visit(command, own)
    tree.walk(command, visit, own)
  end
end

return tree
