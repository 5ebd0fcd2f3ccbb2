--- Drills whose traffic with one shard goes through a proxy.
-- @module spec.support.faults.through

local faults = require("spec.support.faults")
local proxy = require("spec.support.net.proxy")

local through = {}

--- How a manager's options lead to a shard by another host or port. Its password is given there: that of the passfile is
-- for host and port as they were.
-- @tparam table shard as spec.support.sandbox describes it
-- @tparam table where `host`, `port`, and other options of the shard
-- @treturn func for `adapt` of a drill
function through.lead(shard, where)
  return function(options)
    for _, given in ipairs(options.shards) do
      if given.shard_id == shard.shard_id then
        given.passfile, given.password = nil, shard.password
        for name, value in pairs(where) do
          given[name] = value
        end
      end
    end
  end
end

--- Begin a drill with a proxy before a shard.
-- @tparam table options as for `faults.drill`
-- @number number which shard
-- @treturn Drill
-- @treturn Proxy to be closed
function through.drill(options, number)
  local shard = options.servers.shards[number]
  local between = proxy.start(shard.port)
  options.adapt = through.lead(shard, { port = between.port })
  local ok, drill = pcall(faults.drill, options)
  if not ok then
    between:close()
    error(drill, 0)
  end
  return drill, between
end

return through
