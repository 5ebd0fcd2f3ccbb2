--- Running a job: who holds the lock has its moves done, several at a time within caps, and listens to what is asked.
-- All of it can be begun again at any point by anybody: what was done is in the catalog and on the shards.
-- @module lunashard.rebalancer.runner

local crew = require("lunashard.rebalancer.crew")
local errors = require("lunashard.errors")
local gradual = require("lunashard.rebalancer.gradual")
local job = require("lunashard.rebalancer.job")
local leases = require("lunashard.catalog.lease")
local lock = require("lunashard.rebalancer.lock")
local mover = require("lunashard.rebalancer.move")
local preflight = require("lunashard.rebalancer.preflight")
local references = require("lunashard.rebalancer.references")
local release = require("lunashard.rebalancer.release")
local shards = require("lunashard.rebalancer.shards")
local tables = require("lunashard.rebalancer.tables")
local task = require("lunashard.task")

local runner = {}

local SHORT, LONG = 10, 60 -- seconds for a statement on the catalog; for guards to be on everywhere

local function short()
  return task.now() + SHORT
end

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

local function moves_in(row, accept)
  local list = {}
  for _, move in ipairs(row.moves) do
    if accept(move) then
      list[#list + 1] = move
    end
  end
  return list
end

local function all_settled(row)
  return #moves_in(row, function(move)
    return not job.SETTLED[move.state]
  end) == 0
end

-- ---- before and after ------------------------------------------------------------------

