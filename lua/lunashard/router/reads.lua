--- Options of reads: what of the past they must see, and how old it may be.
-- @module lunashard.router.reads

local hedge = require("lunashard.router.hedge")
local lag_limit = require("lunashard.manager.lag_limit")
local lsn = require("lunashard.lsn")
local options = require("lunashard.options")
local raise = require("lunashard.misuse").raise

local reads = {}

--- The options; in calls that may read from replicas.
-- @table OPTIONS
reads.OPTIONS = { read_only = "boolean", after = "any", max_replica_lag = "any" }

--- Raise, at the place that called our caller, for a wrong `after`, `max_replica_lag` or `hedge`.
-- @tparam table opts
-- @string what function name
-- @int[opt] level of that place, as `error` counts it [3]
function reads.check(opts, what, level)
  local after, limit = opts.after, opts.max_replica_lag
  if after ~= nil and type(after) ~= "table" and not lsn.is(after) then
    raise(('%s: option after: expected the result of a write, or its lsn such as "0/16B3748", got %s'):format(what,
      options.describe(after)), level or 3)
  end
  local problem = limit ~= nil and lag_limit.problem(limit)
  if problem then
    raise(("%s: option max_replica_lag: %s"):format(what, problem), level or 3)
  end
  problem = opts.hedge ~= nil and hedge.problem(opts.hedge)
  if problem then
    raise(("%s: option hedge: %s"):format(what, problem), level or 3)
  end
end

--- What the choice of an endpoint has to know.
-- @tparam table opts
-- @treturn ?boolean|table false or nil for no read, true for one without wishes, otherwise the options
function reads.wishes(opts)
  if opts.read_only and (opts.after ~= nil or opts.max_replica_lag ~= nil) then
    return opts
  end
  return opts.read_only
end

return reads
