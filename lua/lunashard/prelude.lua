--- What every state runs first: waits relayed through coroutines, failures of files, module look-up,
-- os.exit.
-- @module lunashard.prelude

-- luacheck: ignore 122 (replacing functions of the standard library is what this file is for)

local core = require("lunashard.core.task")

local WAIT = core.WAIT
local raw_resume, raw_yield = coroutine.resume, coroutine.yield

local is_yieldable = coroutine.isyieldable

local waiting = setmetatable({}, { __mode = "k" }) -- coroutines parked on an operation

-- A wait inside a user's own coroutine yields the WAIT token to whoever resumed
-- it: pass it outwards, so that the whole task parks, and the answer inwards.
local relay

local function answer(co, ...)
  waiting[co] = nil
  return relay(co, raw_resume(co, ...))
end

function relay(co, ok, token, ...)
  if not ok or token ~= WAIT then
    return ok, token, ...
  end
  waiting[co] = true
  if not is_yieldable() then
    core.forget_wait()
    return false, "cannot wait inside table.sort, gsub, require and the like"
  end
  return answer(co, raw_yield(token, ...))
end

local function resume(co, ...)
  if waiting[co] then
    return false, "cannot resume a coroutine that is waiting"
  end
  return relay(co, raw_resume(co, ...))
end

coroutine.resume = resume

local function unwrap(ok, ...)
  if not ok then
    error((...), 0)
  end
  return ...
end

function coroutine.wrap(fn)
  local co = coroutine.create(fn)
  return function(...)
    return unwrap(resume(co, ...))
  end
end

local raw_exit = os.exit

--- Ends the program with everything cancelled and closed in order.
function os.exit(code)
  if code == nil or code == true then
    code = 0
  elseif code == false then
    code = 1
  end
  if core.current() then
    core.exit(code)
  end
  raw_exit(code, true)
end

-- What could not be written is said to have been by compiled code: it leaves its trace on the error and calls again, and
-- the C library, which has thrown the bytes away meanwhile, has nothing left to fail with. So none is compiled.
local function interpreted(fn)
  local function call(...)
    return fn(...)
  end
  jit.off(call)
  return call
end

local methods = debug.getmetatable(io.stdout).__index
methods.write, methods.flush = interpreted(methods.write), interpreted(methods.flush)
io.write, io.flush = interpreted(io.write), interpreted(io.flush)

-- Code is never found by itself in the working directory.
package.path = package.path:gsub("^%./%?%.lua;", "")
package.cpath = package.cpath:gsub("^%./%?%.so;", "")

-- For development: our own modules from files instead of those compiled in.
local override = os.getenv("LUNASHARD_LUA_PATH")
if override and override ~= "" then
  table.insert(package.loaders, 1, function(name)
    if name:find("^lunashard") and not package.preload[name] then
      local path = package.searchpath(name, override)
      if path then
        return assert(loadfile(path))
      end
    end
  end)
end
