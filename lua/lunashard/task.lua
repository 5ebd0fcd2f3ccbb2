--- Tasks: concurrency that reads like sequential code.
-- Everything that waits parks its task and lets others run. A cancelled task's
-- present wait, and every later one, raises an error object with code `CANCELED`.
-- @module lunashard.task

local core = require("lunashard.core.task")
local errors = require("lunashard.errors")
local ffi = require("ffi")

-- By FFI, for every statement looks at the clock, and a call through the C API would end the compiled code there.
ffi.cdef("double luna_loop_clock(void);")

local task = {}

local CANCELED = core.CANCELED
local read_clock = ffi.C.luna_loop_clock

--- Raise what a wait in a cancelled task raises: for callers of bindings that look for the token themselves.
-- @tparam ?table fields of the error
function task.raise_cancelled(fields)
  fields = fields or {}
  fields.message = "the task was cancelled"
  error(errors.new("CANCELED", fields), 0)
end

local function settle(value, ...)
  if value == CANCELED then
    task.raise_cancelled()
  end
  return value, ...
end

--- Make a waiting binding callable: raises where the core returns the CANCELED token.
-- @tparam function binding
-- @treturn function returns what the binding left, and whether the operation succeeded
function task.waits(binding)
  return function(...)
    return settle(binding(...))
  end
end

local sleep = task.waits(core.sleep)

--- Monotonic seconds, for durations and deadlines.
-- @treturn number
function task.now()
  return read_clock()
end

local clock = task.now

--- Wait without blocking others. Yields.
-- @tparam number seconds not negative
function task.sleep(seconds)
  sleep(seconds)
end

--- Turn a timeout into a deadline.
-- @tparam ?number timeout seconds; nil is no limit
-- @treturn ?number a time on the clock of `now`
function task.deadline(timeout)
  return timeout and clock() + timeout
end

local Task = {}
Task.__index = Task

local wait_end -- set below: needs a task for its method table

--- Start a task. It runs from the next turn of the loop on.
-- @tparam function fn
-- @param ... its arguments
-- @treturn Task with `join`, `cancel`, `status`
function task.spawn(fn, ...)
  if type(fn) ~= "function" then
    error("spawn: expected a function, got " .. type(fn), 2)
  end
  return setmetatable({ handle = core.spawn(fn, ...) }, Task)
end

--- Start a task that works in the background: it never keeps a program or a check for leaks waiting.
-- @tparam function fn
-- @param ... its arguments
-- @treturn Task
function task.daemon(fn, ...)
  return setmetatable({ handle = core.spawn_daemon(fn, ...) }, Task)
end

local function outcome(ok, ...)
  if ok then
    return true, ...
  end
  local cause = ...
  if cause == nil then
    return nil, errors.new("CANCELED", { message = "the task was cancelled" })
  elseif errors.is(cause) then
    return nil, cause
  end
  return nil, errors.new("PLUGIN_FAILED", { message = tostring(cause), cause = cause })
end

--- Wait for a task's end. Yields.
-- @tparam[opt] number timeout seconds
-- @treturn[1] boolean true
-- @return[1] what its function returned
-- @treturn[2] nil
-- @treturn[2] lunashard.error what it raised (`PLUGIN_FAILED` with `cause` when that was no
--   error object), `CANCELED` (with what it was doing where, when that is known), or `TIMEOUT` when it goes on
function Task:join(timeout)
  local _, ended = wait_end(self.handle, task.deadline(timeout))
  if not ended then
    return nil, errors.new("TIMEOUT", { message = ("the task did not end within %gs"):format(timeout) })
  end
  return outcome(self.handle:outcome())
end

--- Ask the task to end.
function Task:cancel()
  self.handle:cancel()
end

--- What the task is doing.
-- @treturn string `starting`, `running`, `waiting`, `ended`, `failed` or `canceled`
function Task:status()
  return self.handle:status()
end

--- Promise to look at the outcome later: a failure is then not printed when it happens.
-- @treturn Task itself
function Task:watch()
  self.handle:watch()
  return self
end

function wait_end(handle, deadline)
  wait_end = task.waits(handle.wait_end)
  return wait_end(handle, deadline)
end

--- Run functions at the same time and wait for all. Yields.
-- The first failure cancels the others.
-- @tparam {function,...} fns
-- @tparam[opt] table options `timeout` in seconds, for all together
-- @treturn[1] table the first result of each function, in order, and `n`
-- @treturn[2] nil
-- @treturn[2] lunashard.error what the first to fail raised, or `TIMEOUT`
function task.gather(fns, options)
  local deadline = task.deadline(options and options.timeout)
  local n, results, changed = #fns, { n = #fns }, task.event()
  local left, failure = n, nil
  local tasks = {}
  for i = 1, n do
    local fn = fns[i]
    tasks[i] = task.spawn(function()
      local ok, value = pcall(fn)
      if ok then
        results[i] = value
      else
        failure = failure or { value = value }
      end
      left = left - 1
      if left == 0 or failure then
        changed:notify()
      end
    end)
  end
  -- A cancel of the caller must reach the members too.
  local ok, err = pcall(function()
    while left > 0 and not failure do
      if not changed:wait(deadline) then
        failure = { timeout = true }
      end
    end
  end)
  if ok and not failure then
    return results
  end
  for i = 1, n do
    tasks[i]:cancel()
  end
  if not ok then
    error(err, 0)
  elseif failure.timeout then
    return nil, errors.new("TIMEOUT", { message = ("gather: not done within %gs"):format(options.timeout) })
  end
  return outcome(false, failure.value)
end

local Event = {}
Event.__index = Event
local event_wait

--- An event that tasks can wait for.
-- @treturn Event with `wait(deadline)` and `notify(n)`
function task.event()
  return setmetatable({ core = core.event() }, Event)
end

--- Wait for the next `notify`. Yields.
-- @tparam[opt] number deadline on the clock of `now`
-- @treturn boolean false when the deadline came first
function Event:wait(deadline)
  event_wait = event_wait or task.waits(self.core.wait)
  local _, ok = event_wait(self.core, deadline)
  return ok
end

--- Wake waiting tasks, in the order in which they came.
-- @tparam[opt] int n how many at the most; all by default
function Event:notify(n)
  return self.core:notify(n)
end

return task
