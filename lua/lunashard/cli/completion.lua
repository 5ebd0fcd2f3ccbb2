--- `lunashard completion`: what completes our commands, options, shards and tables in a shell.
-- @module lunashard.cli.completion

local cli = require("lunashard.cli")
local output = require("lunashard.cli.output")

-- What follows the shell belongs to the line that is being typed.
local command = { values = {} }

command.examples = {
  "lunashard completion bash >~/.local/share/bash-completion/completions/lunashard",
  "lunashard completion zsh >~/.zsh/completions/_lunashard",
  "lunashard completion fish >~/.config/fish/completions/lunashard.fish",
}

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:argument("shell", "bash, zsh or fish; `words`, and a line's words, is what these ask")
    :choices({ "bash", "zsh", "fish", "words" })
end

--- Run it.
-- @tparam table args
-- @treturn number exit code
function command.run(args)
  if args.shell ~= "words" then
    if #args.rest > 0 then
      cli.usage_error(("too many arguments: %s"):format(args.rest[1]))
    end
    output.write(require("lunashard.cli.completion.shells")[args.shell])
    return cli.exit.ok
  end
  local lines = {}
  for i, found in ipairs(require("lunashard.cli.completion.candidates").of(args.rest)) do
    lines[i] = table.concat(found, "\t") .. "\n"
  end
  output.write(table.concat(lines))
  return cli.exit.ok
end

return command
