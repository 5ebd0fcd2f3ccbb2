--- What every state runs first: waits relayed through coroutines, module look-up, os.exit.
-- @module lunashard.prelude

-- luacheck: ignore 122 (replacing functions of the standard library is what this file is for)

local core = require("lunashard.core.task")

local WAIT = core.WAIT
local raw_resume, raw_yield = coroutine.resume, coroutine.yield

-- A wait inside a user's own coroutine yields the WAIT token to whoever resumed
-- it: pass it outwards, so that the whole task parks, and the answer inwards.
local function relay(co, ok, token, ...)
  if ok and token == WAIT then
    return relay(co, raw_resume(co, raw_yield(token, ...)))
  end
  return ok, token, ...
end

function coroutine.resume(co, ...)
  return relay(co, raw_resume(co, ...))
end

local function unwrap(ok, ...)
  if not ok then
    error((...), 0)
  end
  return ...
end

function coroutine.wrap(fn)
  local co = coroutine.create(fn)
  return function(...)
    return unwrap(relay(co, raw_resume(co, ...)))
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
