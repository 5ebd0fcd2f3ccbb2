--- What happens to shards and plug-ins, told once: a line for the log, and a call for whoever wants to know.
-- @module lunashard.events

local task = require("lunashard.task")
local warn = require("lunashard.warn")

local events = {}

local subscribers = {}

local function guarded(fn, event)
  local ok, err = pcall(fn, event)
  if not ok then
    warn.emit(("a handler of the event %s raised: %s"):format(event.kind, tostring(err)))
  end
end

--- Tell of an event: one warning line, then every subscriber and the manager's `on_health`.
-- Those run in tasks of their own, so that they may wait and hold nothing up; what they raise is warned of.
-- @tparam table event `kind` (`health`, `failover`, `plugin`, ...), `shard_id`, `endpoint`, `from`, `to`, `message`
-- @tparam[opt] Manager manager whose `on_health` is called
function events.emit(event, manager)
  warn.emit(event.message, event)
  for _, fn in ipairs(subscribers) do
    task.daemon(guarded, fn, event)
  end
  events.hand(manager and manager.options.on_health, event)
end

--- Call a handler in a task of its own.
-- @tparam ?function fn
-- @tparam table event
function events.hand(fn, event)
  if fn then
    task.daemon(guarded, fn, event)
  end
end

--- Call a function with every event from now on.
-- @tparam function fn
-- @treturn function to be called to end that
function events.subscribe(fn)
  if type(fn) ~= "function" then
    error("subscribe: expected a function, got a " .. type(fn), 2)
  end
  -- Copied, not changed in place: an event may be on its way along the list.
  local list = { unpack(subscribers) }
  list[#list + 1] = fn
  subscribers = list
  return function()
    local left = {}
    for _, other in ipairs(subscribers) do
      if other ~= fn then
        left[#left + 1] = other
      end
    end
    subscribers = left
  end
end

return events