local function ids_of(moves)
  local list, seen = {}, {}
  for _, side in ipairs({ "source", "destination" }) do
    for _, move in ipairs(moves) do
      if not seen[move[side]] then
        seen[move[side]] = true
        list[#list + 1] = move[side]
      end
    end
  end
  return list
end

local FRESH = [[
  SELECT s.shard_id FROM lunashard_catalog.shard s
   WHERE s.state = 'active' AND s.shard_id = ANY ($1) AND NOT s.joined ORDER BY s.position]]

-- Shards that have just come get the reference tables.
local function furnish(self, moves)
  local ids = {}
  for i, move in ipairs(moves) do
    ids[i] = move.destination
  end
  local found, err = self.catalog:execute(FRESH, { ids }, short())
  if not found then
    return nil, err
  end
  for _, fresh in ipairs(found.rows) do
    local copied
    copied, err = references.copy(self.manager, moves[1].source, fresh.shard_id, task.now() + 3600)
    if not copied then
      return nil, err
    elseif copied > 0 then
      self.catalog:note("reference", ("%d reference tables copied to %s"):format(copied, fresh.shard_id))
    end
  end
  return true
end

local function prepare(self, row, moves)
  local list, err = tables.of_group(self.catalog, row.grp, short())
  local ok = list
  if list then
    ok, err = preflight.check(self.manager, list, ids_of(moves), { harmless = row.options.harmless, job = row.id,
      deadline = task.now() + LONG })
  end
  if ok then
    ok, err = leases.open_guards(self.catalog, task.now() + LONG)
  end
  if ok then
    ok, err = furnish(self, moves)
  end
  return ok and true or nil, err
end

-- What a job has left on shards, none of whose moves is under way.
local function release_notes(self, held, row)
  return release.run({ manager = self.manager, catalog = self.catalog, token = held.token,
    options = self:move_options(row) }, row)
end

-- Guards are off again once nothing stands half-way.
local function finish(self, held, id, status, message)
  local row, err = job.read(self.catalog, id, short())
  if not row then
    return nil, err
  elseif row.token ~= held.token then
    return nil, lock.taken_over(id)
  end
  local ok
  if all_settled(row) then
    ok, err = release_notes(self, held, row)
    if ok then
      ok, err = leases.close_guards(self.catalog, nil, { job = id, token = held.token })
    end
    if not ok and errors.is(err, "LOCK_HELD") then
      return nil, err
    elseif not ok then
      message = ("%striggers and guards could not be removed: %s"):format(message and message .. "; " or "", err.message)
    end
  end
  ok, err = job.set(self.catalog, id, held.token, status, message, short())
  if not ok then
    return nil, err
  end
  self.catalog:note("job", ("job %d is %s%s"):format(id, status, message and ": " .. message or ""), id)
  return true
end

-- ---- what can be asked for ---------------------------------------------------------------

-- Take the lock. Who only gives back what a dead mover had closed is waited for: that may be this very process. So is one
-- who was gone when his name was asked for.
local function acquire(self, id)
  local deadline = task.now() + LONG
  while true do
    local held, err = lock.acquire(self.catalog, id, short())
    local is_brief = err and errors.is(err, "LOCK_HELD") and (not err.holder or err.holder == lock.RECOVERY)
    if not is_brief or task.now() > deadline then
      return held, err
    end
    task.sleep(0.1)
  end
end

-- Run with the lock held. Who was cancelled gives it back all the same, for its session ends with the task.
local function with_lock(self, id, fn)
  local may, err = preflight.rights(self.catalog, short())
  local held
  if may then
    held, err = acquire(self, id)
  end
  if not held then
    return nil, err
  end
  local ok, value, problem = pcall(function()
    local row, why = job.read(self.catalog, id, short())
    if not row then
      return nil, why
    end
    return fn(row, held)
  end)
  held:release()
  if not ok then
    error(value, 0)
  end
  return value, problem
end

-- Nothing of these moves is to stay half-way: those before the commit point are undone, those after it completed.
local function settle(self, row, held, accept)
  local run = crew.new()
  local context = crew.context(self, row, held, run)
  for _, move in ipairs(moves_in(row, accept)) do
    local ok, err
    if move.state == "merged" or move.state == "flipped" then
      ok, err = mover.run(context, move)
    elseif move.state == "planned" then
      ok, err = self.catalog:execute("UPDATE lunashard_catalog.move SET state = 'aborted', error_message = 'cancelled' "
        .. "WHERE job = $1::bigint AND seq = $2 AND state = 'planned' AND EXISTS (SELECT FROM lunashard_catalog.job "
        .. "WHERE id = $1 AND token = $3)", { row.id, move.seq, held.token }, short())
    else
      ok, err = mover.abort(context, move)
      if not ok and err.committed then
        ok, err = mover.run(context, move)
      end
    end
    if not ok then
      return nil, err
    end
  end
  return true
end

local function unfinished(move)
  return move.state ~= "done" and move.state ~= "aborted"
end

local function retire_drained(self, row)
  local drained = row.kind == "drain" and row.options.direction ~= "back" and row.options.planner.shard
  if not drained then
    return true
  end
  local gone, err = shards.retire(self.catalog, drained, short())
  if gone then
    self.catalog:note("shard", ("%s owns nothing any more and can be taken out of the cluster file"):format(drained), row.id)
  end
  return gone ~= nil or nil, err
end

local function complete(self, row, held)
  local ok, err = retire_drained(self, row)
  if not ok then
    return nil, err
  end
  return finish(self, held, row.id, row.options.direction == "back" and "rolled_back" or "completed")
end

local function cancel_now(self, row, held)
  local ok, err = settle(self, row, held, unfinished)
  if ok and row.kind == "drain" then
    ok, err = shards.set(self.catalog, row.options.planner.shard, "active", short())
  end
  if not ok then
    job.set(self.catalog, row.id, held.token, "failed", err.message, short())
    return nil, err
  end
  return finish(self, held, row.id, "cancelled")
end

local drive

local function stopped_by(self, row, held, run)
  local ok, err
  if run.stopped == "cancel" then
    row, err = job.read(self.catalog, row.id, short())
    ok = row
    if row then
      ok, err = cancel_now(self, row, held)
    end
  elseif run.stopped == "pause" then
    ok, err = finish(self, held, row.id, "paused", run.verdict)
  end
  if err then
    return nil, err
  end
  return nil, errors.new(ok and "CANCELED" or "LOCK_HELD", { message = ("the job was %s"):format(run.reason) })
end

function drive(self, row, held)
  local run = crew.new()
  local context = crew.context(self, row, held, run)
  local moves = moves_in(row, unfinished)
  local ok, err = job.set(self.catalog, row.id, held.token, "running", nil, short())
  if ok and row.started_at and all_settled(row) then -- what shards note is for the moves that there were
    ok, err = release_notes(self, held, row)
  end
  if ok and #moves > 0 then
    ok, err = prepare(self, row, moves)
  end
  if ok then
    ok, err = gradual.work(self, context, moves, run)
  end
  if not ok and errors.is(err, "LOCK_HELD") then
    return nil, err -- the job is somebody else's now
  elseif not ok then
    local told, problem = finish(self, held, row.id, "failed", err.message)
    if not told and errors.is(problem, "LOCK_HELD") then
      return nil, problem
    elseif not told then
      err = errors.wrap(err, { hint = "the catalog could not be told; resume the job when it is back" })
    end
    return nil, err
  elseif run.stopped then
    return stopped_by(self, row, held, run)
  end
  return complete(self, row, held)
end

local RESUMABLE = { pending = true, running = true, paused = true, failed = true }

--- Run a job to its end. Yields.
-- @tparam Rebalancer self
-- @tparam number id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` when somebody runs it, `INVALID` when it has ended or a check before the first row
--   says no, `CANCELED` when it was asked to pause or to end, or what failed
function runner.run(self, id)
  return with_lock(self, id, function(row, held)
    if not RESUMABLE[row.status] then
      return invalid("job %d is %s: there is nothing to resume", id, row.status)
    end
    local ok, err = job.renew(self.catalog, id, held.token, short())
    if ok then
      row, err = job.read(self.catalog, id, short())
    end
    if not ok or not row then
      return nil, err
    end
    return drive(self, row, held)
  end)
end

--- Pause a job that nobody runs. Yields.
-- @tparam Rebalancer self
-- @tparam number id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function runner.pause(self, id)
  return with_lock(self, id, function(row, held)
    if row.status ~= "running" and row.status ~= "pending" and row.status ~= "paused" then
      return invalid("job %d is %s: there is nothing to pause", id, row.status)
    end
    return finish(self, held, id, "paused")
  end)
end

--- End a job that nobody runs: what is half-way is undone, or completed where it cannot be. Yields.
-- @tparam Rebalancer self
-- @tparam number id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function runner.cancel(self, id)
  return with_lock(self, id, function(row, held)
    if not RESUMABLE[row.status] then
      return invalid("job %d is %s: there is nothing to cancel", id, row.status)
    end
    return cancel_now(self, row, held)
  end)
end

--- Bring back the map of before a job. Yields.
-- @tparam Rebalancer self
-- @tparam number id
-- @tparam function plan_back function(row) -> moves | nil, err: those that lead back
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function runner.rollback(self, id, plan_back)
  return with_lock(self, id, function(row, held)
    if row.status == "rolled_back" then
      return invalid("job %d is rolled back already", id)
    elseif not row.open then
      local open, err = job.find_open(self.catalog, short())
      if open == nil then
        return nil, err
      elseif open then
        return nil, job.open_error(open)
      end
    end
    local ok, err = settle(self, row, held, unfinished)
    if ok then
      row, err = job.read(self.catalog, id, short())
    end
    local moves
    if ok and row then
      moves, err = plan_back(row)
    end
    if moves then
      ok, err = job.append(self.catalog, id, held.token, moves, { direction = "back",
        back_from = row.moves[#row.moves].seq + 1 }, short())
    end
    if moves and ok and row.kind == "drain" then
      ok, err = shards.set(self.catalog, row.options.planner.shard, "active", short())
    end
    if moves and ok then
      row, err = job.read(self.catalog, id, short())
    end
    if not moves or not ok or not row then
      return nil, err
    end
    return drive(self, row, held)
  end)
end

return runner
