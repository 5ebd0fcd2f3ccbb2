--- What breaks while rows move. The mover's own faults are in `spec.chaos.moving`.
-- @module spec.chaos.faults

local lunashard = require("lunashard")
local signals = require("spec.support.signals")

local faults = {}

-- Longer than the lease of a router.
local FROZEN = { 0.5, 3, 20 }

local kinds = {}

-- A router is killed, and another one takes its place.
function kinds.router(run)
  local n = math.random(#run.routers)
  local child = run.routers[n]
  if child.killed then
    return
  end
  child.killed = true
  child:signal("KILL")
  child:wait(10)
  run:add_router(run.larger_file)
end

-- A router stands still.
function kinds.frozen_router(run)
  local child = run.routers[math.random(#run.routers)]
  if child.killed then
    return
  end
  child:signal("STOP")
  lunashard.sleep(FROZEN[math.random(#FROZEN)])
  child:signal("CONT")
end

-- A server crashes, and is started again.
function kinds.server(run)
  local shard = run.servers.shards[math.random(#run.servers.shards)]
  run.servers:kill(shard.name)
  lunashard.sleep(math.random())
  run.servers:start()
end

-- A server stands still.
function kinds.frozen_server(run)
  local shard = run.servers.shards[math.random(#run.servers.shards)]
  signals.freeze(run.servers, shard.name)
  lunashard.sleep(math.random() * 3)
  signals.thaw(run.servers, shard.name)
end

local NAMES = { "router", "frozen_router", "server", "frozen_server" }

--- Break things until the time is over. Yields.
-- @tparam Run run
-- @number until_then
-- @tparam ?string wanted names with commas between [all]; `none`
function faults.keep_breaking(run, until_then, wanted)
  local list = {}
  for _, name in ipairs(NAMES) do
    if wanted == nil or ("," .. wanted .. ","):find("," .. name .. ",", 1, true) then
      list[#list + 1] = name
    end
  end
  while list[1] and lunashard.now() < until_then do
    lunashard.sleep(1 + math.random() * 4)
    kinds[list[math.random(#list)]](run)
    run.faults = (run.faults or 0) + 1
  end
end

return faults
