local cli = require("spec.support.cli")
local process = require("lunashard.process")
local tutorial = require("spec.support.tutorial")

describe("how data moves", function()
  local dir

  setup(function()
    dir = cli.directory(493)
  end)

  teardown(function()
    process.run({ argv = { cli.binary, "sandbox", "destroy", "--name", "moves" }, env = { TMPDIR = dir }, timeout = 30 })
    cli.remove_all()
  end)

  -- `make examples` runs it.
  it("goes as it is written, command by command #long", function()
    local env = { LUNASHARD_CLUSTER = false, LUNASHARD_TEST_SANDBOX = false, TMPDIR = dir }
    tutorial.run(tutorial.read("examples/how_data_moves.md"), dir, env)
  end)
end)
