--- Managers and routers on the shared sandbox, for the specs of the Lua layer.
-- What `open` and `connect` gave is closed by `close_all`, so that a failed spec leaks nothing into the next.
local cluster_file = require("lunashard.cluster")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local cluster = {}

local opened = {}

--- The options of a sandbox's cluster file, with some replaced.
-- @tparam[opt] table overrides; `cluster_file` takes another sandbox than the shared one
function cluster.options(overrides)
  local path = overrides and overrides.cluster_file or sandbox.shared().cluster_file
  local options = assert(cluster_file.load(path))
  for name, value in pairs(overrides or {}) do
    options[name] = value
  end
  options.cluster_file = nil
  return options
end

--- A manager that was not initialized.
function cluster.manager(overrides)
  local manager = lunashard.manager(cluster.options(overrides))
  opened[#opened + 1] = manager
  return manager
end

--- An initialized manager and its router.
-- @tparam[opt] table overrides
-- @treturn Router router
-- @treturn Manager manager
function cluster.connect(overrides)
  local manager = cluster.manager(overrides)
  assert(manager:initialize())
  return lunashard.router({ shard_manager = manager }), manager
end

--- To be called from the last `teardown`: remove the sandbox if this file started it.
function cluster.release()
  cluster.close_all()
  sandbox.release()
end

--- Close all managers that were made.
function cluster.close_all()
  for _, manager in ipairs(opened) do
    manager:shutdown()
  end
  opened = {}
end

--- A key that lives on the shard of this number.
function cluster.key_on(manager, number, above)
  local wanted = manager.shards[number].shard_id
  for key = (above or 0) + 1, (above or 0) + 10000 do
    if manager:get_shard_for_write(key).shard_id == wanted then
      return key
    end
  end
  error("no key found on " .. wanted)
end

--- The failure of a call that returns `nil, err`, with its code checked.
function cluster.failure(code, value, err)
  if value ~= nil then
    error("expected " .. code .. ", but the call succeeded", 2)
  elseif not errors.is(err, code) then
    error(("expected %s, got %s"):format(code, tostring(err)), 2)
  end
  return err
end

--- Wait for a condition, not for a time.
function cluster.wait_until(what, condition, timeout)
  local deadline = task.now() + (timeout or 5)
  while not condition() do
    if task.now() > deadline then
      error("waited in vain until " .. what, 2)
    end
    task.sleep(0.02)
  end
end

--- Collect warnings while a function runs.
-- @treturn {string,...} warnings
-- @return what fn returned first
-- @return what fn returned second
function cluster.warnings(fn)
  local list = {}
  local before = lunashard.set_warn(function(message)
    list[#list + 1] = message
  end)
  local ok, value, err = pcall(fn)
  lunashard.set_warn(before)
  if not ok then
    error(value, 0)
  end
  return list, value, err
end

return cluster
