--- Long work in small pieces: others get their turn in between.
-- @module lunashard.plugin.breath

local task = require("lunashard.task")

local breath = {}

local AT_A_STRETCH = 0.01 -- seconds

--- What to call between two pieces of a long work. It yields when the work has gone on for long enough.
-- @treturn func
function breath.new()
  local since = task.now()
  return function()
    if task.now() - since > AT_A_STRETCH then
      task.sleep(0)
      since = task.now()
    end
  end
end

return breath
