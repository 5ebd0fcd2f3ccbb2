--- A cluster that is kept open, to be looked at: `lunashard serve`.
-- @module lunashard.serve

local cluster = require("lunashard.cluster")
local http = require("lunashard.serve.http")
local task = require("lunashard.task")
local warn = require("lunashard.warn")

local serve = {}

local Service = {}
Service.__index = Service

local function optional(name)
  local ok, module = pcall(require, name)
  return ok and module or nil
end

-- More than half of the shards, when nothing else is asked for.
local function readiness(self)
  local status = self.cluster.manager:get_cluster_status()
  local wanted = self.options.min_shards or math.floor(status.total_shards / 2) + 1
  if self.stopping then
    return false, "stopping"
  elseif status.healthy_shards >= wanted then
    return true
  end
  return false, ("%d of %d shards are healthy, %d are wanted"):format(status.healthy_shards, status.total_shards, wanted)
end

local function sources(self)
  local metrics, status, page = optional("lunashard.metrics"), optional("lunashard.serve.status"),
    optional("lunashard.serve.page")
  return {
    ready = function()
      return readiness(self)
    end,
    metrics = metrics and function()
      return metrics.render(self.cluster)
    end,
    status = status and function()
      return status.read(self.cluster)
    end,
    page = page and function()
      return page.render(status.read(self.cluster))
    end,
  }
end

--- Open a cluster and answer for it. Yields.
-- @tparam table options
--
-- - `cluster`: path of the cluster file
-- - `host`, `port`: where to listen; nowhere without them
-- - `auth`: the secret that requests must bring
-- - `min_shards`: so many healthy shards make it ready; more than half by default
-- @treturn[1] Service with `cluster`, `http`, `run`, `close`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function serve.open(options)
  local opened, err = cluster.open(options.cluster)
  if not opened then
    return nil, err
  end
  local self = setmetatable({ options = options, cluster = opened, done = task.event() }, Service)
  if options.host then
    self.http, err = http.listen({ host = options.host, port = options.port, auth = options.auth }, sources(self))
    if not self.http then
      opened:close()
      return nil, err
    end
    local host = options.host:find(":", 1, true) and "[" .. options.host .. "]" or options.host
    warn.emit(("HTTP on http://%s:%d/"):format(host, self.http:port()))
  end
  if opened.manager.plugins then
    opened.manager.plugins:watch()
  end
  return self
end

--- Serve until it is stopped. Yields.
function Service:run()
  while not self.stopping do
    self.done:wait()
  end
end

--- Stop answering, and close the cluster. May be called again.
function Service:close()
  self.stopping = true
  if self.http then
    self.http:close()
  end
  self.cluster:close()
end

return serve
