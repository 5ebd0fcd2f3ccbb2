--- What breaks while rows move: which fault comes when, and to whom, is a matter of the seed alone. Two kinds of things
-- happen side by side: something to a server, one at a time, and something to anything else. What may happen to the
-- mover besides is in `spec.chaos.moving`.
-- @module spec.chaos.faults

local dice = require("spec.chaos.dice")
local lunashard = require("lunashard")
local meddling = require("spec.chaos.meddling")
local network = require("spec.chaos.network")
local servers = require("spec.chaos.servers")

local faults = {}

-- Seconds, some of them longer than the lease of a router.
local FROZEN = { 0.5, 3, 6, 12 }

-- A router is killed, and another one takes its place.
local function kill_router(run, drawn)
  local place = drawn:int(1, run.options.routers)
  return ("router %d is killed"):format(place), function()
    run.routers[place]:signal("KILL")
    run.routers[place]:wait(10)
    run:add_router(place)
  end
end

local function freeze_router(run, drawn)
  local place, pause = drawn:int(1, run.options.routers), drawn:pick(FROZEN)
  return ("router %d stands still for %.1f s"):format(place, pause), function()
    run.routers[place]:signal("STOP")
    lunashard.sleep(pause)
    run.routers[place]:signal("CONT")
  end
end

local ALL = {}

-- Seconds between two of them.
local PAUSES = { servers = { 3, 12 }, others = { 1, 8 } }

local function add(lane, list)
  for name, fault in pairs(list) do
    ALL[name] = { lane = lane, plan = fault.plan, needs = fault.needs, weight = fault.weight or 1 }
  end
end

add("servers", servers.FAULTS)
add("others", meddling.FAULTS)
add("others", network.FAULTS)
add("others", { router = { plan = kill_router }, frozen_router = { plan = freeze_router } })

--- The shape that a list of faults takes.
-- @tparam ?string wanted names with commas between
-- @treturn ?string nil when any will do
function faults.shape(wanted)
  for name in (wanted or ""):gmatch("[^,]+") do
    if not ALL[name] and name ~= "none" then
      error(("there is no fault %q"):format(name), 0)
    end
    if name ~= "none" and ALL[name].needs then
      return ALL[name].needs
    end
  end
end

--- Names of what may happen, in order.
-- @string lane `servers` or `others`
-- @string shape of the run
-- @tparam ?string wanted names with commas between [all]; `none`
-- @treturn {string,...} some of them more than once, for they are to come more often
function faults.names(lane, shape, wanted)
  local list = {}
  for name, fault in pairs(ALL) do
    local is_wanted = wanted == nil or ("," .. wanted .. ","):find("," .. name .. ",", 1, true)
    if fault.lane == lane and is_wanted and (fault.needs == nil or fault.needs == shape) then
      for _ = 1, fault.weight do
        list[#list + 1] = name
      end
    end
  end
  table.sort(list)
  return list
end

--- The nth thing that happens: when, and what.
-- @tparam Run run
-- @string lane
-- @int n
-- @tparam {string,...} names
-- @treturn number seconds after the last one
-- @treturn string
-- @treturn func which does it
function faults.choose(run, lane, n, names)
  local drawn = dice.new(run.options.seed, ("%s %d"):format(lane, n))
  local pause = drawn:between(unpack(PAUSES[lane]))
  local text, act = ALL[drawn:pick(names)].plan(run, drawn)
  return pause, text, act
end

local function keep_breaking(run, lane, until_then, wanted)
  local names, n = faults.names(lane, run.options.shape, wanted), 0
  while names[1] and lunashard.now() < until_then do
    n = n + 1
    local pause, text, act = faults.choose(run, lane, n, names)
    lunashard.sleep(pause)
    run:log("fault: " .. text)
    act()
    run:log("fault is over: " .. text)
    run.faults = run.faults + 1
  end
  return true
end

--- Break things until the time is over. Yields.
-- @tparam Run run
-- @number until_then
-- @tparam ?string wanted
-- @treturn boolean true
function faults.keep_breaking(run, until_then, wanted)
  local others = lunashard.spawn(keep_breaking, run, "others", until_then, wanted)
  keep_breaking(run, "servers", until_then, wanted)
  return assert(others:join())
end

return faults
