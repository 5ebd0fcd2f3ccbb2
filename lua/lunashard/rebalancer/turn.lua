--- One cutover at a time on each shard, with a gap between two: reads of all shards are held up by each of them.
-- @module lunashard.rebalancer.turn
-- @local

local task = require("lunashard.task")

local turn = {}

local GAP, SHARE = 0.03, 0.2 -- seconds at least, and of the time that the last cutover took

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

--- Wait for one's turn on some shards. Yields.
-- @tparam Manager manager
-- @tparam {string,...} shard_ids
-- @treturn func to be called at the end, or with a shard's id when that one needs it no longer; later calls do nothing
function turn.take(manager, shard_ids)
  local ids, held = { unpack(shard_ids) }, {}
  table.sort(ids) -- all in the same order: nobody waits for one who waits for him
  local function release(only)
    local now = task.now()
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
