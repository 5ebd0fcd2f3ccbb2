--- The same work on several items at once, bounded.
-- @module lunashard.parallel

local errors = require("lunashard.errors")
local task = require("lunashard.task")

local parallel = {}

-- What a member of the crowd raised that is no error object is a bug of the
-- caller's function: it is raised again where the caller is.
local function guarded(fn, item, i)
  local ok, value, err = pcall(fn, item, i)
  if ok and value == nil and err == nil then
    return nil, { raised = "parallel.each: the function returned neither a value nor an error" }
  elseif ok then
    return value, err
  elseif errors.is(value) then
    return nil, value
  end
  return nil, { raised = value }
end

local function run_inline(items, fn, state, stop_on_error)
  for i, item in ipairs(items) do
    if state.stopped then
      return
    end
    local value, err = fn(item, i)
    state.results[i], state.errors[i] = value, value == nil and err or nil
    state.started[i] = true
    if value == nil and stop_on_error then
      state.stopped = true
    end
  end
end

local function cancel(workers)
  for _, worker in ipairs(workers) do
    worker:cancel()
  end
end

local function run_tasks(items, fn, state, width, cancels, stop_on_error)
  local changed, running, workers, next_item = task.event(), width, {}, 0
  local function work()
    while next_item < #items and not state.stopped do
      next_item = next_item + 1
      local i = next_item
      state.started[i] = true
      local value, err = guarded(fn, items[i], i)
      if not state.closed then
        state.results[i], state.errors[i] = value, value == nil and err or nil
        if value == nil and (stop_on_error or err.raised) then
          state.stopped = true
        end
      end
    end
    running = running - 1
    changed:notify()
  end
  for w = 1, width do
    workers[w] = task.spawn(work):watch()
  end
  -- When the caller itself is cancelled the crowd must not go on without it.
  local ok, err = pcall(function()
    while running > 0 and not (cancels and state.stopped) do
      changed:wait()
    end
  end)
  state.closed = true
  if not ok then
    cancel(workers)
    error(err, 0)
  elseif running > 0 then
    cancel(workers)
    for _, worker in ipairs(workers) do
      worker:join()
    end
  end
end

--- Call `fn(item, i)` for each item, in tasks. Yields.
-- `fn` returns a value, or nil and an error; that it returned neither is raised. When the calling task is cancelled, so are the
-- members.
-- @tparam table items list
-- @tparam func fn
-- @tparam[opt] table opts `limit`: how many at a time [all]; `stop_on_error`: start no more after a
--   failure; `cancel_on_error`: and cancel those that run
-- @treturn table `results`, `errors` and `started`, each by index
function parallel.each(items, fn, opts)
  opts = opts or {}
  local state = { results = {}, errors = {}, started = {} }
  local width = math.min(#items, opts.limit or #items)
  local stop_on_error = opts.stop_on_error or opts.cancel_on_error
  if width <= 1 then
    run_inline(items, fn, state, stop_on_error)
    return state
  end
  run_tasks(items, fn, state, width, opts.cancel_on_error, stop_on_error)
  for i = 1, #items do
    local err = state.errors[i]
    if err and err.raised then
      error(err.raised, 0)
    end
  end
  return state
end

return parallel
