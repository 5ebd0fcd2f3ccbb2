--- What a drill measures in its own process: latencies in windows, how long the loop was blocked, memory.
-- @module spec.support.faults.gauge

local ffi = require("ffi")
local task = require("lunashard.task")

ffi.cdef([[
  struct fault_timespec { long sec; long nsec; };
  int clock_gettime(int clock, struct fault_timespec *time);
]])

local gauge = {}

local MONOTONIC = 1
local TICK = 0.01 -- seconds
local JIFFY = 0.01 -- seconds, the kernel's unit in /proc/stat

local time = ffi.new("struct fault_timespec")

--- Monotonic seconds, read now: the loop's own clock stands still while something runs.
function gauge.now()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.sec) + tonumber(time.nsec) * 1e-9
end

--- Resident memory in MiB.
function gauge.resident()
  local file = assert(io.open("/proc/self/statm"))
  local _, pages = file:read("*n", "*n")
  file:close()
  return pages * 4096 / 2 ^ 20
end

--- The value below which this share of a list lies; the list is sorted.
function gauge.percentile(values, share)
  table.sort(values)
  return values[math.max(1, math.ceil(#values * share))]
end

-- ---- latencies --------------------------------------------------------------

local Latencies = {}
Latencies.__index = Latencies

--- Samples in the order in which they came.
function gauge.latencies()
  return setmetatable({ n = 0, at = {}, took = {} }, Latencies)
end

function Latencies:add(at, took)
  local n = self.n + 1
  self.n, self.at[n], self.took[n] = n, at, took
end

--- Samples that ended from one time to another.
function Latencies:between(from, to)
  local found = {}
  for i = self.n, 1, -1 do
    if self.at[i] < from then
      break
    elseif self.at[i] < to then
      found[#found + 1] = self.took[i]
    end
  end
  return found
end

--- How many ended in a second, from one time to another.
function Latencies:rate(from, to)
  return #self:between(from, to) / (to - from)
end

--- The median of the 99th percentiles of all windows of a span. A window that the machine itself spoilt counts little.
-- @number from
-- @number to
-- @number window seconds
-- @treturn ?number nil when there is no window with samples
function Latencies:p99(from, to, window)
  local found = {}
  while from + window <= to + 1e-6 do
    local samples = self:between(from, from + window)
    if #samples > 0 then
      found[#found + 1] = gauge.percentile(samples, 0.99)
    end
    from = from + window
  end
  return #found > 0 and gauge.percentile(found, 0.5) or nil
end

-- ---- the loop ---------------------------------------------------------------

local Ticker = {}
Ticker.__index = Ticker

-- Seconds that this thread was ready to run and had no processor, and that processors were taken from the whole machine
-- by others on its host: not the loop's fault.
local function waited(schedule, processors)
  schedule:seek("set", 0)
  local _, wait = schedule:read("*n", "*n")
  processors:seek("set", 0)
  local stolen = processors:read("*l"):match("^cpu +%d+ %d+ %d+ %d+ %d+ %d+ %d+ (%d+)")
  return wait * 1e-9 + (tonumber(stolen) or 0) * JIFFY
end

--- Start to watch the loop: a task that wants to wake up every 10 ms.
-- @treturn Ticker `waits`: how long the machine let us wait for a processor in each of these; `longest_wait`
function gauge.ticker()
  local self = setmetatable({ longest = 0, longest_wait = 0, running = true, waits = gauge.latencies() }, Ticker)
  local schedule, processors = assert(io.open("/proc/thread-self/schedstat")), assert(io.open("/proc/stat"))
  schedule:setvbuf("no")
  processors:setvbuf("full", 256)
  self.task = task.spawn(function()
    local before, wait_before = gauge.now(), waited(schedule, processors)
    while self.running do
      task.sleep(TICK)
      local now, wait = gauge.now(), waited(schedule, processors)
      self.waits:add(now, wait - wait_before)
      self.longest_wait = math.max(self.longest_wait, wait - wait_before)
      self.longest = math.max(self.longest, now - before - TICK - (wait - wait_before))
      before, wait_before = now, wait
    end
    schedule:close()
    processors:close()
  end)
  return self
end

--- Stop to watch. Yields.
-- @treturn number the longest time, in seconds, that the loop was blocked by what it ran
function Ticker:stop()
  self.running = false
  assert(self.task:join(5))
  return self.longest
end

return gauge
