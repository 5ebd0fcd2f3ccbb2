--- What a network may do between the routers of a chaos run and its servers, by the proxies before these.
-- @module spec.chaos.network

local lunashard = require("lunashard")

local network = {}

local WAYS = { "up", "down", "both" }

-- Something with a proxy for some time.
local function spoil(text, longest, fn)
  return function(run, dice)
    local number, pause, way, size = dice:int(1, #run.servers.shards), dice:between(0.2, longest), dice:pick(WAYS),
      dice:pick({ 1, 100, 5000, 200000 })
    return ("the network to shard%d %s (%s, %d) for %.1f s"):format(number, text, way, size, pause), function()
      local one = run.proxies[number]
      fn(one, way, size)
      lunashard.sleep(pause)
      one:pass()
    end
  end
end

local function fault(...)
  return { plan = spoil(...), needs = "network" }
end

network.FAULTS = {
  slow_network = fault("is slow", 4, function(one, way, size)
    one:delay(way, size / 400000)
  end),
  cut_network = fault("is cut", 8, function(one, way)
    one:hold(way)
  end),
  -- What was on its way is forgotten, and nobody is told before the end.
  deaf_network = fault("forgets its connections", 5, function(one, way)
    one:drop(way)
  end),
  broken_network = fault("breaks connections in the middle of an answer", 3, function(one, way, size)
    one:truncate(way, size)
  end),
  crumbling_network = fault("delivers crumbs", 1, function(one)
    one:break_up(400)
  end),
  reset_network = fault("resets connections, and refuses new ones", 3, function(one)
    one:refuse()
    one:reset()
  end),
  half_network = fault("ends connections on one side", 1, function(one, way)
    one:half_close(way == "up" and "server" or "client")
  end),
}

return network
