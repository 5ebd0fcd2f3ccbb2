--- Pools on a real server, for the specs of connections, values and pools.
-- Every pool that `open` gave is closed by `close_all`, so that a failed spec leaks nothing into the next.
local errors = require("lunashard.errors")
local pool = require("lunashard.pool")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local pools = {}

local opened, admin_pool, private = {}, nil, nil

--- The server for a spec file; to be called from `setup`.
-- @tparam[opt] table options for a sandbox of one's own instead of the shared one: `tls`
-- @treturn table server `host`, `port`, `database`, `passfile`, `ca_file`, and the passwords
function pools.start(options)
  private = options and sandbox.start(options)
  local place = private or sandbox.shared()
  local server = place.shards[1]
  server.passfile, server.ca_file = place.passfile, place.ca_file
  pools.server, pools.private = server, private
  return server
end

--- End what `start` began; to be called from `teardown`.
function pools.stop()
  pools.close_all()
  if admin_pool then
    admin_pool:close()
    admin_pool = nil
  end
  if private then
    private:destroy()
  else
    sandbox.release()
  end
end

--- A pool on the server as the application's role.
-- @tparam[opt] table options of lunashard.pool; `false` removes one of those that say where and who
-- @tparam[opt] userdata term
function pools.open(options, term)
  local server = pools.server
  local all = {
    shard_id = "shard1",
    host = server.host,
    port = server.port,
    database = server.database,
    user = server.user,
    password = server.password,
  }
  for name, value in pairs(options or {}) do
    if value == false and all[name] then
      all[name] = nil
    else
      all[name] = value
    end
  end
  local made = pool.new(all, term)
  opened[#opened + 1] = made
  return made
end

function pools.close_all()
  for _, one in ipairs(opened) do
    one:close()
  end
  opened = {}
end

--- The superuser's pool, beside the one under test.
function pools.as_admin()
  local server = pools.server
  admin_pool = admin_pool
    or pool.new({
      shard_id = "admin",
      host = server.host,
      port = server.port,
      database = server.database,
      user = server.superuser,
      password = server.superuser_password,
      application_name = "spec-admin",
    })
  return admin_pool
end

--- Run a statement as superuser.
-- @treturn table rows
function pools.admin(sql, params)
  return assert(pools.as_admin():execute(sql, params)).rows
end

--- How many of the application's sessions the server has that meet a condition.
function pools.sessions(condition)
  local sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'client backend'"
  return pools.admin(sql .. (condition and " AND " .. condition or ""), { pools.server.user })[1].n
end

--- Wait for a condition, not for a time.
function pools.wait_until(what, condition, timeout)
  local deadline = task.now() + (timeout or 5)
  while not condition() do
    if task.now() > deadline then
      error("waited in vain until " .. what, 2)
    end
    task.sleep(0.02)
  end
end

--- The failure of a call that returns `nil, err`, with its code checked.
function pools.failure(code, value, err)
  if value ~= nil then
    error("expected " .. code .. ", but the call succeeded", 2)
  elseif not errors.is(err, code) then
    error(("expected %s, got %s"):format(code, tostring(err)), 2)
  end
  return err
end

--- Seconds that a function takes, and what it returns.
function pools.timed(fn)
  local started = task.now()
  local value, err = fn()
  return task.now() - started, value, err
end

return pools
