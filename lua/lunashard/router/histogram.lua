--- A histogram of durations with buckets of equal ratio, for percentiles.
-- Each bucket is a quarter of a doubling wide, so a percentile is off by at most a
-- tenth; the memory is the same after a billion samples.
-- @module lunashard.router.histogram

local histogram = {}

local floor, log = math.floor, math.log

local LEAST = 1e-6 -- seconds; what is shorter counts as this
local BUCKETS = 160 -- up to 2^40 times the least: twelve days
local PER_LOG = 4 / log(2)

local Histogram = {}
Histogram.__index = Histogram

--- An empty histogram.
-- @treturn Histogram with `count` and `sum` (seconds)
function histogram.new()
  local self = { count = 0, sum = 0, max = 0 }
  for i = 1, BUCKETS do
    self[i] = 0
  end
  return setmetatable(self, Histogram)
end

--- Count one duration.
-- @number seconds
function Histogram:add(seconds)
  local i = seconds > LEAST and floor(log(seconds / LEAST) * PER_LOG) + 1 or 1
  if i > BUCKETS then
    i = BUCKETS
  end
  self[i] = self[i] + 1
  self.count = self.count + 1
  self.sum = self.sum + seconds
  if seconds > self.max then
    self.max = seconds
  end
end

--- The duration that a share of the samples does not exceed.
-- @number share 0 to 1
-- @treturn number seconds; 0 without samples
function Histogram:percentile(share)
  local wanted, seen = share * self.count, 0
  if self.count == 0 then
    return 0
  end
  for i = 1, BUCKETS do
    seen = seen + self[i]
    if seen >= wanted and self[i] > 0 then
      -- The middle of the bucket, in ratio; never beyond what was ever seen.
      return math.min(LEAST * 2 ^ ((i - 0.5) / 4), self.max)
    end
  end
  return self.max
end

return histogram
