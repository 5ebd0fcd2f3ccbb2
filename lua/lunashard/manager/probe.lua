--- One look at one endpoint: is it there, what is it, how far behind.
-- @module lunashard.manager.probe

local answers = require("lunashard.pool.answers")
local core = require("lunashard.core.probe")
local pool = require("lunashard.pool")
local task = require("lunashard.task")

local probe = {}

local Probe = {}
Probe.__index = Probe

local look

--- Make a probe. It has a connection of its own, which it opens with the first look.
-- @tparam table options as for `lunashard.pool.new`
-- @treturn Probe
function probe.new(options)
  local settings = pool.settings(options)
  return setmetatable({
    handle = assert(core.new(settings)),
    shard_id = options.shard_id,
    endpoint = settings.endpoint,
  }, Probe)
end

--- Connect with other options from now on.
-- @tparam table options as for `new`
function Probe:reconfigure(options)
  self.handle:reconfigure(pool.settings(options))
end

--- Close it; a look that is under way ends with `CLOSED`.
function Probe:close()
  self.handle:close()
end

--- Ask an endpoint who it is. Yields.
-- @tparam table endpoint
-- @number deadline
-- @treturn[1] table `latency` (seconds), `in_recovery`, `streaming` (a standby that is connected to its primary),
--   `managed` (the database is a shard of a cluster with a catalog), and as far as this user may know it `timeline`,
--   `lsn`, `received`, `replay_age`, `system_identifier`, `started`, `server_encoding`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function probe.run(endpoint, deadline)
  local self, started = endpoint.probe, task.now()
  look = look or task.waits(self.handle.look)
  local seen, err = look(self.handle, deadline)
  local found
  if seen then
    found, err = seen:report()
  end
  if not found then
    return answers.fail(self, err, started)
  end
  return found
end

return probe
