--- Functions of Lua's library that a plug-in cannot use to get around its limits.
-- LuaJIT's own `xpcall` runs its handler where no hook can stop it, its coroutines can be nested
-- until C's stack is full, and `sort` and `concat` work through a large table in one go. All others of
-- the library are either bounded by the limit on memory or not for plug-ins.
-- @module lunashard.plugin.basics

jit.off(true, true) -- see lunashard.plugin.budget

local core = require("lunashard.core.budget")

local basics = { coroutine = {}, table = {} }

local MANY = 10000 -- elements that C may work on in one go

local raw_create, raw_resume, raw_running = coroutine.create, coroutine.resume, coroutine.running
local raw_xpcall = xpcall
local raw_sort, raw_concat = table.sort, table.concat
local check_stack, is_stopped = core.check_stack, core.is_stopped

--- As in Lua; what stops a plug-in goes through it.
basics.pcall = pcall -- the hook that stops raises again after it

--- As in Lua, with arguments; the handler does not see what stops a plug-in.
function basics.xpcall(fn, handler, ...)
  return raw_xpcall(fn, function(err)
    if is_stopped() then
      return err
    end
    return handler(err)
  end, ...)
end

local own = setmetatable({}, { __mode = "k" }) -- coroutines of plug-ins

local function create(fn)
  local co = raw_create(fn)
  own[co] = true
  return co
end

-- As in Lua.
basics.coroutine.create, basics.coroutine.status, basics.coroutine.yield = create, coroutine.status, coroutine.yield

--- As in Lua, but the program's own coroutines, which are its tasks, are not handed out.
function basics.coroutine.running()
  local co = raw_running()
  return own[co or false] and co or nil
end

--- As in Lua, but nested only so deep.
function basics.coroutine.resume(co, ...)
  check_stack()
  return raw_resume(co, ...)
end

local function unwrap(ok, ...)
  if not ok then
    error((...), 0)
  end
  return ...
end

--- As in Lua, but nested only so deep.
function basics.coroutine.wrap(fn)
  local co = create(fn)
  return function(...)
    check_stack()
    return unwrap(raw_resume(co, ...))
  end
end

local function is_less(a, b)
  return a < b
end

--- As in Lua.
function basics.table.sort(list, before)
  if before == nil and type(list) == "table" and #list > MANY then
    before = is_less
  end
  return raw_sort(list, before)
end

--- As in Lua.
function basics.table.concat(list, separator, first, last)
  if type(list) ~= "table" or (last or #list) - (first or 1) < MANY then
    return raw_concat(list, separator, first, last)
  end
  local parts = {}
  last = last or #list
  for i = first or 1, last, MANY do
    parts[#parts + 1] = raw_concat(list, separator, i, math.min(i + MANY - 1, last))
  end
  return raw_concat(parts, separator)
end

return basics
