--- `lunashard completion`: what completes our commands and options in a shell.
-- @module lunashard.cli.completion

local cli = require("lunashard.cli")
local output = require("lunashard.cli.output")

local command = {}

local SHELLS = { "bash", "zsh", "fish" }

command.examples = {
  "lunashard completion bash >~/.local/share/bash-completion/completions/lunashard",
  "lunashard completion zsh >~/.zsh/completions/_lunashard",
  "lunashard completion fish >~/.config/fish/completions/lunashard.fish",
}

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:argument("shell", "bash, zsh or fish"):choices(SHELLS)
end

--- Run it.
-- @tparam table args
-- @treturn number exit code
function command.run(args)
  local root = require("lunashard.cli.tree").root()
  local text = root[("get_%s_complete"):format(args.shell)](root)
  output.write((text:gsub("\n*$", "\n")))
  return cli.exit.ok
end

return command
