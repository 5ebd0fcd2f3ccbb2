--- Child processes, without a shell.
-- @module lunashard.process

local core = require("lunashard.core.process")
local errors = require("lunashard.errors")
local task = require("lunashard.task")

local process = {}

--- Signal numbers by name, without `SIG`.
-- @table signals
process.signals = { HUP = 1, INT = 2, QUIT = 3, KILL = 9, USR1 = 10, TERM = 15, CONT = 18, STOP = 19 }

local Process = {}
Process.__index = Process

local wait = task.waits(function(handle, deadline)
  return handle:wait(deadline)
end)

local function signal_number(signal)
  local number = type(signal) == "number" and signal or process.signals[signal]
  return number or error("unknown signal " .. tostring(signal), 3)
end

-- { NAME = "value", OTHER = false } -> { "NAME=value", "OTHER" }
local function env_list(env)
  local list = {}
  for name, value in pairs(env) do
    list[#list + 1] = value and name .. "=" .. tostring(value) or name
  end
  return list
end

--- Start a child, in a process group of its own.
-- @tparam table options
--
-- - `argv`: list; the first is looked up in PATH
-- - `env`: table of additions to our environment; `false` removes a name
-- - `cwd`: directory
-- - `user`: run as this user, which takes root; the directory is then `/` unless given
-- - `stdin`: its input as a string (none by default), or `inherit_stdin = true`
-- - `stdout`, `stderr`: `capture` (default), `inherit`, `discard`; or `stdout_file`, `stderr_file` to append to
-- - `foreground`: in our process group, so that it may read from the terminal, whose Ctrl-C and Ctrl-Z are then for both
-- - `max_output`: bytes kept of each captured stream (1 MiB)
-- @treturn[1] Process
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when the program could not be run
function process.spawn(options)
  local raw = {}
  for name, value in pairs(options) do
    raw[name] = value
  end
  raw.env = options.env and env_list(options.env)
  local handle, err = core.spawn(raw)
  if not handle then
    return nil, err
  end
  return setmetatable({ handle = handle, pid = handle:pid(), started = task.now() }, Process)
end

--- Wait until the child has ended and its output was read. Yields.
-- @tparam[opt] number timeout seconds
-- @treturn[1] table result `code` or `signal`, `stdout`, `stderr`, `truncated`, `duration`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `TIMEOUT`; the child goes on
function Process:wait(timeout)
  local _, ended = wait(self.handle, task.deadline(timeout))
  if not ended then
    return nil, errors.new("TIMEOUT", { message = ("process %d did not end within %gs"):format(self.pid, timeout) })
  end
  local _, code, signal = self.handle:status()
  local stdout, stderr, truncated = self.handle:output()
  return {
    code = code,
    signal = signal,
    stdout = stdout,
    stderr = stderr,
    truncated = truncated,
    duration = task.now() - self.started,
  }
end

--- Is it still running?
-- @treturn boolean
function Process:is_running()
  return self.handle:status() == "running"
end

--- What was captured so far.
-- @treturn string stdout
-- @treturn string stderr
function Process:output()
  local stdout, stderr = self.handle:output()
  return stdout, stderr
end

--- Send a signal to the child alone. Does nothing once it has ended.
-- @tparam string|number signal such as `TERM`
function Process:signal(signal)
  self.handle:signal(signal_number(signal), false)
end

--- Kill the child and all it started.
function Process:kill()
  self.handle:signal(process.signals.KILL, true)
end

--- Forget the child; it is killed when it still runs.
function Process:close()
  self.handle:close()
end

--- Run a program to its end. Yields. When the task is cancelled meanwhile the child is killed.
-- @tparam table options as for `spawn`, and `timeout` in seconds, after which it is killed
-- @treturn[1] table result, as `Process:wait` gives it, whatever the exit code
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` (could not be run) or `TIMEOUT`
function process.run(options)
  local timeout = options.timeout
  local start = {}
  for name, value in pairs(options) do
    start[name] = name ~= "timeout" and value or nil
  end
  local child, err = process.spawn(start)
  if not child then
    return nil, err
  end
  local ok, result, failure = pcall(child.wait, child, timeout)
  child:close()
  if not ok then
    error(result, 0)
  elseif not result then
    failure.message = ("%s did not end within %gs and was killed"):format(options.argv[1], timeout)
    return nil, failure
  end
  return result
end

--- Is there a process with this id? One that has ended and that nobody has asked about does not count.
-- @tparam number pid
-- @treturn boolean
function process.is_alive(pid)
  local stat = io.open(("/proc/%d/stat"):format(pid))
  if not stat then
    return false
  end
  local state = (stat:read("*a") or ""):match("%) (%a)[^)]*$")
  stat:close()
  return state ~= nil and state ~= "Z" and state ~= "X"
end

return process
