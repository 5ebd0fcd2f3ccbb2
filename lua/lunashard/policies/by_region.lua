--- Evens out inside every region, and across none. What is in the wrong region is brought home.
-- A bucket's region is what the strategy says (`geographic`), else that of the shard it lives on: so that with any other
-- strategy rows stay in the region in which they are.
-- @module lunashard.policies.by_region

local balance = require("lunashard.rebalancer.balance")
local breath = require("lunashard.plugin.breath")
local errors = require("lunashard.errors")

local by_region = { api = 1, kind = "policy", name = "by_region", options = { "tolerance" } }

--- May a bucket live there?
-- @tparam table bucket
-- @tparam table shard
-- @treturn boolean
function by_region.allowed(bucket, shard)
  return bucket.region == shard.region
end

--- Plan. Yields.
-- @tparam table state
-- @tparam table options `tolerance`: of a share [0.02]
-- @treturn[1] {table,...} moves
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when a shard has no region, or a region no shard
function by_region.plan(state, options)
  for _, shard in ipairs(state.shards) do
    if shard.region == nil then
      return nil, errors.new("INVALID", { message = ("shard %s has no region"):format(shard.shard_id) })
    end
  end
  return balance.even(state, { allowed = by_region.allowed, tolerance = options.tolerance, pause = breath.new() })
end

return by_region
