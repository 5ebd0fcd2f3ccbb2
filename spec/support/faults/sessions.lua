--- What specs do to the application's sessions on a server, as its superuser would.
-- @module spec.support.faults.sessions

local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local pool = require("lunashard.pool")
local task = require("lunashard.task")

local sessions = {}

--- End all of the application's sessions. Yields until they are gone.
-- @tparam table server as spec.support.sandbox describes it
-- @string[opt="lunashard"] name of the application
-- @treturn number how many there were
function sessions.terminate(server, name)
  local sql = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND application_name = $2"
  local pids = {}
  for i, row in ipairs(assert(faults.ask(server, sql, { server.user, name or "lunashard" })).rows) do
    pids[i] = row.pid
  end
  cluster.wait_until("the sessions are gone", function()
    sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE pid = ANY ($1)"
    return assert(faults.ask(server, sql, { pids })).rows[1].n == 0
  end)
  return #pids
end

local Hog = {}
Hog.__index = Hog

--- Take all of a server's connections that the application may have, until `release`: those that come free as well. Yields
-- until there are none left.
-- @tparam table server
-- @treturn Hog
function sessions.hog(server)
  local self = setmetatable({ leases = {}, tasks = {}, refused = false }, Hog)
  self.pool = pool.new({
    host = server.host, port = server.port, database = server.database, user = server.user, password = server.password,
    max_size = 200, application_name = "hog", pipeline = false,
  })
  self.task = task.spawn(function()
    while not self.released do
      local lease = self.pool:acquire(task.now() + 0.2)
      if lease then
        table.insert(self.leases, lease)
      end
      local stats = self.pool:stats()
      self.refused = self.refused or stats.connect_failures > 0 and stats.last_error
    end
  end)
  local deadline = task.now() + 20
  while not self.refused do
    assert(task.now() < deadline, "the server's connections do not come to an end")
    task.sleep(0.01)
  end
  return self
end

--- Give them all back. Yields.
function Hog:release()
  self.released = true
  assert(self.task:join(5))
  self.pool:close()
end

return sessions
