--- To each shard its share of the load: what takes the time, not what takes the room.
-- A bucket's load is the time that its statements took in this process in the last five minutes; where nothing was sent
-- from here, each server is asked what its tables did in some seconds, and that is shared among its buckets by their rows.
-- @module lunashard.policies.by_load

local balance = require("lunashard.rebalancer.balance")
local breath = require("lunashard.plugin.breath")
local errors = require("lunashard.errors")

local by_load = { api = 1, kind = "policy", name = "by_load", options = { "tolerance" }, measures_load = true }

local function load_of(item)
  return item.load
end

--- Plan. Yields.
-- @tparam table state
-- @tparam table options `tolerance`: of a share [0.1]
-- @treturn[1] {table,...} moves
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when there is no load
function by_load.plan(state, options)
  local total = 0
  for _, item in ipairs(state.buckets) do
    total = total + item.load
  end
  if total == 0 then
    return nil, errors.new("INVALID", { message = "no load was measured: plan while there is traffic" })
  end
  return balance.even(state, { cost = load_of, tolerance = options.tolerance or 0.1, pause = breath.new() })
end

return by_load
