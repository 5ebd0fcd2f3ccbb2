--- `lunashard test`: busted inside the runtime, so that specs may wait and use the real thing.
-- @module lunashard.cli.test

local cli = require("lunashard.cli")
local testing = require("lunashard.testing")

local command = { passthrough = true }

command.examples = {
  "lunashard test",
  "lunashard test spec/users_spec.lua --filter=finds",
}

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:usage("Usage: lunashard test [paths] [busted options]")
  parser:epilog("Paths are spec files or folders, by default spec. Of busted's options the most useful are\n"
    .. "--filter=PATTERN, --filter-out=PATTERN, --tags=TAGS, --repeat=N, --shuffle, --no-keep-going, -o TAP.")
end

-- busted ends a failed run by raising nil, since os.exit would not close the state.
-- It finds its options in the global `arg`.
local function run_busted(arguments)
  rawset(_G, "arg", arguments)
  require("busted.runner")({ standalone = false })
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code: 1 when a test failed, leaked or could not be loaded
function command.run(args)
  package.path = "./?.lua;./?/init.lua;" .. package.path
  testing.preload()
  local arguments = { "--helper=lunashard.testing.helper" }
  for i, argument in ipairs(args.rest) do
    arguments[i + 1] = argument
  end
  local ok, err = pcall(run_busted, arguments)
  testing.remove_sandboxes()
  if not ok and err ~= nil then
    cli.say("test: %s", tostring(err))
  end
  local counts = testing.counts
  io.stdout:write(
    ("%d successes / %d failures / %d errors / %d pending\n"):format(
      counts.success,
      counts.failure,
      counts.error,
      counts.pending
    )
  )
  local is_good = ok and counts.failure + counts.error == 0
  return is_good and cli.exit.ok or cli.exit.failed
end

return command
