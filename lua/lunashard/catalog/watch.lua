--- Looking after the map in the background: has it changed, has a mover left fences behind?
-- The catalog is asked once a second. A session that LISTENs has it asked at once, which is a hint and nothing else: while
-- there is none (the server is gone, a pooler between does not do that), only the next look comes later.
-- @module lunashard.catalog.watch
-- @local

local errors = require("lunashard.errors")
local map = require("lunashard.catalog.map")
local place = require("lunashard.catalog.place")
local task = require("lunashard.task")

local watch = {}

--- Seconds between two looks at the map's version, with a jitter.
watch.POLL = 1.0

local SHORTEST = 0.01 -- seconds between two looks, whatever is heard
local FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10 -- seconds before LISTEN is tried again; doubled from the first to the second

-- While a job is open its mover may be gone; a shard that does not answer must not hold up the map.
local function see_to_fences(catalog, manager)
  if not catalog.seeing then
    catalog.seeing = true
    task.daemon(function()
      local ok, problem = pcall(require("lunashard.rebalancer.recover").run, manager)
      catalog.seeing = false
      if not ok and not errors.is(problem) then
        error(problem, 0)
      end
    end)
  end
end

local function look(catalog)
  local manager = catalog.owner.manager
  if not manager or manager.closed then
    return false
  end
  local result = catalog:execute(map.LOOK, nil, task.now() + manager.options.health_check_timeout)
  local row = result and result.rows[1]
  local same = row and not catalog.unreachable and map.is_present(catalog, row)
  if row and not same or not row and not catalog:is_complete() then
    catalog:refresh()
  end
  if row and row.guards then
    see_to_fences(catalog, manager)
  elseif row then
    require("lunashard.rebalancer.sweep").now_and_then(catalog, manager)
  end
  return true
end

-- One session, until it is lost. Holds nothing of the manager, which may be forgotten meanwhile.
local function listen(catalog, pool, timeout)
  local session = pool:acquire(task.now() + timeout)
  local ok = session and session:execute("LISTEN lunashard_map; LISTEN lunashard_job", nil,
    { simple = true, deadline = task.now() + timeout })
  catalog.session = ok and session or nil
  local listened = ok and true or false
  while ok do
    catalog.times_heard = catalog.times_heard + 1 -- what was said before this session listened, too
    catalog.heard:notify()
    for event in pairs(catalog.wakes) do
      event:notify()
    end
    ok = session:notified()
  end
  return listened
end

local function keep_listening(catalog)
  local pause = FIRST_PAUSE
  while catalog.owner.manager and not catalog.owner.manager.closed do
    local pool, at = place.listener(catalog.owner.manager)
    catalog.listening_at = at
    local ok, listened = pcall(listen, catalog, pool, catalog.owner.manager.options.connection_timeout)
    catalog.session = nil
    pool:close()
    if not ok and errors.is(listened, "CANCELED") then
      return
    end
    pause = ok and listened and FIRST_PAUSE or math.min(pause * 2, LONGEST_PAUSE)
    task.sleep(pause)
  end
end

-- A server that the catalog has left says nothing any more.
local function check_session(catalog)
  local manager = catalog.owner.manager
  if catalog.session and manager and catalog.listening_at ~= place.endpoint(manager) then
    catalog.session:discard("the catalog is on another server now")
  end
end

local function poll(catalog)
  local heard = 0
  repeat
    task.sleep(SHORTEST)
    if heard == catalog.times_heard then -- otherwise something was said during the last look
      catalog.heard:wait(task.now() + watch.POLL * (0.75 + 0.5 * math.random()))
    end
    heard = catalog.times_heard
    local ok, goes_on = pcall(look, catalog)
    check_session(catalog)
  until ok and not goes_on
  watch.stop(catalog)
end

--- Begin. Does not yield.
-- @tparam table catalog gets `poller` and `listener`, tasks; `session`, while it is told of changes; `times_heard`, and
--   `wakes`, a set of events that are notified then
function watch.start(catalog)
  catalog.times_heard, catalog.wakes = 0, {}
  catalog.poller = task.daemon(poll, catalog)
  catalog.listener = task.daemon(keep_listening, catalog)
end

--- End it, with its session. Does not yield.
-- @tparam table catalog
function watch.stop(catalog)
  catalog.listener:cancel()
  catalog.heard:notify()
end

return watch
