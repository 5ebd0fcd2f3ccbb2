--- A job that runs: its progress on stderr, signals that ask it to pause, what it says when it fails.
-- @module lunashard.cli.rebalance.follow

local cli = require("lunashard.cli")
local errors = require("lunashard.errors")
local output = require("lunashard.cli.output")
local preflight = require("lunashard.rebalancer.preflight")
local progress = require("lunashard.script.progress")
local signal = require("lunashard.core.signal")
local signals = require("lunashard.process").signals
local task = require("lunashard.task")
local view = require("lunashard.cli.rebalance.view")

local follow = {}

local STOP_WITHIN, ALARM = 4, 6 -- seconds that a run has to stop after a signal; and until it is ended outright

local wait_signal = task.waits(signal.wait)

--- Tell what is wrong, and every further problem of a pre-flight check.
-- @tparam table args
-- @tparam lunashard.error err
-- @tparam[opt] table told the job, for JSON
-- @treturn number exit code
function follow.fail(args, err, told)
  cli.say("rebalance %s: %s", args.action, errors.is(err) and err.message or tostring(err))
  for i, problem in ipairs(errors.is(err) and err.problems or {}) do
    if i > 1 then
      cli.say("  %s", preflight.line(problem))
    end
  end
  if errors.is(err) then
    output.failed_shards("rebalance " .. args.action, err)
  end
  if errors.is(err) and err.hint then
    cli.say("  %s", err.hint)
  end
  if args.json then
    local plain = errors.to_table(err)
    plain.problems = errors.is(err) and err.problems or nil
    output.json({ error = plain, job = told and view.json(told) })
  end
  return errors.is(err, "INVALID") and cli.exit.failed or errors.exit_code(err)
end

--- Say what to type next.
-- @tparam table args
-- @string what the action
-- @tparam number id of the job
function follow.next_command(args, what, id)
  cli.say("next: %s rebalance %s %d -c %s", cli.program(), what, id, cli.cluster_path(args))
end

-- Wait for a task's end and for signals, which ask the job to pause. Its outcome, and the signal.
local function attend(self, worker, tick)
  signal.catch(signals.TERM, ALARM)
  signal.catch(signals.INT, ALARM)
  local signo, stop_at
  while true do
    local status = worker:status()
    if status == "ended" or status == "failed" or status == "canceled" then
      local joined, ok, err = worker:join()
      return joined and ok, joined and err or ok, signo
    elseif stop_at and task.now() > stop_at then
      worker:cancel()
      return nil, errors.new("CANCELED", { message = "it did not stop in time and was broken off" }), signo
    end
    wait_signal(task.now() + 0.1)
    local caught = signal.take()
    if caught then
      signo, stop_at = caught, task.now() + STOP_WITHIN
      self.interrupt = ("interrupted by signal %d"):format(caught)
      cli.say("rebalance: stopping at the next point from which the job can go on")
    end
    tick()
  end
end

-- The bar of a job, from when it is known how much there is to do.
local function show_progress(bar, id, live)
  local total = math.max(live.total_rows or 0, 1)
  if not bar and live.total_rows and live.status == "running" then
    bar = progress.new("rebalance", ("job %d"):format(id), total, "rows")
  elseif bar then
    bar:set(math.min(live.rows_copied or 0, total))
  end
  return bar
end

--- Do what a job is to do while its progress is shown: a bar on a terminal, a line now and then elsewhere. A signal asks it to
-- pause. Yields.
-- @tparam Rebalancer self
-- @tparam table args
-- @tparam number id
-- @string method of the rebalancer: `execute_job` or `rollback_job`
-- @treturn[1] number 0
-- @treturn[1] table the job
-- @treturn[2] number exit code; what is wrong has been said
function follow.run(self, args, id, method)
  local worker = task.spawn(function()
    return self[method](self, id)
  end):watch()
  local bar
  local ok, err, signo = attend(self, worker, function()
    if not args.json or progress.is_terminal() then
      bar = show_progress(bar, id, self.jobs[id] or {})
    end
  end)
  if bar then
    bar:finish()
  end
  local last, problem = self:get_job_status(id)
  if ok and last then
    return cli.exit.ok, last
  end
  local code = follow.fail(args, not ok and err or problem, last)
  if not last or last.open or last.status == "failed" or last.status == "paused" then
    follow.next_command(args, "resume", id)
  end
  return signo and 128 + signo or code
end

return follow
