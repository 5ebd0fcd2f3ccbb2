--- How far a piece of work is, how fast it goes, and when it will be done: numbers only, no clock and no output.
-- @module lunashard.script.meter

local meter = {}

local Meter = {}
Meter.__index = Meter

local WINDOW = 10 -- seconds that the rate is of: old enough to be calm, new enough to notice a stall
local SAMPLES = 20

--- A meter that begins now.
-- @tparam ?number total nil when it is not known
-- @number now seconds
-- @treturn Meter
function meter.new(total, now)
  return setmetatable({ done = 0, total = total, started = now, changed = now, samples = { { at = now, done = 0 } } }, Meter)
end

--- So much is done in all.
-- @number done
-- @number now
function Meter:set(done, now)
  if done ~= self.done then
    self.done, self.changed = done, now
  end
end

-- One sample for each part of the window, so that memory and work stay the same however often this is called.
local function sample(self, now)
  local list = self.samples
  if now - list[#list].at >= WINDOW / SAMPLES then
    list[#list + 1] = { at = now, done = self.done }
    while #list > 2 and now - list[2].at >= WINDOW do
      table.remove(list, 1)
    end
  end
  return list[1]
end

--- What there is to say now.
-- @number now
-- @treturn table `done`, `total`, `share` (0 to 1), `rate` (a second, of the last ten), `left` (seconds), each nil where
--   it is not known; `idle` (seconds since the last change), `elapsed`
function Meter:read(now)
  local since = sample(self, now)
  local span = now - since.at
  local rate = span > 0 and (self.done - since.done) / span or nil
  local share, left
  if self.total and self.total > 0 then
    share = math.min(self.done / self.total, 1)
    left = rate and rate > 0 and math.max(self.total - self.done, 0) / rate or nil
  end
  return { done = self.done, total = self.total, share = share, rate = rate, left = left, idle = now - self.changed,
    elapsed = now - self.started }
end

return meter
