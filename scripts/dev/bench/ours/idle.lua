--- Memory of tasks that wait.
local lunashard = require("lunashard")
local rusage = require("rusage")

local function settle()
  collectgarbage()
  collectgarbage()
end

return function(options)
  settle()
  local memory, lua = rusage.memory("VmRSS"), collectgarbage("count") * 1024
  local tasks = {}
  for i = 1, options.tasks do
    tasks[i] = lunashard.spawn(function()
      lunashard.sleep(3600)
    end)
  end
  lunashard.sleep(0.2)
  assert(tasks[options.tasks]:status() == "waiting")
  settle()
  local figures = {
    bytes = (rusage.memory("VmRSS") - memory) / options.tasks,
    lua_bytes = (collectgarbage("count") * 1024 - lua) / options.tasks,
  }
  for _, task in ipairs(tasks) do
    task:cancel()
    task:join()
  end
  return figures
end
