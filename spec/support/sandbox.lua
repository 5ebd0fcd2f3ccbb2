--- Servers for the specs.
-- `make test` starts one sandbox for the whole run and names its directory in LUNASHARD_TEST_SANDBOX;
-- without that, the first spec that asks starts one, which its file removes in the end.
-- @module spec.support.sandbox

local sandbox = require("lunashard.sandbox")
local system = require("lunashard.core.system")

local support = {}

local Private = {}
Private.__index = Private

-- The sandbox as specs like it: shards with everything that a connection takes.
local function describe(place)
  local status = assert(sandbox.status(place))
  local secrets = assert(sandbox.credentials(place))
  local description = {
    place = place,
    dir = status.dir,
    cluster_file = status.cluster_file,
    passfile = status.passfile,
    ca_file = status.ca_file,
    shards = {},
  }
  local by_id = {}
  for _, node in ipairs(status.servers) do
    local entry = {
      name = node.name,
      shard_id = node.shard_id,
      host = node.host,
      port = node.port,
      database = node.database,
      user = secrets.user,
      password = secrets.password,
      superuser = secrets.superuser,
      superuser_password = secrets.superuser_password,
    }
    if by_id[node.shard_id] then
      table.insert(by_id[node.shard_id].replicas, entry)
    else
      entry.replicas = {}
      by_id[node.shard_id] = entry
      table.insert(description.shards, entry)
    end
  end
  return description
end

--- The sandbox that all specs share: three shards, no replicas, no TLS. Yields.
-- Clean up what you make in it: tables, rows, settings.
-- @treturn table `cluster_file`, `dir`, `passfile`, `shards`: a list of `shard_id`, `host`, `port`, `database`, `user`,
-- `password`, `superuser`, `superuser_password`, `replicas`
function support.shared()
  local dir = os.getenv("LUNASHARD_TEST_SANDBOX")
  if dir and dir ~= "" then
    return describe({ dir = dir })
  end
  local place = { name = ("spec-%d"):format(system.getpid()) }
  assert(sandbox.start({ name = place.name, shards = 3 }))
  return describe(place)
end

--- Remove the shared sandbox when `shared` had to start it; for a `teardown`. Yields.
function support.release()
  local place = { name = ("spec-%d"):format(system.getpid()) }
  if not os.getenv("LUNASHARD_TEST_SANDBOX") and sandbox.status(place) then
    assert(sandbox.destroy(place))
  end
end

local count = 0

--- A sandbox of one's own, for specs that break it; to be destroyed in the end. Yields.
-- @tparam[opt] table options `shards` [1], `replicas`, `tls`
-- @treturn table as `shared` gives it, with `:start() :stop() :kill(server) :promote(server) :refresh() :destroy()`
function support.start(options)
  options = options or {}
  count = count + 1
  local place = { name = ("spec-%d-%d"):format(system.getpid(), count) }
  assert(sandbox.start({
    name = place.name,
    shards = options.shards or 1,
    replicas = options.replicas,
    tls = options.tls,
  }))
  return setmetatable(describe(place), Private)
end

--- Read ports and roles anew, in place.
function Private:refresh()
  for name, value in pairs(describe(self.place)) do
    self[name] = value
  end
  return self
end

--- Start what is down.
function Private:start()
  assert(sandbox.start(self.place))
  return self:refresh()
end

--- Stop all servers, or one.
-- @string[opt] server such as `shard1` or `shard1_replica1`
function Private:stop(server)
  assert(sandbox.stop(self.place, server))
end

--- Restart a primary as a standby behind a replica.
-- @string server
function Private:demote(server)
  assert(sandbox.demote(self.place, server))
end

--- Make a server a standby of its shard's present primary.
-- @string server
function Private:rejoin(server)
  assert(sandbox.rejoin(self.place, server))
end

--- Kill a server with SIGKILL.
-- @string server such as `shard1` or `shard1_replica1`
function Private:kill(server)
  assert(sandbox.kill(self.place, server))
end

--- Make a replica the primary.
-- @string server
function Private:promote(server)
  assert(sandbox.promote(self.place, server))
end

--- Remove it all.
function Private:destroy()
  assert(sandbox.destroy(self.place))
end

return support
