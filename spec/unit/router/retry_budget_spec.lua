local retry_budget = require("lunashard.router.retry_budget")

local WINDOW, LEAST = retry_budget.WINDOW, retry_budget.LEAST

-- How many retries are granted at one moment, when as many as one likes are asked for.
local function drain(budget, requests, now)
  local n = 0
  while budget:take(requests, now) do
    n = n + 1
    assert(n < 1e6, "there is no end to it")
  end
  return n
end

describe("a retry budget", function()
  it("grants a few to a router that has done nothing yet", function()
    assert.equal(LEAST, drain(retry_budget.new(0.2), 0, 1000))
  end)

  it("grants the share of the recent requests besides", function()
    assert.equal(LEAST + 200, drain(retry_budget.new(0.2), 1000, 1000))
  end)

  it("grants the least alone when its share is 0", function()
    assert.equal(LEAST, drain(retry_budget.new(0), 1e6, 1000))
  end)

  it("is used up until further requests have filled it", function()
    local budget = retry_budget.new(0.2)
    drain(budget, 1000, 1000)
    assert.is_false(budget:take(1000, 1000.5))
    assert.equal(20, drain(budget, 1100, 1000))
  end)

  it("is full again when the time has passed", function()
    local budget = retry_budget.new(0.2)
    drain(budget, 1000, 1000)
    assert.is_true(drain(budget, 1000, 1000 + WINDOW) >= LEAST)
    assert.is_true(drain(budget, 1000, 1000 + 3 * WINDOW) >= LEAST)
  end)

  it("never grants more than its share and the least in any window, however they fall", function()
    local seed = os.time()
    math.randomseed(seed)
    local share, now, requests, log = 0.2, 1000, 0, {}
    local budget = retry_budget.new(share)
    for _ = 1, 3000 do
      now = now + math.random() * 0.1
      requests = requests + math.random(0, 10)
      local granted = 0
      for _ = 1, math.random(0, 20) do
        granted = granted + (budget:take(requests, now) and 1 or 0)
      end
      log[#log + 1] = { now = now, requests = requests, granted = granted }
    end
    for last = 1, #log do
      local granted, first = 0, last
      while first >= 1 and log[first].now > log[last].now - WINDOW do
        granted = granted + log[first].granted
        first = first - 1
      end
      local recent = log[last].requests - (log[first - 1] or { requests = 0 }).requests
      -- Two windows are looked at through a moving average, so that some of the one before may be missed.
      assert.is_true(granted <= 1.6 * (share * recent + LEAST),
        ("seed %d: %d retries after %d requests"):format(seed, granted, recent))
    end
  end)

  it("lets through what a quiet router needs, after hours of work without a failure", function()
    local budget = retry_budget.new(0.2)
    budget:take(0, 1000)
    assert.is_true(drain(budget, 1e6, 1000 + 3600) > LEAST)
  end)
end)
