--- Lunashard: sharding for PostgreSQL, scripted in Lua.
-- The public table. What is in it is loaded when it is first used.
-- @module lunashard

local lunashard = {
  --- The release.
  version = "0.1.0",
}

-- name -> the module that has it, and its name there when it is not the module itself.
local EXPORTS = {
  manager = { "lunashard.manager", "new" },
  router = { "lunashard.router", "new" },
  rebalancer = { "lunashard.rebalancer", "new" },
  open = { "lunashard.cluster", "open" },
  strategy = { "lunashard.strategy" },
  aggregate = { "lunashard.aggregate" },
  extractor = { "lunashard.extractor" },
  reload = { "lunashard.loader", "reload" },
  policy = { "lunashard.policy" },
  ids = { "lunashard.ids" },
  cache = { "lunashard.cache", "new" },
  errors = { "lunashard.errors" },
  set_warn = { "lunashard.warn", "set" },
  set_dns_servers = { "lunashard.dns", "set_servers" },
  spawn = { "lunashard.task", "spawn" },
  gather = { "lunashard.task", "gather" },
  sleep = { "lunashard.task", "sleep" },
  now = { "lunashard.task", "now" },
  metrics = { "lunashard.metrics" },
  stats = { "lunashard.stats", "read" },
  event = { "lunashard.task", "event" },
  null = { "lunashard.values", "null" },
  json = { "lunashard.values", "json" },
  bytea = { "lunashard.values", "bytea" },
}

-- Not kept here: a module that is loaded anew is then used anew as well.
return setmetatable(lunashard, {
  __index = function(_, name)
    local export = EXPORTS[name]
    if not export then
      local near = type(name) == "string" and require("lunashard.errors").nearest(name, EXPORTS)
      error(("lunashard has no %q%s"):format(tostring(name), near and ("; did you mean %q?"):format(near) or ""), 2)
    end
    local module = package.loaded[export[1]] or require(export[1])
    if export[2] then
      return module[export[2]]
    end
    return module
  end,
})
