--- The program under test as its users run it: the binary that runs this spec, as a child process.
-- @module spec.support.cli

local process = require("lunashard.process")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local cli = {}

--- The path of the binary.
cli.binary = assert(system.realpath("/proc/self/exe"))

local TIMEOUT = 60

local function options_for(argv, options)
  local all = { argv = { cli.binary }, env = { LUNASHARD_CLUSTER = false, LUNASHARD_TEST_SANDBOX = false } }
  for i, argument in ipairs(argv) do
    all.argv[i + 1] = argument
  end
  for name, value in pairs(options or {}) do
    if name == "env" then
      for variable, text in pairs(value) do
        all.env[variable] = text
      end
    else
      all[name] = value
    end
  end
  return all
end

--- Run a command line to its end. Yields.
-- @tparam {string,...} argv without the program
-- @tparam[opt] table options of lunashard.process.run
-- @treturn table `code`, `stdout`, `stderr`, `duration`; `stderr` is without what a busy machine adds, `all_stderr` with it
function cli.run(argv, options)
  local all = options_for(argv, options)
  all.timeout = all.timeout or TIMEOUT
  local result = assert(process.run(all))
  result.all_stderr = result.stderr
  result.stderr = result.stderr:gsub("lunashard: everything stood still for [^\n]*\n", "")
  return result
end

--- Start a command line. It is to be closed.
function cli.spawn(argv, options)
  return assert(process.spawn(options_for(argv, options)))
end

--- Wait for a condition, not for a time. Yields.
function cli.wait_until(what, condition, timeout)
  local deadline = task.now() + (timeout or 20)
  while not condition() do
    if task.now() > deadline then
      error("waited in vain until " .. what, 2)
    end
    task.sleep(0.01)
  end
end

--- A directory that is removed by `remove_all`.
-- @tparam[opt=448] number mode, 0700 by default
function cli.directory(mode)
  local path = assert(os.tmpname())
  os.remove(path)
  assert(system.mkdir(path, mode or 448))
  cli.made = cli.made or {}
  table.insert(cli.made, path)
  return path
end

--- Remove what `directory` gave. Yields.
function cli.remove_all()
  for _, path in ipairs(cli.made or {}) do
    assert(process.run({ argv = { "rm", "-rf", "--one-file-system", "--", path } }))
  end
  cli.made = nil
end

--- Write a file; gives its path.
function cli.write(dir, name, content)
  local path = dir .. "/" .. name
  assert(system.write_file(path, content, 420))
  return path
end

--- What a file has.
function cli.read(path)
  local file = assert(io.open(path, "rb"))
  local content = file:read("*a")
  file:close()
  return content
end

return cli
