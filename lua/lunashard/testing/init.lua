--- What specs get beside busted: counts of what ran, and a check that nothing is left behind.
-- @module lunashard.testing

local core = require("lunashard.core.task")
local task = require("lunashard.task")

local testing = {}

local SETTLE = 2 -- seconds in which what a test has closed must be gone
local WATCHED = { "tasks", "ops" }

--- Tests by outcome; errors outside of tests count as errors too.
-- @table counts
testing.counts = { success = 0, failure = 0, error = 0, pending = 0 }

--- Load what all spec files share. busted forgets the modules that a spec file loaded, and several copies of
-- `lunashard.errors` would not know each other's errors.
function testing.preload()
  for _, name in ipairs({ "lunashard", "lunashard.process", "lunashard.sandbox", "inspect", "cjson.safe" }) do
    require(name)
  end
end

local function excess(before)
  local now, found = core.counts(), {}
  for _, name in ipairs(WATCHED) do
    if now[name] > before[name] then
      found[#found + 1] = ("%d %s"):format(now[name] - before[name], name)
    end
  end
  return #found > 0 and table.concat(found, " and ") or nil
end

--- Fail when more tasks or operations are alive than were before. Yields.
-- @tparam table before as `lunashard.core.task.counts()` gave it
-- @string what whose they are
function testing.check_leaks(before, what)
  local deadline = task.now() + SETTLE
  local left = excess(before)
  while left and task.now() < deadline do
    task.sleep(0.01)
    left = excess(before)
  end
  if left then
    error(("%s left %s behind"):format(what, left), 0)
  end
end

return testing
