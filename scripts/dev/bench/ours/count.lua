--- A count over the rows of all shards, one after the other.
local harness = require("ours.harness")
local lunashard = require("lunashard")

return function(options)
  local router, manager = harness.open(options)
  local sum = { aggregation_func = lunashard.aggregate.sum("count") }
  options.tasks = 1
  local figures = harness.window(options, function()
    local total = assert(router:scatter_gather(options.sql, nil, sum))
    assert(total.rows[1].count == options.expected, "a wrong count")
  end)
  manager:shutdown()
  return figures
end
