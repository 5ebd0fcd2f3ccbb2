--- How many retries a router may make: at most a share of its recent requests.
-- When everything fails at once, retries multiply the load on servers that have little to give. The budget is
-- spent as fast as retries come and filled by requests alone, so that a fault cannot be answered with a storm.
-- Requests are counted by whoever counts them anyway: nothing here runs for a request that succeeds.
-- @module lunashard.router.retry_budget

local retry_budget = {}

--- Seconds that count as recent.
retry_budget.WINDOW = 10
--- Retries that are always allowed in a window, for routers with little to do.
retry_budget.LEAST = 100

local Budget = {}
Budget.__index = Budget

--- A budget that is full.
-- @number share of the recent requests, 0.2 for a fifth
-- @treturn Budget
function retry_budget.new(share)
  return setmetatable({
    share = share,
    began = -math.huge, -- of the present window
    requests = 0, -- when it began
    spent = 0, -- in it
    last = -math.huge, -- when the last one was
    before = 0, -- requests in the window before
    spent_before = 0,
  }, Budget)
end

-- A new window begins. What was before it counts less and less, as it moves out of sight.
local function turn(self, requests, now)
  local seconds = now - self.began
  local scale = seconds < math.huge and retry_budget.WINDOW / seconds or 0
  self.before = scale > 0 and (requests - self.requests) * scale or requests
  self.spent_before = now - self.last < retry_budget.WINDOW and self.spent * scale or 0
  self.began, self.requests, self.spent = now, requests, 0
end

--- Take one retry out of the budget.
-- @int requests that the router has ended so far
-- @number now on the clock of `lunashard.now`
-- @treturn boolean false when there is nothing left
function Budget:take(requests, now)
  if now - self.began >= retry_budget.WINDOW then
    turn(self, requests, now)
  end
  local left = 1 - (now - self.began) / retry_budget.WINDOW
  local recent = self.before * left + requests - self.requests
  if self.spent_before * left + self.spent >= self.share * recent + retry_budget.LEAST then
    return false
  end
  self.spent, self.last = self.spent + 1, now
  return true
end

return retry_budget
