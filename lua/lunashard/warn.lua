--- Where warnings go: one line each on stderr, unless a script takes them.
-- @module lunashard.warn

local warn = {}

local function to_stderr(message)
  io.stderr:write("lunashard: ", message, "\n")
end

local sink = to_stderr

--- Emit a warning.
-- @string message one line
-- @tparam ?table event what it tells of, see `lunashard.events`
function warn.emit(message, event)
  sink(message, event)
end

--- Send warnings to a function of one's own.
-- @tparam ?func fn called with each message, and its event where there is one; nil restores stderr
-- @treturn func what took them before, for putting it back
function warn.set(fn)
  local before = sink
  sink = fn or to_stderr
  return before
end

return warn
