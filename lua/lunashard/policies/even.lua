--- As few buckets as are needed for each shard to have its share.
-- What a bucket weighs, what a shard can take and what may live where are three functions, which may be given:
-- `{ "even", cost = function(bucket), capacity = function(shard), allowed = function(bucket, shard) }`. A policy of one's
-- own that has any of the three, and no `plan`, is evened out in the same way.
-- @module lunashard.policies.even

local balance = require("lunashard.rebalancer.balance")
local breath = require("lunashard.plugin.breath")
local errors = require("lunashard.errors")

local even = { api = 1, kind = "policy", name = "even", options = { "by", "tolerance", "cost", "capacity", "allowed" } }

local COSTS = {
  rows = function(item)
    return item.rows
  end,
  bytes = function(item)
    return item.bytes
  end,
  buckets = function()
    return 1
  end,
}

--- Check the options.
-- @tparam table options `by`: `rows` [default], `bytes` or `buckets`; `tolerance`: of a share [0.02]; `cost`, `capacity`,
--   `allowed`
-- @treturn table options
function even.new(options)
  local by = options.by or "rows"
  if not COSTS[by] then
    local near = errors.nearest(tostring(by), COSTS)
    error(("even: by must be rows, bytes or buckets, not %s%s"):format(tostring(by),
      near and ("; did you mean %q?"):format(near) or ""), 0)
  end
  local tolerance = options.tolerance
  if tolerance ~= nil and (type(tolerance) ~= "number" or tolerance ~= tolerance or tolerance < 0) then
    error("even: tolerance must be a number, 0 or more, not " .. tostring(tolerance), 0)
  end
  for _, name in ipairs({ "cost", "capacity", "allowed" }) do
    if options[name] ~= nil and type(options[name]) ~= "function" then
      error(("even: %s must be a function, not %s"):format(name, tostring(options[name])), 0)
    end
  end
  return options
end

--- Plan. Yields.
-- @tparam table state
-- @tparam table options from `new`
-- @treturn[1] {table,...} moves
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function even.plan(state, options)
  return balance.even(state, { cost = options.cost or COSTS[options.by or "rows"], capacity = options.capacity,
    allowed = options.allowed, tolerance = options.tolerance, pause = breath.new() })
end

return even
