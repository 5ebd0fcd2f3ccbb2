--- Which statements take the time, and which buckets: of the last minutes, and cheaply.
-- A few statements are looked at, about a hundred in a second however many there are, and each stands for those since
-- the one before; below that rate all are. Those that take `slow_statement` or longer are looked at always, and stand
-- for themselves. What is kept holds no values: see `lunashard.sql.normal`.
-- @module lunashard.router.statements

local events = require("lunashard.events")
local extraction = require("lunashard.extraction")
local normal = require("lunashard.sql.normal")
local options = require("lunashard.options")
local task = require("lunashard.task")

local statements = {}

local WINDOW = 300 -- seconds that are looked back
local SLOTS = 10
local SLOT = WINDOW / SLOTS
local MAX_STATEMENTS, MAX_BUCKETS = 500, 2000 -- different ones in a slot; all others count as one
local MAX_SLOW = 50 -- of the latest that are kept
local PACE = 100 -- that are looked at in a second, about
local QUIET = 2 -- seconds after which the next is looked at when somebody asks
local MOST = 8192 -- statements that one stands for, on average
local LINES, LINES_IN = 10, 10 -- so many lines of the log in so many seconds
local MAX_LINE, MAX_PARAMETER = 400, 64 -- bytes of a statement and of a value in the log

local now, random = task.now, math.random

local Statements = {}
Statements.__index = Statements

local function new_slot(at)
  return { began = at, statements = {}, n_statements = 0, buckets = {}, n_buckets = 0 }
end

--- Of a router that has done nothing.
-- @treturn Statements
function statements.new()
  return setmetatable({
    left = 1, -- statements to the next that is looked at
    slow = math.huge, -- seconds from which all are
    gap = 1, -- how many the next one stands for
    mean = 1, -- as it is on average
    apart = 0, -- slow ones that stood for themselves meanwhile
    samples = 0, -- that were looked at
    since = 0, -- then
    slots = {},
    recent = {}, -- slow ones, the latest last
    told = 0, -- lines of the log
    told_from = -math.huge, -- since then
    untold = 0,
  }, Statements)
end

--- Take the options of a manager.
-- @tparam table given `slow_statement`, `slow_log`, `slow_log_parameters`
function Statements:configure(given)
  self.slow, self.log, self.log_parameters = given.slow_statement, given.slow_log, given.slow_log_parameters
end

