--- A histogram of durations with buckets of equal ratio, for percentiles.
-- Each bucket is a quarter of a doubling wide, so a percentile is off by at most a
-- tenth; the memory is the same after a billion samples. Bounds are powers of two of a second, with three between
-- each two, and belong to the bucket below: what is counted up to such a power is exact.
-- @module lunashard.router.histogram

local histogram = {}

local ceil, log = math.ceil, math.log

local LEAST = 2 ^ -20 -- seconds, about a microsecond; what is shorter counts as this
local BUCKETS = 160 -- up to 2^40 times the least: twelve days
local PER_LOG = 4 / log(2)
local BLUR = 1e-9 -- of a logarithm that should be integral

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
  local i = seconds > LEAST * 1.00001 and ceil(log(seconds / LEAST) * PER_LOG - BLUR) or 1
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

--- How many of the samples do not exceed each of several bounds.
-- @int first the power of two of the first bound, in seconds; not below -20
-- @int last that of the last one
-- @tparam[opt] {number,...} counts to be used again
-- @treturn {number,...} counts, one for each power
function Histogram:cumulative(first, last, counts)
  counts = counts or {}
  local seen, i = 0, 1
  for power = first, last do
    local stop = (power + 20) * 4
    while i <= stop do
      seen, i = seen + self[i], i + 1
    end
    counts[power - first + 1] = seen
  end
  return counts
end

--- Count what another has counted, too.
-- @tparam Histogram other
function Histogram:absorb(other)
  for i = 1, BUCKETS do
    self[i] = self[i] + other[i]
  end
  self.count, self.sum, self.max = self.count + other.count, self.sum + other.sum, math.max(self.max, other.max)
end

return histogram
