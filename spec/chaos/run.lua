--- A chaos run: servers, router processes at work, something done to them meanwhile, and the verdict.
-- It has one of these shapes, for not all that may break goes together: `replicas` (each shard has a synchronous one, so
-- that what was acknowledged survives a promotion), `network` (a proxy before each server), `disk` (a shard's tables are on
-- a small one), `plain`.
-- @module spec.chaos.run

local cli = require("spec.support.cli")
local history = require("spec.chaos.history")
local lunashard = require("lunashard")
local pool = require("lunashard.pool")
local process = require("lunashard.process")
local proxy = require("spec.support.net.proxy")
local sandbox = require("spec.support.sandbox")
local servers = require("spec.chaos.servers")
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local verdict = require("spec.chaos.verdict")
local world = require("spec.chaos.world")

local run = {}

local Run = {}
Run.__index = Run

local BINARY = system.realpath("/proc/self/exe")

local function write_cluster(self, shards)
  local path = ("%s/chaos-%d.lua"):format(self.servers.dir, #shards)
  local lines = { "return {", '  name = "chaos",', ("  strategy = { %q, shard_key = 'k' },"):format(self.options.strategy),
    "  connection_pool_size = 10, health_check_interval = 1, query_timeout = 10,", "  tables = {" }
  for name, declared in pairs(world.TABLES) do
    lines[#lines + 1] = ("    %s = { shard_key = %q, type = %q },"):format(name, declared.shard_key, declared.type)
  end
  lines[#lines + 1] = "  },\n  shards = {"
  for i, shard in ipairs(shards) do
    local replicas = {}
    for _, replica in ipairs(shard.replicas) do
      replicas[#replicas + 1] = ("{ host = %q, port = %d }"):format(replica.host, replica.port)
    end
    lines[#lines + 1] = ("    { shard_id = %q, host = %q, port = %d, database = %q, user = %q, password = %q, "
      .. "replicas = { %s } },"):format(shard.shard_id, shard.host, self.proxies[i] and self.proxies[i].port or shard.port,
      shard.database, shard.user, shard.password, table.concat(replicas, ", "))
  end
  lines[#lines + 1] = "  },\n}\n"
  local file = assert(io.open(path, "w"))
  file:write(table.concat(lines, "\n"))
  file:close()
  return path
end

-- Asks a server by itself, past all routing.
local function asker(server)
  local connection = pool.new({ host = server.host, port = server.port, database = server.database, user = server.user,
    password = server.password, max_size = 1, shard_id = server.shard_id })
  return { shard_id = server.shard_id, pool = connection, ask = function(sql, simple)
    local result, err = connection:execute(sql, nil, { simple = simple, pipeline = false, deadline = task.now() + 60 })
    return result and result.rows, err
  end }
end

local function fill(self)
  local used = {}
  for i = 1, self.options.used do
    used[i] = self.servers.shards[i]
  end
  self.cluster_file = write_cluster(self, used)
  self.larger_file = write_cluster(self, self.servers.shards)
  local cluster = assert(lunashard.open(self.cluster_file))
  local ok, err = pcall(world.create, cluster.router, self.options.keys)
  cluster:close()
  assert(ok, err)
  for i = self.options.used + 1, self.options.shards do -- they are to join, and have the tables by then
    local shard = asker(self.servers.shards[i])
    assert(shard.ask(world.SCHEMA, true))
    shard.pool:close()
  end
end

--- Start servers and fill them. Yields.
-- @tparam table options `shards` (servers), `used` (how many of them there are at first), `shape`, `strategy`, `keys`,
--   `routers`, `tasks` and `rate` (of each router), `seed`
-- @treturn Run
function run.start(options)
  local self = setmetatable({ options = options, routers = {}, histories = {}, proxies = {}, faults = 0, problems = {} }, Run)
  self.servers = sandbox.start({ shards = options.shards, replicas = options.shape == "replicas" and 1 or nil })
  local ok, err = pcall(function()
    for i, shard in ipairs(options.shape == "network" and self.servers.shards or {}) do
      self.proxies[i] = proxy.start(shard.port)
    end
    fill(self)
    servers.prepare(self)
  end)
  if not ok then
    self:destroy()
    error(err, 0)
  end
  return self
end

--- Note what was done, for those who look for a fault.
-- @string text
function Run:log(text)
  local file = assert(io.open(self.servers.dir .. "/chaos.log", "a"))
  file:write(("%.3f %s\n"):format(task.now(), text))
  file:close()
end

--- Something happened that must not: the run has failed.
-- @string text
function Run:complain(text, ...)
  self.problems[#self.problems + 1] = text:format(...)
  self:log(self.problems[#self.problems])
end

--- Start the program.
-- @tparam {string,...} args
-- @treturn Process
function Run:spawn(args) -- luacheck: no self
  return assert(process.spawn({ argv = { BINARY, unpack(args) } }))
end

--- Run the program. Yields.
-- @tparam {string,...} args
-- @treturn table as from `Process:wait`
function Run:lunashard(args)
  return assert(self:spawn(args):wait(600))
end

--- A new history.
-- @string name
-- @treturn string its path
function Run:add_history(name)
  local path = ("%s/%s.history"):format(self.servers.dir, name)
  self.histories[#self.histories + 1] = { path = path, name = name }
  return path
end

--- Start a router process in one of their places. Yields until it is at work.
-- @int place
function Run:add_router(place)
  self.started = (self.started or 0) + 1
  local number, options = self.started, self.options
  local name = "router" .. number
  local path = self:add_history(name)
  local argv = { BINARY, "run", "-c", self.larger_file, "spec/chaos/router.lua", path, name }
  for _, value in ipairs({ number, options.keys, options.tasks, options.rate, options.seed * 1000 + number }) do
    argv[#argv + 1] = tostring(value)
  end
  local child = assert(process.spawn({ argv = argv, stdout = "discard",
    stderr_file = ("%s/%s.log"):format(self.servers.dir, name) }))
  child.name = name
  self.routers[place] = child
  local deadline = task.now() + 30
  while not system.realpath(path) do
    if not child:is_running() and task.now() < deadline then -- as anybody would who starts with what is broken
      self:log(name .. " could not begin")
      table.remove(self.histories)
      task.sleep(0.5)
      return self:add_router(place)
    end
    assert(task.now() < deadline, name .. " has not begun")
    task.sleep(0.01)
  end
end

--- Let all routers end their operations. Yields.
function Run:stop_routers()
  for _, child in ipairs(self.routers) do
    child:signal("TERM")
  end
  for _, child in ipairs(self.routers) do
    local result = child:wait(60)
    if not result or result.code ~= 0 then
      local log = io.open(("%s/%s.log"):format(self.servers.dir, child.name))
      error(("%s ended with %s: %s"):format(child.name, result and tostring(result.code or result.signal) or "nothing",
        log and log:read("*a") or ""), 0)
    end
  end
end

--- Compare what was told with what is there. Yields.
-- @tparam func owner_of key -> shard_id, by the catalog
-- @tparam func leftovers called with the shards and the verdict
-- @treturn Verdict
function Run:judge(owner_of, leftovers)
  local found, ops, shards = verdict.new(), {}, {}
  for _, one in ipairs(self.histories) do
    for _, op in ipairs(history.read(one.path, one.name)) do
      ops[#ops + 1] = op
    end
  end
  for i = 1, #self.servers.shards do
    shards[i] = asker(servers.primary(self, i))
  end
  local final = world.read(shards, found, owner_of, self.options.keys)
  found:count(ops)
  found:check_registers(ops, final.registers)
  found:check_tokens(ops, final.tokens)
  found:check_counters(ops, final.counters, final.sweeps)
  found:check_sums(ops)
  found:check_answers(ops)
  found:demand(ops, require("spec.chaos.workload").KINDS)
  for _, problem in ipairs(self.problems) do
    found:blame("unproved", "%s", problem)
  end
  leftovers(shards, found)
  for _, shard in ipairs(shards) do
    shard.pool:close()
  end
  return found
end

--- Remove everything. Yields.
function Run:destroy()
  for _, child in pairs(self.routers) do
    child:signal("KILL")
  end
  for _, one in pairs(self.proxies) do
    one:close()
  end
  self.servers:destroy()
  servers.remove(self)
  cli.remove_all()
end

return run