local function slot_of(self, at)
  local slots = self.slots
  local last = slots[#slots]
  if not last or at - last.began >= SLOT then
    last = new_slot(at)
    slots[#slots + 1] = last
    while slots[1].began < at - WINDOW do
      table.remove(slots, 1)
    end
  end
  return last
end

local function count(list, n, most, key, fields, weight, seconds)
  local entry = list[key]
  if not entry then
    if n >= most then
      key, fields = "", {}
      entry = list[key]
    end
    if not entry then
      entry = { fields = fields, count = 0, seconds = 0, longest = 0 }
      list[key], n = entry, n + 1
    end
  end
  entry.count, entry.seconds = entry.count + weight, entry.seconds + weight * seconds
  entry.longest = math.max(entry.longest, seconds)
  return n
end

-- How many statements this one stands for; the next one is chosen.
local function sample(self, at, is_slow)
  local due = self.left <= 0
  if not due then
    self.apart = self.apart + 1
    return 1
  end
  local weight = self.gap - self.apart
  if at - self.since >= 1 then
    self.mean = self.samples < PACE / 2 and math.max(self.mean / 2, 1) or self.mean
    self.since, self.samples = at, 0
  end
  self.samples = self.samples + 1
  if self.samples >= PACE then
    self.mean = math.min(self.mean * 2, MOST)
    self.since, self.samples = at, 0
  end
  local gap = self.mean > 1 and random(1, 2 * self.mean - 1) or 1
  self.left, self.gap, self.apart = gap, gap, 0
  if is_slow then -- those that it would have stood for were fast ones
    self.gap, weight = gap + weight - 1, 1
  end
  return weight
end

local UNASKED = { range = true, geographic = true } -- strategies that look nothing up

-- The key's bucket, as far as it is known without asking anybody.
local function bucket_of(router, sql, params, opts)
  local key, table_name, manager = opts.routing_key, opts.table, router.manager
  if key == nil and opts.shard_id == nil and router.extractor and params then
    local plan = extraction.plan(router.extractor, manager, sql)
    if plan and plan.kind == "key" then
      key, table_name = plan.value, plan.table
      if plan.param then
        key = params[plan.param]
      end
    end
  end
  if type(key) == "table" or key == nil then
    return nil
  end
  local strategy = manager:strategy_for(table_name, key)
  if strategy and (strategy.map or strategy.shipped and UNASKED[strategy.name]) then
    local shard_id, bucket = strategy:route(key)
    return shard_id and bucket or nil, manager.strategies.mixed and table_name or nil
  end
end

local function parameters(params)
  local list = {}
  for i = 1, params and (params.n or #params) or 0 do
    local value = params[i]
    value = type(value) == "string" and options.describe(value) or tostring(value)
    list[i] = ("$%d = %s"):format(i, value:sub(1, MAX_PARAMETER))
  end
  return #list > 0 and table.concat(list, ", ") or nil
end

local function tell(self, one, params, at)
  if at - self.told_from > LINES_IN then
    self.told, self.told_from = 0, at
  end
  if self.told >= LINES then
    self.untold = self.untold + 1
    return
  end
  self.told = self.told + 1
  local given = self.log_parameters and parameters(params) or nil
  local text = #one.statement > MAX_LINE and one.statement:sub(1, MAX_LINE) .. "..." or one.statement
  local message = ("slow statement: %.3f s on %s%s%s%s: %s%s%s"):format(one.duration, one.shard_id,
    one.endpoint and " (" .. one.endpoint .. ")" or "", one.bucket and ", bucket " .. one.bucket or "",
    one.error and ", " .. one.error or "", text, given and " with " .. given or "",
    self.untold > 0 and (" (%d more were not told)"):format(self.untold) or "")
  self.untold = 0
  local event = { kind = "slow_statement", message = message, parameters = given }
  for name, value in pairs(one) do
    event[name] = value
  end
  events.emit(event)
end

-- `ended`: a result, or an error.
local function note(self, router, ended, sql, params, opts)
  local at, seconds = now(), ended.duration or ended.elapsed
  local is_slow = seconds >= self.slow
  local weight = sample(self, at, is_slow)
  local text, slot = normal.of(sql), slot_of(self, at)
  slot.n_statements = count(slot.statements, slot.n_statements, MAX_STATEMENTS, text, text, weight, seconds)
  local bucket, table_name = bucket_of(router, sql, params, opts)
  if bucket then
    local fields = { bucket = bucket, shard_id = ended.shard_id, table = table_name }
    slot.n_buckets = count(slot.buckets, slot.n_buckets, MAX_BUCKETS, (table_name or "") .. ":" .. bucket, fields, weight,
      seconds)
  end
  if not is_slow then
    return
  end
  local one = {
    at = os.time(),
    statement = text,
    shard_id = ended.shard_id,
    endpoint = ended.endpoint,
    bucket = bucket,
    table = table_name,
    duration = seconds,
    error = ended.code,
  }
  self.recent[#self.recent + 1] = one
  if #self.recent > MAX_SLOW then
    table.remove(self.recent, 1)
  end
  if self.log and seconds >= self.log then
    tell(self, one, params, at)
  end
end

--- A statement succeeded. Runs for every one.
-- @tparam Router router
-- @tparam table result
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `execute`
function Statements:ended(router, result, sql, params, opts)
  local left = self.left - 1
  self.left = left
  if left <= 0 or result.duration >= self.slow then
    note(self, router, result, sql, params, opts)
  end
end

--- A statement failed: it is of interest when that took long.
-- @tparam Router router
-- @tparam lunashard.error err
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `execute`
function Statements:failed(router, err, sql, params, opts)
  if err.elapsed and err.elapsed >= self.slow then
    self.apart = self.apart - 1 -- only those that succeed are counted down
    note(self, router, err, sql, params, opts)
  end
end

-- What was many is few now: the next one does not stand for those of an hour.
local function settle(self)
  if now() - self.since > QUIET and self.left > 1 then
    self.gap, self.left, self.mean = self.gap - self.left + 1, 1, 1
  end
end

-- Sums over the window, of statements or buckets.
local function sum(self, name)
  settle(self)
  local all, oldest, total = {}, now() - WINDOW - SLOT, 0
  for _, slot in ipairs(self.slots) do
    if slot.began >= oldest then
      for key, entry in pairs(slot[name]) do
        local one = all[key] or { fields = entry.fields, count = 0, seconds = 0, longest = 0 }
        all[key] = one
        one.count, one.seconds = one.count + entry.count, one.seconds + entry.seconds
        one.longest = math.max(one.longest, entry.longest)
        total = total + entry.seconds
      end
    end
  end
  local list = {}
  for _, one in pairs(all) do
    one.share = total > 0 and one.seconds / total or 0
    list[#list + 1] = one
  end
  return list
end

local function first(list, n, by)
  table.sort(list, function(a, b)
    return a[by] > b[by]
  end)
  for i = #list, n + 1, -1 do
    list[i] = nil
  end
  return list
end

--- The statements that took most time in the last five minutes.
-- @int n how many at the most
-- @treturn {table,...} `statement`, `count`, `seconds` (in all), `average_ms`, `longest_ms`, `share` (of all time)
function Statements:top(n)
  local list = first(sum(self, "statements"), n, "seconds")
  for i, one in ipairs(list) do
    list[i] = {
      statement = type(one.fields) == "string" and one.fields or "(others)",
      count = one.count,
      seconds = one.seconds,
      average_ms = one.seconds / one.count * 1000,
      longest_ms = one.longest * 1000,
      share = one.share,
    }
  end
  return list
end

--- The buckets that got most statements in the last five minutes.
-- @int n how many at the most
-- @treturn {table,...} `bucket`, `shard_id`, `table` (where strategies differ by table), `count`, `seconds`, `share` (of
--   all time)
function Statements:top_buckets(n)
  local list = first(sum(self, "buckets"), n, "count")
  for i, one in ipairs(list) do
    local fields = one.fields
    list[i] = { bucket = fields.bucket, shard_id = fields.shard_id, table = fields.table, count = one.count,
      seconds = one.seconds, share = one.share }
  end
  return list
end

return statements
