local lunashard = require("lunashard")
local task = require("lunashard.task")

local LIMIT = 0.1

local function burn(seconds)
  local ends = task.now() + seconds
  while task.now() < ends do
  end
end

-- What is counted at the end of a turn is to be seen from the next one on.
local function after(fn)
  local before = lunashard.stats()
  lunashard.spawn(fn):join()
  lunashard.sleep(0)
  local now = lunashard.stats()
  return now.stalls - before.stalls, now, before
end

describe("a stall of the loop", function()
  it("is counted, with how long it was", function()
    local n, now, before = after(function()
      burn(1.5 * LIMIT)
    end)
    assert.is_true(n >= 1)
    assert.is_true(now.longest_stall >= 1.5 * LIMIT)
    assert.is_true(now.stalled_seconds - before.stalled_seconds >= 1.5 * LIMIT)
  end)

  it("names the task that ran by the place of its function, and the wait that it came to", function()
    local function hog()
      burn(4 * LIMIT)
      lunashard.sleep(0.01)
    end
    local _, now = after(hog)
    local of = debug.getinfo(hog, "S").linedefined
    assert.is_truthy(now.last_stall:find(("stats_spec.lua:%d, up to a wait at"):format(of), 1, true), now.last_stall)
    assert.is_truthy(now.last_stall:find(("stats_spec.lua:%d,"):format(of + 2), 1, true), now.last_stall)
  end)

  it("names it when it ran to its end, and when it raised", function()
    local function quiet()
      burn(4 * LIMIT)
    end
    local _, now = after(quiet)
    local of = debug.getinfo(quiet, "S").linedefined
    assert.is_truthy(now.last_stall:find(("stats_spec.lua:%d, to its end"):format(of), 1, true), now.last_stall)
    local function loud()
      burn(4 * LIMIT)
      error("too much")
    end
    _, now = after(loud)
    of = debug.getinfo(loud, "S").linedefined
    assert.is_truthy(now.last_stall:find(("stats_spec.lua:%d, to its end"):format(of), 1, true), now.last_stall)
  end)

  it("names the caller's function where ours runs it", function()
    local function hog()
      burn(4 * LIMIT)
    end
    local _, now = after(function()
      lunashard.gather({ hog })
    end)
    local of = debug.getinfo(hog, "S").linedefined
    assert.is_truthy(now.last_stall:find(("stats_spec.lua:%d,"):format(of), 1, true), now.last_stall)
  end)

  it("is none when many things are to be done that take little each", function()
    local small = {}
    for i = 1, 40 do
      small[i] = function()
        burn(LIMIT / 10)
      end
    end
    local _, now, before = after(function()
      lunashard.gather(small)
    end)
    assert.is_true(now.stalled_seconds - before.stalled_seconds < 2 * LIMIT)
  end)

  it("keeps nothing of a task that has ended", function()
    local held = setmetatable({}, { __mode = "k" })
    local kept
    do
      local big = {}
      held[big] = true
      kept = lunashard.spawn(function()
        return big and 1
      end)
    end
    assert.is_true(kept:join())
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(held))
  end)
end)
