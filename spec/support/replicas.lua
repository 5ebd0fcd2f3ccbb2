--- One shard with replicas whose replay can be held, for the specs of reads.
-- @module spec.support.replicas

local cluster = require("spec.support.cluster")
local pool = require("lunashard.pool")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local Servers = {}
Servers.__index = Servers

local replicas = {}

local function address(server)
  return ("%s:%d"):format(server.host, server.port)
end

--- Start a shard with replicas. Yields.
-- @int n of replicas
-- @treturn Servers `sandbox`, `primary` (its address) and `replicas` (theirs, in order)
function replicas.start(n)
  local own = sandbox.start({ shards = 1, replicas = n })
  local shard = own.shards[1]
  local self = setmetatable({ sandbox = own, primary = address(shard), replicas = {}, servers = {}, pools = {} }, Servers)
  self.servers[self.primary] = shard
  for i, server in ipairs(shard.replicas) do
    self.replicas[i] = address(server)
    self.servers[self.replicas[i]] = server
  end
  return self
end

--- Run a statement as superuser.
-- @string where address of a server
-- @string sql
-- @treturn {table,...} rows
function Servers:admin(where, sql)
  local server = self.servers[where]
  self.pools[where] = self.pools[where] or pool.new({
    shard_id = "admin",
    host = server.host,
    port = server.port,
    database = server.database,
    user = server.superuser,
    password = server.superuser_password,
    pipeline = false,
  })
  return assert(self.pools[where]:execute(sql, nil, { deadline = task.now() + 10 })).rows
end

--- Hold the replay of a replica.
function Servers:pause(where)
  self:admin(where, "SELECT pg_wal_replay_pause()")
  cluster.wait_until("replay is held", function()
    return self:admin(where, "SELECT pg_get_wal_replay_pause_state() AS state")[1].state == "paused"
  end)
end

--- Let it go on.
function Servers:resume(where)
  self:admin(where, "SELECT pg_wal_replay_resume()")
end

--- Wait until every replica that is not held has replayed all that the primary has written.
-- @tparam[opt] table held set of addresses: these need only have received it
function Servers:wait_for_replay(held)
  local position = self:admin(self.primary, "SELECT pg_current_wal_flush_lsn()::text AS lsn")[1].lsn
  for _, where in ipairs(self.replicas) do
    local how = held and held[where] and "pg_last_wal_receive_lsn" or "pg_last_wal_replay_lsn"
    cluster.wait_until(where .. " has it", function()
      return self:admin(where, ("SELECT %s() >= '%s' AS there"):format(how, position))[1].there
    end)
  end
end

--- End the connections of `admin` and remove the servers.
function Servers:destroy()
  for _, one in pairs(self.pools) do
    one:close()
  end
  self.sandbox:destroy()
end

return replicas
