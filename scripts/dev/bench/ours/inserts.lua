--- Inserts of one row each, in autocommit. `tasks`, `manager`.
local harness = require("ours.harness")

return function(options)
  local router, manager = harness.open(options)
  math.randomseed(os.time())
  local figures = harness.window(options, function()
    local key = math.random(options.keys)
    local result = assert(router:execute(options.sql, { key, math.random(1000) }, { routing_key = key }))
    assert(result.row_count == 1)
  end)
  figures.connections = harness.connections(manager)
  manager:shutdown()
  return figures
end
