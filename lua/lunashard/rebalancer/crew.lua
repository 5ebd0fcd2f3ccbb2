--- The moves of a job, several at a time within caps.
-- @module lunashard.rebalancer.crew

local errors = require("lunashard.errors")
local job = require("lunashard.rebalancer.job")
local mover = require("lunashard.rebalancer.move")
local task = require("lunashard.task")

local crew = {}

local LOOK_EVERY = 0.5 -- seconds between two looks at what is asked
local HEARD = 0.1 -- seconds after the catalog has said that something changed: most of it is our own doing
local SHORT = 10 -- seconds for a statement on the catalog

--- What a move is told.
-- @tparam Rebalancer self
-- @tparam table row the job
-- @tparam table held the lock
-- @tparam table run from `new`
-- @treturn table
function crew.context(self, row, held, run)
  return {
    manager = self.manager,
    catalog = self.catalog,
    job = row,
    token = held.token,
    options = self:move_options(row),
    at = self.at,
    progress = function(move)
      self:note_progress(row, move)
    end,
    stopping = function()
      if self.interrupt and not run.stopped then
        run.reason, run.stopped = self.interrupt, "pause"
      end
      return run.reason
    end,
  }
end

-- One that somebody had begun to give up is given up first, and begins anew.
local function run_to_end(context, move)
  local done, err = mover.run(context, move)
  if done and move.state == "aborted" then
    done, err = job.renew(context.catalog, context.job.id, context.token, task.now() + SHORT)
    if done then
      done, err = mover.run(context, move)
    end
  end
  return done, err
end

local function start(context, move, run)
  run.busy[move.source], run.busy[move.destination] = (run.busy[move.source] or 0) + 1, (run.busy[move.destination] or 0) + 1
  run.active = run.active + 1
  local worker
  worker = task.spawn(function()
    local ok, done, err = pcall(run_to_end, context, move)
    run.busy[move.source], run.busy[move.destination] = run.busy[move.source] - 1, run.busy[move.destination] - 1
    run.active, run.workers[worker] = run.active - 1, nil
    if not (ok and done) and not (run.stopped and errors.is(ok and err or done, "CANCELED")) then
      run.failure = run.failure or { move = move, error = not ok and done or err }
      run.reason = run.reason or "another move failed"
    end
    run.changed:notify()
  end):watch()
  run.workers[worker] = true
end

local function may_start(run, move, caps)
  return run.active < caps.total and (run.busy[move.source] or 0) < caps.per_shard
    and (run.busy[move.destination] or 0) < caps.per_shard
end

-- Give work to whoever may have some; how many are left.
local function hand_out(context, queue, run, caps)
  local i = 1
  while queue[i] and not run.reason do
    if may_start(run, queue[i], caps) then
      start(context, table.remove(queue, i), run)
    else
      i = i + 1
    end
  end
  return #queue
end

--- What has been asked since; a token that is not ours is somebody who thought us dead. Yields.
-- @tparam Rebalancer self
-- @tparam table context
-- @tparam table run gets `reason` and `stopped`
function crew.listen(self, context, run)
  local look = job.look(self.catalog, context.job.id, task.now() + SHORT)
  if look and look.token ~= context.token then
    run.reason, run.stopped = "taken over by another mover", "taken over"
  elseif look and look.request and not run.stopped then
    run.reason, run.stopped = "asked to " .. look.request, look.request
  end
  context.stopping()
  self:throttle_now(context)
end

--- Do these moves. Yields.
-- @tparam Rebalancer self
-- @tparam table context
-- @tparam {table,...} moves
-- @tparam table run gets `stopped`, when something was asked: `pause`, `cancel`, `taken over`; and `reason`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error of the first that failed
function crew.work(self, context, moves, run)
  local caps = { total = self.max_parallel_tasks, per_shard = self.max_per_shard }
  local queue = {} -- of more than some thousand, unpack would fail
  for i, move in ipairs(moves) do
    queue[i] = move
  end
  local catalog = self.catalog
  catalog.wakes[run.changed] = true
  local ok, raised = pcall(function()
    local next_look, heard = 0, catalog.times_heard
    while (hand_out(context, queue, run, caps) > 0 and not run.reason) or run.active > 0 do
      if heard ~= catalog.times_heard then
        heard, next_look = catalog.times_heard, math.min(next_look, task.now() + HEARD)
      end
      if task.now() >= next_look then
        crew.listen(self, context, run)
        next_look = task.now() + LOOK_EVERY
      elseif run.active > 0 or #queue > 0 then
        run.changed:wait(next_look)
      end
    end
  end)
  catalog.wakes[run.changed] = nil
  if not ok then
    for worker in pairs(run.workers) do
      worker:cancel()
    end
    error(raised, 0)
  elseif run.failure then
    local failed, err = run.failure.move, run.failure.error
    if not errors.is(err) then
      error(err, 0)
    end
    local told = errors.wrap(err)
    told.message = ("move %d (%s to %s): %s"):format(failed.seq, failed.source, failed.destination, err.message)
    return nil, told
  end
  return true
end

--- A run of a crew.
-- @treturn table
function crew.new()
  return { busy = {}, workers = {}, active = 0, changed = task.event() }
end

return crew
