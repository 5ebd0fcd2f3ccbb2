--- A cluster that is kept open and looked after: `lunashard serve`.
-- @module lunashard.serve

local access = require("lunashard.serve.access")
local attach = require("lunashard.attach.server")
local cluster = require("lunashard.cluster")
local errors = require("lunashard.errors")
local http = require("lunashard.serve.http")
local jobs = require("lunashard.serve.jobs")
local keys = require("lunashard.metrics.keys")
local metrics = require("lunashard.metrics")
local notify = require("lunashard.serve.notify")
local page = require("lunashard.serve.page")
local rebalance = require("lunashard.serve.rebalance")
local signal = require("lunashard.core.signal")
local signals = require("lunashard.process").signals
local status = require("lunashard.serve.status")
local task = require("lunashard.task")
local warn = require("lunashard.warn")

local serve = {}

local STOP_TIMEOUT = 10
local ALARM_AFTER = 6 -- seconds after the time to stop is over

local KEYS_EVERY = 300 -- seconds between the estimates of how many rows the shards hold

local Service = {}
Service.__index = Service

local wait_signal = task.waits(signal.wait)

-- More than half of the shards, when nothing else is asked for.
local function readiness(self)
  local now = self.cluster.manager:get_cluster_status()
  local wanted = self.options.min_shards or math.floor(now.total_shards / 2) + 1
  if self.stopping then
    return false, "stopping"
  elseif now.healthy_shards >= wanted then
    return true
  end
  return false, ("%d of %d shards are healthy, %d are wanted"):format(now.healthy_shards, now.total_shards, wanted)
end

local function sources(self)
  local feed = page.feed()
  return {
    ready = function()
      return readiness(self)
    end,
    metrics = function()
      return metrics.render(self.cluster)
    end,
    status = function()
      return status.read(self.cluster)
    end,
    page = function()
      return page.render(status.read(self.cluster))
    end,
    script = require("lunashard.serve.page.script"),
    changes = function(all)
      return feed:changes(status.read(self.cluster), all)
    end,
  }
end

local function open_http(self)
  local options = self.options
  if not options.host then
    return true
  end
  local server, err = http.listen({ host = options.host, port = options.port, auth = options.auth }, sources(self))
  if not server then
    return nil, err
  end
  self.http, self.cluster.http = server, server
  warn.emit(("HTTP on http://%s:%d/"):format(options.host:find(":", 1, true) and "[" .. options.host .. "]" or options.host,
    server:port()))
  return true
end

local function open_socket(self)
  local path = self.options.socket
  if not path then
    return true
  elseif path == true then
    path = attach.default_path(self.cluster.name)
  end
  local server, err = attach.listen(self.cluster, path)
  if server then
    self.attach = server
    warn.emit(("attach with: lunashard repl --attach %s"):format(path))
  elseif self.options.must_attach then
    return nil, err
  else
    warn.emit(("nobody can attach: %s"):format(err.message))
  end
  return true
end

-- From before anybody is told where to ask on, so that whoever has been told can stop it as it should be stopped.
local function catch_signals(options)
  local last = (options.stop_timeout or STOP_TIMEOUT) + ALARM_AFTER
  signal.catch(signals.HUP)
  signal.catch(signals.TERM, last)
  signal.catch(signals.INT, last)
end

local function release_signals()
  for _, name in ipairs({ "HUP", "TERM", "INT" }) do
    signal.release(signals[name])
  end
end

--- Open a cluster and answer for it. Yields. Signals wait for `run` from then on.
-- @tparam table options
--
-- - `cluster`: path of the cluster file
-- - `host`, `port`: where to listen; nowhere without them
-- - `auth`: the secret that requests must bring
-- - `socket`: path of the local socket that prompts attach to, true for where it usually is; none without it
-- - `must_attach`: it is an error when that socket cannot be had
-- - `min_shards`: so many healthy shards make it ready; more than half by default
-- - `stop_timeout`: seconds that a job has to end when it is to stop [10]
-- @treturn[1] Service with `cluster`, `http`, `jobs`, `run`, `stop`, `close`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function serve.open(options)
  if options.host then
    local rules, problem = access.rules(options)
    if not rules then
      return nil, errors.new("INVALID", { message = problem })
    end
  end
  local opened, err = cluster.open(options.cluster)
  if not opened then
    return nil, err
  end
  local self = setmetatable({ options = options, cluster = opened }, Service)
  warn.emit(("cluster %s (%s), %d shard%s"):format(opened.name or "without a name", options.cluster,
    #opened.manager.shards, #opened.manager.shards == 1 and "" or "s"))
  self.jobs = jobs.new(opened, opened.manager.options.jobs)
  opened.jobs = self.jobs
  self.watch = status.watch(opened)
  catch_signals(options)
  local ok
  ok, err = open_http(self)
  if not ok then
    self:close()
    return nil, err
  end
  ok, err = open_socket(self)
  if not ok then
    self:close()
    return nil, err
  end
  if opened.manager.plugins then
    opened.manager.plugins:watch()
  end
  self.jobs:start()
  self.counter = task.daemon(keys.watch, opened, KEYS_EVERY)
  self.mover_watch = task.daemon(rebalance.watch, opened)
  return self
end

-- ---- what it is told ------------------------------------------------------------------

local function reload(self)
  notify.send(("RELOADING=1\nMONOTONIC_USEC=%.0f"):format(task.now() * 1e6))
  local changed, err = self.cluster:reload()
  if changed then
    self.jobs:set(self.cluster.manager.options.jobs)
    warn.emit(("cluster file read again, %s"):format(#changed == 0 and "nothing changed" or #changed == 1 and "one change"
      or #changed .. " changes"))
    for _, change in ipairs(changed) do
      warn.emit("  " .. change.message)
    end
  else
    warn.emit(("cluster file read again, and nothing was changed: %s"):format(err.message))
  end
  notify.send("READY=1")
end

-- Asked again while it reads the file, it reads it once more.
local function reload_in_turn(self)
  repeat
    self.reload_again = false
    reload(self)
  until not self.reload_again
  self.reloading = nil
end

local function on_signal(self, signo)
  if signo == signals.HUP and self.reloading then
    self.reload_again = true
  elseif signo == signals.USR1 then
    return -- see lunashard.attach.server
  elseif signo == signals.HUP then
    self.reloading = task.daemon(reload_in_turn, self)
  else
    warn.emit(("stopping, by signal %d"):format(signo))
    self:stop()
  end
end

--- Serve until it is told to stop. SIGHUP reads the cluster file again, SIGTERM and SIGINT stop. Yields.
function Service:run()
  local interval = notify.interval()
  notify.send("READY=1")
  while not self.stopping do
    wait_signal(task.deadline(interval))
    local signo = signal.take()
    if signo then
      on_signal(self, signo)
    else
      notify.send("WATCHDOG=1")
    end
  end
end

--- Stop: jobs end, or are cancelled when their time is over; then nothing is answered any more, and the cluster is
-- closed. Yields. May be called again.
function Service:stop()
  self.stopping = true
  notify.send("STOPPING=1")
  self.jobs:stop(task.now() + (self.options.stop_timeout or STOP_TIMEOUT))
  self:close()
end

--- Close it all at once. May be called again.
function Service:close()
  self.stopping = true
  if self.http then
    self.http:close()
  end
  if self.attach then
    self.attach:close()
  end
  for _, background in ipairs({ self.counter, self.mover_watch, self.reloading }) do
    background:cancel()
  end
  self.watch:stop()
  self.cluster:close()
  release_signals()
end

return serve
