--- The work of a drill: tasks on every shard that write, count and read, each at a moderate pace of its own.
-- @module spec.support.faults.load

local errors = require("lunashard.errors")
local gauge = require("spec.support.faults.gauge")
local task = require("lunashard.task")

local load = {}

local Load = {}
Load.__index = Load

local works = {}

function works.insert(load_, shard, router, opts)
  local id = load_:new_id(shard)
  opts.routing_key = id
  return id, router:execute("INSERT INTO fault_writes (user_id) VALUES ($1)", { id }, opts)
end

function works.transaction(load_, shard, router, opts)
  local id = load_:new_id(shard)
  opts.routing_key = id
  return id, router:transaction(opts, function(tx)
    assert(tx:execute("INSERT INTO fault_writes (user_id) VALUES ($1)", { id }))
    assert(tx:execute("INSERT INTO fault_pairs (user_id) VALUES ($1)", { id }))
    return true
  end)
end

function works.counter(_, shard, router, opts)
  opts.routing_key = shard.counter
  return shard.counter, router:execute("UPDATE fault_counters SET n = n + 1 WHERE user_id = $1", { shard.counter }, opts)
end

function works.read(_, shard, router, opts)
  opts.routing_key, opts.read_only = shard.counter, true
  return nil, router:execute("SELECT n FROM fault_counters WHERE user_id = $1", { shard.counter }, opts)
end

--- A key of this shard that was not given before.
function Load:new_id(shard)
  repeat
    shard.last_id = shard.last_id + 1
  until self.manager:get_shard_for_write(shard.last_id).shard_id == shard.shard_id
  return shard.last_id
end

local function note(self, shard, kind, id, ok, err, started)
  local now = gauge.now()
  if ok then
    shard.latencies:add(now, now - started)
  elseif not errors.is(err) then
    error(err, 0)
  else
    shard.last_error = err
    local slowest = shard.slowest_failures[kind]
    if not slowest or now - started > slowest.took then
      shard.slowest_failures[kind] = { took = now - started, err = err }
    end
  end
  if kind == "read" then
    shard.reads[ok and "done" or "failed"] = shard.reads[ok and "done" or "failed"] + 1
  else
    self.ledger:note(shard.shard_id, kind, id, err, started)
    if ok then
      shard.writes:add(now, now - started)
    end
  end
end

local function work(self, shard, kind)
  while self.running do
    local started = gauge.now()
    local id, ok, err = works[kind](self, shard, self.router, { timeout = self.timeout })
    note(self, shard, kind, id, ok, not ok and err or nil, started)
    task.sleep(self.pause * (0.5 + math.random()) + (ok and 0 or 0.02))
  end
end

--- What the tasks will do; every shard gets its counter. Yields.
-- @tparam table options `manager`, `router`, `ledger`; `pause` and `timeout` in seconds
-- @treturn Load `shards`: by shard_id, `latencies` of all and `writes` of the writes that succeeded, `reads` (`done`,
-- `failed`), `slowest_failures` by kind, `last_error`; `writers`: how many tasks write to each shard
function load.new(options)
  local self = setmetatable({
    manager = options.manager,
    router = options.router,
    ledger = options.ledger,
    timeout = options.timeout,
    pause = options.pause,
    running = true,
    writers = 0,
    shards = {},
    tasks = {},
  }, Load)
  for _, info in ipairs(self.manager.shards) do
    local shard = {
      shard_id = info.shard_id, last_id = 0, reads = { done = 0, failed = 0 }, slowest_failures = {},
      latencies = gauge.latencies(), writes = gauge.latencies(),
    }
    shard.counter = self:new_id(shard)
    self.shards[info.shard_id] = shard
    assert(self.router:execute("INSERT INTO fault_counters VALUES ($1, 0)", { shard.counter },
      { routing_key = shard.counter }))
  end
  return self
end

--- Start the tasks.
-- @tparam table kinds how many of each kind on each shard
function Load:start(kinds)
  for kind, n in pairs(kinds) do
    self.writers = self.writers + (kind ~= "read" and n or 0)
    for _, shard in pairs(self.shards) do
      for _ = 1, n do
        table.insert(self.tasks, task.spawn(work, self, shard, kind))
      end
    end
  end
end

--- End every task at once, whatever it is at.
function Load:cancel()
  self.running = false
  for _, one in ipairs(self.tasks) do
    one:watch():cancel()
  end
  self.tasks = {}
end

--- Let every task end what it is at. Yields.
function Load:stop()
  self.running = false
  for _, one in ipairs(self.tasks) do
    assert(one:join(self.timeout + 10))
  end
  self.tasks = {}
end

return load
