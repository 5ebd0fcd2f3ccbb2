--- How well the shards do while rows move: what the statements of this process met, and small looks at every shard.
-- @module lunashard.rebalancer.pulse

local errors = require("lunashard.errors")
local histogram = require("lunashard.router.histogram")
local statistics = require("lunashard.router.statistics")
local task = require("lunashard.task")

local pulse = {}

local Pulse = {}
Pulse.__index = Pulse

local EVERY, TIMEOUT = 0.25, 5 -- seconds between two looks at a shard, and for one
local REMARK = 5 -- seconds

local function look(self, member)
  local began = task.now()
  self.waiting[member.shard_id] = began
  local result, err = member.primary.pool:execute("SELECT 1", nil, { deadline = began + TIMEOUT })
  self.waiting[member.shard_id], self.looking[member.shard_id] = nil, nil
  if result then
    self.looks:record(member.shard_id, task.now() - began, member.primary.name, "SELECT")
  else
    self.looks:record_failure(member.shard_id, errors.is(err) and err or errors.new("SHARD_DOWN"))
  end
end

local function beat(self)
  while true do
    for _, member in ipairs(self.manager.members) do
      if not self.waiting[member.shard_id] then
        self.looking[member.shard_id] = task.daemon(look, self, member):watch()
      end
    end
    task.sleep(EVERY)
  end
end

--- Begin to look.
-- @tparam Manager manager
-- @treturn Pulse
function pulse.start(manager)
  local self = setmetatable({ manager = manager, looks = statistics.new(), waiting = {}, looking = {} }, Pulse)
  self.beating = task.daemon(beat, self):watch()
  return self
end

--- Stop looking.
function Pulse:stop()
  self.beating:cancel()
  for _, one in pairs(self.looking) do
    one:cancel()
  end
end

-- shard_id -> what was counted so far by all who count.
local function counted(self)
  local shards = {}
  local function add(of)
    for shard_id, shard in pairs(of.shards) do
      local one = shards[shard_id] or { latency = histogram.new(), failed = 0 }
      shards[shard_id] = one
      one.latency:absorb(shard.latency)
      one.failed = one.failed + shard.failed
    end
  end
  add(self.looks)
  for router in pairs(self.manager.routers) do
    add(router.statistics)
  end
  return shards
end

--- From here on, for `reading`.
-- @treturn table
function Pulse:mark()
  return { at = task.now(), shards = counted(self) }
end

local function since(now, before)
  if not before then
    return now
  end
  local one = { latency = histogram.new(), failed = now.failed - before.failed }
  for i = 1, #now.latency do
    one.latency[i] = now.latency[i] - before.latency[i]
  end
  one.latency.count, one.latency.max = now.latency.count - before.latency.count, now.latency.max
  return one
end

--- What was measured since a mark: of the worst shard. Does not yield.
-- @tparam table mark
-- @treturn table `error_rate` (0 to 1), `p99_ms`, `p95_ms`, `lag_seconds` (of the replica that is farthest behind);
--   `where`: shard_ids by these names
function Pulse:reading(mark)
  local reading = { error_rate = 0, p99_ms = 0, p95_ms = 0, lag_seconds = 0, where = {} }
  local function worst(name, value, shard_id)
    if value > reading[name] then
      reading[name], reading.where[name] = value, shard_id
    end
  end
  local now = counted(self)
  for _, member in ipairs(self.manager.members) do
    local id = member.shard_id
    local one = now[id] and since(now[id], mark.shards[id]) or { latency = histogram.new(), failed = 0 }
    -- Who waits for an answer has waited for as long at least.
    if self.waiting[id] and task.now() - self.waiting[id] > EVERY then
      one.latency:add(task.now() - self.waiting[id])
    end
    local all = one.latency.count + one.failed
    if all > 0 then
      worst("error_rate", one.failed / all, id)
      worst("p99_ms", one.latency:percentile(0.99) * 1000, id)
      worst("p95_ms", one.latency:percentile(0.95) * 1000, id)
    end
    for _, endpoint in ipairs(member.endpoints) do
      worst("lag_seconds", endpoint.health.lag_seconds or 0, id)
    end
  end
  return reading
end

--- What was measured in the last seconds. Does not yield.
-- @treturn table as `reading`
function Pulse:lately()
  if not self.last or task.now() - self.last.at > REMARK then
    self.before, self.last = self.last, self:mark()
  end
  return self:reading(self.before or self.last)
end

return pulse
