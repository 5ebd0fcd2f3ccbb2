--- Doing a job in waves (see `lunashard.rebalancer.waves`): move, look after the shards for a while, and go on, or pause.
-- @module lunashard.rebalancer.gradual
-- @local

local cjson = require("cjson.safe")
local crew = require("lunashard.rebalancer.crew")
local job = require("lunashard.rebalancer.job")
local pulse = require("lunashard.rebalancer.pulse")
local release = require("lunashard.rebalancer.release")
local task = require("lunashard.task")
local waves = require("lunashard.rebalancer.waves")

local gradual = {}

local SHORT = 10 -- seconds for a statement on the catalog
local LOOK_EVERY, TELL_EVERY = 0.25, 2 -- seconds

local SAVE = "UPDATE lunashard_catalog.job SET options = jsonb_set(options, '{waves}', $2::jsonb) "
  .. "WHERE id = $1::bigint AND token = $3"

local function save(self, context)
  local row = context.job
  self:note_waves(row)
  return self.catalog:execute(SAVE, { row.id, assert(cjson.encode(row.options.waves)), context.token }, task.now() + SHORT)
end

local function chosen(row, seqs)
  local wanted, list = {}, {}
  for _, seq in ipairs(seqs) do
    wanted[seq] = true
  end
  for _, move in ipairs(row.moves) do
    if wanted[move.seq] and move.state ~= "done" and move.state ~= "aborted" then
      list[#list + 1] = move
    end
  end
  return list
end

-- Wait, and look. Why the gate closed, or nil.
local function soak(self, context, run, all)
  local mark, began, next_listen, next_tell = context.pulse:mark(), task.now(), 0, 0
  all.state, all.verdict = "soaking", nil
  repeat
    task.sleep(LOOK_EVERY)
    local reading = context.pulse:reading(mark)
    all.soaked = task.now() - began
    all.reading = { error_rate = reading.error_rate, p99_ms = reading.p99_ms, lag_seconds = reading.lag_seconds }
    local verdict = waves.verdict(all.gate, reading)
    if verdict then
      return verdict
    end
    if task.now() >= next_listen then
      crew.listen(self, context, run)
      next_listen = task.now() + LOOK_EVERY * 2
    end
    if task.now() >= next_tell then
      save(self, context)
      next_tell = task.now() + TELL_EVERY
    end
  until run.reason or all.soaked >= all.soak
end

local function pause(self, context, run, verdict)
  context.job.options.waves.verdict = verdict
  run.verdict, run.reason, run.stopped = verdict, "paused: " .. verdict, "pause"
  local ok, err = save(self, context)
  return ok and true or nil, err
end

-- Bring a wave back, and pause.
local function finish_reversing(self, context, run, all)
  local ok, err = crew.work(self, context, chosen(context.job, all.reversing), run)
  if not ok or run.reason then
    return ok, err
  end
  all.reversing, all.state = nil, "moving"
  return pause(self, context, run, ("%s; wave %d was moved back"):format(all.verdict or "the gate closed", all.passed + 1))
end

local function reverse(self, context, run, all, wave, verdict)
  local row = context.job
  local back, again = waves.turn(row.moves, all.list[wave])
  local function numbers(moves)
    local list = {}
    for i, move in ipairs(moves) do
      list[i] = move.seq
    end
    return list
  end
  all.verdict, all.state, all.reversing, all.list[wave] = verdict, "reversing", numbers(back), numbers(again)
  for _, move in ipairs(again) do
    back[#back + 1] = move
  end
  local ok, err = release.run(context, row) -- what shards note is for the moves that there were
  if ok then
    ok, err = job.append(self.catalog, row.id, context.token, back, { waves = all }, task.now() + SHORT)
  end
  local fresh
  if ok then
    fresh, err = job.read(self.catalog, row.id, task.now() + SHORT)
  end
  if not fresh then
    return nil, err
  end
  row.moves = fresh.moves
  self.catalog:note("waves", ("wave %d is moved back: %s"):format(wave, verdict), row.id)
  return finish_reversing(self, context, run, all)
end

local function in_waves(self, context, run, all)
  if all.reversing then
    return finish_reversing(self, context, run, all)
  end
  for wave = all.passed + 1, #all.list do
    all.state, all.soaked = "moving", nil
    local ok, err = save(self, context)
    if ok then
      ok, err = crew.work(self, context, chosen(context.job, all.list[wave]), run)
    end
    if not ok or run.reason then
      return ok and true or nil, err
    end
    local verdict = soak(self, context, run, all)
    if verdict and all.reverse then
      return reverse(self, context, run, all, wave, verdict)
    elseif verdict then
      return pause(self, context, run, verdict)
    elseif run.reason then
      return true
    end
    all.passed, all.state, all.soaked = wave, "moving", nil
    ok, err = save(self, context)
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Do the moves of a job, in waves if it has any. Yields.
-- @tparam Rebalancer self
-- @tparam table context from `crew.context`
-- @tparam {table,...} moves
-- @tparam table run from `crew.new`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function gradual.work(self, context, moves, run)
  local all = context.job.options.direction ~= "back" and context.job.options.waves
  if not all and not self:throttles(context.job) then
    return crew.work(self, context, moves, run)
  end
  context.pulse = pulse.start(self.manager)
  local ok, value, err = pcall(function()
    if all then
      return in_waves(self, context, run, all)
    end
    return crew.work(self, context, moves, run)
  end)
  context.pulse:stop()
  if not ok then
    error(value, 0)
  end
  return value, err
end

return gradual
