--- Lunashard: sharding for PostgreSQL, scripted in Lua.
-- The public table. Everything in it is loaded when it is first used.
-- @module lunashard

local lunashard = {}

local function exported(module_name, field)
  return function()
    return require(module_name)[field]
  end
end

local function whole(module_name)
  return function()
    return require(module_name)
  end
end

-- name -> how to get it
local EXPORTS = {
  manager = exported("lunashard.manager", "new"),
  router = exported("lunashard.router", "new"),
  open = exported("lunashard.cluster", "open"),
  set_warn = exported("lunashard.warn", "set"),
  strategy = whole("lunashard.strategy"),
  aggregate = whole("lunashard.aggregate"),
  errors = whole("lunashard.errors"),
  ids = whole("lunashard.ids"),
  cache = exported("lunashard.cache", "new"),
  spawn = exported("lunashard.task", "spawn"),
  gather = exported("lunashard.task", "gather"),
  sleep = exported("lunashard.task", "sleep"),
  now = exported("lunashard.task", "now"),
  event = exported("lunashard.task", "event"),
  null = exported("lunashard.values", "null"),
  json = exported("lunashard.values", "json"),
  bytea = exported("lunashard.values", "bytea"),
  version = function()
    return "0.1.0"
  end,
}

return setmetatable(lunashard, {
  __index = function(self, name)
    local get = EXPORTS[name]
    if not get then
      local near = type(name) == "string" and require("lunashard.errors").nearest(name, EXPORTS)
      error(("lunashard has no %q%s"):format(tostring(name), near and ("; did you mean %q?"):format(near) or ""), 2)
    end
    local value = get()
    rawset(self, name, value)
    return value
  end,
})
