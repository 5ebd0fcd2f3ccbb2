--- A chaos run: servers, router processes at work, something done to them meanwhile, and the verdict.
-- @module spec.chaos.run

local history = require("spec.chaos.history")
local process = require("lunashard.process")
local sandbox = require("spec.support.sandbox")
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
  for _, shard in ipairs(shards) do
    local replicas = {}
    for _, replica in ipairs(shard.replicas) do
      replicas[#replicas + 1] = ("{ host = %q, port = %d }"):format(replica.host, replica.port)
    end
    lines[#lines + 1] = ("    { shard_id = %q, host = %q, port = %d, database = %q, user = %q, passfile = %q, "
      .. "replicas = { %s } },"):format(shard.shard_id, shard.host, shard.port, shard.database, shard.user,
      self.servers.passfile, table.concat(replicas, ", "))
  end
  lines[#lines + 1] = "  },\n}\n"
  local file = assert(io.open(path, "w"))
  file:write(table.concat(lines, "\n"))
  file:close()
  return path
end

local function asker(shard)
  local pool = require("lunashard.pool").new({ host = shard.host, port = shard.port, database = shard.database,
    user = shard.user, password = shard.password, max_size = 1, shard_id = shard.shard_id })
  return { shard_id = shard.shard_id, pool = pool, ask = function(sql, simple)
    local result, err = pool:execute(sql, nil, { simple = simple, pipeline = false, deadline = task.now() + 60 })
    return result and result.rows, err
  end }
end

--- Start servers and fill them. Yields.
-- @tparam table options `shards` (servers), `used` (how many of them there are at first), `strategy`, `keys`, `routers`,
--   `tasks` (of each router), `seed`, `replicas`, `init` (with a catalog)
-- @treturn Run
function run.start(options)
  local self = setmetatable({ options = options, routers = {}, histories = {} }, Run)
  self.servers = sandbox.start({ shards = options.shards, replicas = options.replicas })
  local used = {}
  for i = 1, options.used do
    used[i] = self.servers.shards[i]
  end
  self.cluster_file = write_cluster(self, used)
  self.larger_file = write_cluster(self, self.servers.shards)
  local cluster = assert(require("lunashard").open(self.cluster_file))
  local ok, err = pcall(world.create, cluster.router, options.keys)
  cluster:close()
  assert(ok, err)
  for i = options.used + 1, options.shards do -- they are to join, and have the tables by then
    local shard = asker(self.servers.shards[i])
    assert(shard.ask(world.SCHEMA, true))
    shard.pool:close()
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

--- Start the program.
-- @tparam {string,...} args
-- @treturn Process
function Run:spawn(args) -- luacheck: no self
  return process.spawn({ argv = { BINARY, unpack(args) } })
end

--- Run the program. Yields.
-- @tparam {string,...} args
-- @treturn table as from `Process:wait`
function Run:lunashard(args)
  return assert(self:spawn(args)):wait(600)
end

--- Start another router process. Yields until it is at work.
-- @string[opt] file its cluster file
-- @treturn Process
function Run:add_router(file)
  local n = #self.histories + 1
  local name = "router" .. n
  local path = ("%s/%s.history"):format(self.servers.dir, name)
  self.histories[n] = { path = path, name = name }
  local child = assert(process.spawn({
    argv = { BINARY, "run", "-c", file or self.cluster_file, "spec/chaos/router.lua", path, name,
      tostring(self.options.keys), tostring(self.options.tasks), tostring(self.options.seed * 1000 + n) },
    stdout = "discard", stderr_file = ("%s/%s.log"):format(self.servers.dir, name),
  }))
  child.name, child.path = name, path
  self.routers[n] = child
  local deadline = task.now() + 30
  while not system.realpath(path) do
    assert(task.now() < deadline, name .. " has not begun")
    task.sleep(0.01)
  end
  return child
end

--- Let all routers end their operations. Yields.
function Run:stop_routers()
  for _, child in ipairs(self.routers) do
    child:signal("TERM")
  end
  for _, child in ipairs(self.routers) do
    local result = not child.killed and child:wait(60)
    if not child.killed and (not result or result.code ~= 0) then
      local log = io.open(("%s/%s.log"):format(self.servers.dir, child.name))
      error(("%s ended with %s: %s"):format(child.name, result and tostring(result.code or result.signal) or "nothing",
        log and log:read("*a") or ""), 0)
    end
  end
end

--- Compare what was told with what is there. Yields.
-- @tparam func owner_of key -> shard_id, by the catalog or the strategy
-- @treturn Verdict
function Run:judge(owner_of)
  local found, ops, shards = verdict.new(), {}, {}
  for _, one in ipairs(self.histories) do
    for _, op in ipairs(history.read(one.path, one.name)) do
      ops[#ops + 1] = op
    end
  end
  for i, shard in ipairs(self.servers.shards) do
    shards[i] = i <= (self.in_use or self.options.used) and asker(shard) or nil
  end
  local final = world.read(shards, found, owner_of)
  found:count(ops)
  found:check_registers(ops, final.registers)
  found:check_tokens(ops, final.tokens)
  found:check_sums(ops)
  if self.leftovers then
    self.leftovers(shards, found)
  end
  for _, shard in ipairs(shards) do
    shard.pool:close()
  end
  return found
end

--- Remove everything.
function Run:destroy()
  for _, child in ipairs(self.routers) do
    child:signal("KILL")
  end
  self.servers:destroy()
end

return run
