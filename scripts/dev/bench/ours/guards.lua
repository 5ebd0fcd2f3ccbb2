--- Point reads and writes by primary key in turn: of a static cluster, with a catalog, and while its guards are asked for.
local harness = require("ours.harness")
local install = require("lunashard.catalog.install")
local lease = require("lunashard.catalog.lease")
local lunashard = require("lunashard")

local READ = "SELECT * FROM users WHERE user_id = $1"
local WRITE = "UPDATE users SET is_active = NOT is_active WHERE user_id = $1"

local function open(options)
  return harness.open(options, function(given)
    given.tables = { users = { shard_key = "user_id", type = "int8" } }
  end)
end

local function measure(options, router, sql)
  return harness.window(options, function()
    local key = math.random(options.keys)
    assert(router:execute(sql, { key }, { routing_key = key }))
  end).rate
end

return function(options)
  local router, manager = open(options)
  local figures = { static = measure(options, router, READ), static_writes = measure(options, router, WRITE) }
  assert(install.run(manager))
  manager:shutdown()
  router, manager = open(options)
  figures.catalog = measure(options, router, READ)
  assert(lease.open_guards(manager.catalog, lunashard.now() + 10))
  figures.guarded, figures.guarded_writes = measure(options, router, READ), measure(options, router, WRITE)
  assert(lease.close_guards(manager.catalog))
  manager:shutdown()
  manager = select(2, open(options))
  assert(install.drop(manager))
  manager:shutdown()
  return figures
end
