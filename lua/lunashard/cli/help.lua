--- `lunashard help`: what a command does, and the reference of all of them.
-- @module lunashard.cli.help

local cli = require("lunashard.cli")
local errors = require("lunashard.errors")
local output = require("lunashard.cli.output")

local command = {}

command.examples = {
  "lunashard help schema apply",
  "lunashard help --format markdown >commands.md",
  "lunashard help --format man | man -l -",
}

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:argument("words", "the command, and its action when it has several"):argname("COMMAND"):args("*")
  parser:option("--format", "all commands, as markdown or as a page for man"):choices({ "markdown", "man" })
end

-- The commands, or the actions of one.
local function known(words)
  local names = {}
  local tree = require("lunashard.cli.tree")
  tree.walk(tree.root(), function(_, own)
    if #own == #words and (#words == 1 or own[1] == words[1]) then
      names[#names + 1] = own[#own]
    end
  end)
  return names
end

local function of_command(words)
  local manual = require("lunashard.cli.manual")
  local text = manual.help(words)
  if not text then
    local near = errors.nearest(words[#words], known(words))
    cli.usage_error(("there is no command %q%s"):format(table.concat(words, " "),
      near and ("; did you mean %q?"):format(near) or ""))
  end
  output.write(text, "\n")
  return cli.exit.ok
end

--- Run it.
-- @tparam table args
-- @treturn number exit code
function command.run(args)
  if args.format and #args.words > 0 then
    cli.usage_error("--format is for all commands: leave the command out")
  elseif #args.words > 0 then
    return of_command(args.words)
  end
  local manual = require("lunashard.cli.manual")
  output.write(args.format == "man" and manual.page(cli.version) or args.format == "markdown" and manual.markdown()
    or cli.help_text())
  return cli.exit.ok
end

return command
