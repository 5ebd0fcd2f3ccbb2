--- One cutover at a time on each shard, with a gap between two: reads of all shards are held up by each of them.
-- While one is under way the other moves of this process begin nothing new: what it needs of the machines is all its own.
-- @module lunashard.rebalancer.turn
-- @local

local task = require("lunashard.task")

local turn = {}

local GAP, SHARE = 0.03, 0.2 -- seconds at least, and of the time that the last cutover took

local LONGEST = 0.1 -- seconds that others give way at a time

local taken = setmetatable({}, { __mode = "k" }) -- manager -> shard_id -> { held, free_at, changed }

local function state_of(manager, shard_id)
  taken[manager] = taken[manager] or {}
  local state = taken[manager][shard_id]
  if not state then
    state = { held = false, free_at = 0, changed = task.event() }
    taken[manager][shard_id] = state
  end
  return state
end

local cutovers = setmetatable({}, { __mode = "k" }) -- manager -> { under_way, changed }

local function cutovers_of(manager)
  local state = cutovers[manager]
  if not state then
    state = { under_way = 0, changed = task.event() }
    cutovers[manager] = state
  end
  return state
end

local function wait_for_others(manager)
  local state, until_then = cutovers_of(manager), task.now() + LONGEST
  while state.under_way > 0 and task.now() < until_then do
    state.changed:wait(until_then)
  end
  return state
end

--- Begin no work while another move's cutover is under way. Yields, for moments.
-- @tparam table context of a mover
function turn.give_way(context)
  if context.options.strategy ~= "offline" then
    wait_for_others(context.manager)
  end
end

--- Wait for one's turn on some shards, and for moments for cutovers on others. The cutover is under way from then on, until the
-- turn is given back for the first time. Yields.
-- @tparam Manager manager
-- @tparam {string,...} shard_ids
-- @treturn func to be called at the end, or with a shard's id when that one needs it no longer; later calls do nothing
function turn.take(manager, shard_ids)
  local ids, held, is_under_way = { unpack(shard_ids) }, {}, false
  table.sort(ids) -- all in the same order: nobody waits for one who waits for him
  local function release(only)
    local now, all = task.now(), cutovers_of(manager)
    if is_under_way then
      is_under_way, all.under_way = false, all.under_way - 1
      all.changed:notify()
    end
    for i = #held, 1, -1 do
      local state = held[i]
      if not only or state == state_of(manager, only) then
        state.held, state.free_at = false, now + math.max(GAP, SHARE * (now - state.since))
        state.changed:notify(1)
        table.remove(held, i)
      end
    end
  end
  local ok, err = pcall(function()
    for _, id in ipairs(ids) do
      local state = state_of(manager, id)
      while state.held do
        state.changed:wait()
      end
      state.held = true
      held[#held + 1] = state
      state.since = task.now()
      task.sleep(math.max(0, state.free_at - state.since))
    end
    local all = wait_for_others(manager)
    is_under_way, all.under_way = true, all.under_way + 1
    for _, state in ipairs(held) do
      state.since = task.now()
    end
  end)
  if not ok then
    release()
    error(err, 0)
  end
  return release
end

return turn
