--- Raising for misuse, at the place of whoever called wrongly.
-- @module lunashard.misuse

local misuse = {}

local wrappers = setmetatable({}, { __mode = "k" })

--- Raise as `error` does, but never blame a function that @{wrapper} names: its caller is meant.
-- @string message
-- @int level as `error` counts it
function misuse.raise(message, level)
  local info = debug.getinfo(level + 1, "f")
  error(message, level + (info and wrappers[info.func] and 2 or 1))
end

--- Name a function that stands between a public function and its callers.
-- @tparam function fn
-- @treturn function `fn`
function misuse.wrapper(fn)
  wrappers[fn] = true
  return fn
end

return misuse
