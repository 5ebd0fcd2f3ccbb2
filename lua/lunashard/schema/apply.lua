--- A schema change on all shards: the same script everywhere, one shard first, and again from where it stopped.
-- Every shard does the steps of the script (see `lunashard.schema.script`) in order, on one connection. What it has done is
-- kept there (see `lunashard.schema.ledger`), so that a run that failed or was killed is simply run again.
-- @module lunashard.schema.apply

local attempt = require("lunashard.router.attempt")
local errors = require("lunashard.errors")
local indexes = require("lunashard.schema.indexes")
local ledger = require("lunashard.schema.ledger")
local options = require("lunashard.options")
local parallel = require("lunashard.parallel")
local scatter = require("lunashard.router.scatter")
local script = require("lunashard.schema.script")
local task = require("lunashard.task")

local apply = {}

local PARALLEL, TIMEOUT, LOCK_TIMEOUT = 4, 3600, 5
local CLEANING = 30 -- seconds for what a failed build left behind, also when the run's own time is over

local OPTIONS = {
  change = "string",
  canary = "string",
  shard_ids = "table",
  parallel = "count",
  go_on = "boolean",
  again = "boolean",
  timeout = "seconds",
  lock_timeout = "seconds",
  on_progress = "function",
}

local UNREACHABLE = { SHARD_DOWN = true, AUTH = true, POOL_EXHAUSTED = true }

--- Read a script; connects nowhere.
-- @function plan
-- @string text
-- @string name of the file, for messages
-- @treturn[1] table see `lunashard.schema.script.read`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`, with `name:line`
apply.plan = script.read

--- What the statements of a plan would destroy.
-- @tparam table plan
-- @treturn {table,...} each with `line` and `what`, in words
function apply.destroys(plan)
  local list = {}
  for _, statement in ipairs(plan.statements) do
    if statement.destroys then
      list[#list + 1] = { line = statement.line, what = statement.destroys }
    end
  end
  return list
end

-- ---- one shard -----------------------------------------------------------------

local Run = {} -- of one shard: lease, plan, opts, change, deadline, record
Run.__index = Run

-- The server's message with the place in the script, and what to do.
local function located(self, statement, err)
  local line = script.line_of(statement, err.position)
  local context = { shard_id = self.record.shard_id }
  if err.sqlstate == "55P03" then
    context.hint = ("the lock was not to be had within lock_timeout (%gs), so that nobody had to wait behind this: run it "
      .. "again"):format(self.opts.lock_timeout or LOCK_TIMEOUT)
  end
  local explained = errors.wrap(err, context)
  explained.message = ("%s:%d: %s: %s"):format(self.plan.name, line, statement.title, err.message)
  return nil, explained
end

function Run:send(statement)
  local result, err = self.lease:execute(statement.text, nil, { simple = true, deadline = self.deadline })
  if not result then
    return located(self, statement, err)
  end
  return result
end

function Run:control(sql)
  return self.lease:execute(sql, nil, { simple = true, deadline = self.deadline })
end

function Run:send_settings(step)
  for _, setting in ipairs(step.settings) do
    local ok, err = self:send(setting)
    if not ok then
      return nil, err
    end
  end
  return true
end

function Run:in_transaction(step)
  local ok, err = self:send_settings(step)
  if ok then
    ok, err = self:control("BEGIN")
  end
  for _, statement in ipairs(ok and step.statements or {}) do
    ok, err = self:send(statement)
    if not ok then
      break
    end
  end
  if ok then
    ok, err = ledger.write(self.lease, self.change, step, true, self.deadline)
  end
  if ok then
    return self:control("COMMIT")
  end
  self:control("ROLLBACK") -- when it cannot be sent either, the session is gone, and the transaction with it
  return nil, err
end

local function note_cleaned(self, index)
  table.insert(self.record.cleaned, index.name)
end

-- An index that an earlier run has left: true when it is there already, by that run.
function Run:take_over(statement, state)
  local found, err = indexes.clean(self.lease, statement.index, self.deadline)
  if not found then
    return nil, err
  elseif found == "removed" then
    note_cleaned(self, statement.index)
  end
  return found == "valid" and state == "begun" and "there" or "build"
end

-- The statement's own error is what is told; that of the cleaning stands beside it. Only what the server refused is
-- certain to be over: else the step stays begun, and the next run looks what became of it.
function Run:clean_up(step, err)
  local deadline, index = task.now() + CLEANING, step.statements[1].index
  if err.code == "SQL" then
    ledger.strike(self.lease, self.change, step, deadline)
  end
  if not index then
    return
  end
  local found, problem = indexes.clean(self.lease, index, deadline)
  if found == "removed" then
    note_cleaned(self, index)
  elseif not found then
    err.hint = ("an invalid index %s may be there still (%s): the next run removes it"):format(index.name,
      tostring(problem.message))
  end
end

function Run:outside(step, state)
  local statement = step.statements[1]
  local ok, err = self:send_settings(step)
  local way = "build"
  if ok and statement.index then
    way, err = self:take_over(statement, state)
    ok = way
  end
  if ok and way == "build" then
    ok, err = ledger.write(self.lease, self.change, step, false, self.deadline)
    if ok then
      ok, err = self:send(statement)
      if not ok then
        self:clean_up(step, err)
      end
    end
  end
  if not ok then
    return nil, err
  end
  return ledger.write(self.lease, self.change, step, true, self.deadline)
end

function Run:tell(step)
  local tell, record = self.opts.on_progress, self.record
  if tell then
    tell({ shard_id = record.shard_id, step = step.number, steps = record.steps, title = step.title })
  end
end

function Run:all_steps()
  local states, err = ledger.read(self.lease, self.change, { create = true, deadline = self.deadline })
  local ok = states
  if ok then
    ok, err = self:control(("SET lock_timeout = %d"):format((self.opts.lock_timeout or LOCK_TIMEOUT) * 1000))
  end
  for _, step in ipairs(ok and self.plan.steps or {}) do
    local state = states[step.digest]
    if state ~= "done" or self.opts.again then
      self:tell(step)
      local how = step.transactional and self.in_transaction or self.outside
      ok, err = how(self, step, state)
      if not ok then
        self.record.failed_step = step.number
        break
      end
      self.record.applied = self.record.applied + 1
    end
  end
  return ok and true, err
end

local function finish(record, started, ok, err)
  record.duration = task.now() - started
  if not ok then
    record.error = err
    record.outcome = UNREACHABLE[err.code] and record.applied == 0 and not record.failed_step and "unreachable" or "failed"
  else
    record.outcome = record.applied > 0 and "changed" or "unchanged"
  end
  return record
end

local function run_shard(router, plan, opts, record, member, deadline)
  local started = task.now()
  local lease, err = attempt.lease(router, member, { writes = true }, deadline)
  if not lease then
    return finish(record, started, nil, err)
  end
  local self = setmetatable({
    lease = lease, plan = plan, opts = opts, change = opts.change or plan.name, deadline = deadline, record = record,
  }, Run)
  local ok, done, problem = pcall(self.all_steps, self)
  lease:release()
  if not ok then
    error(done, 0)
  end
  return finish(record, started, done, problem)
end

-- ---- all shards ----------------------------------------------------------------

local function members_of(router, opts)
  local members, err = scatter.members(router.manager, opts.shard_ids)
  if not members then
    return nil, err
  end
  local canary = opts.canary or members[1].shard_id
  local known
  known, err = router.manager:member(canary)
  if not known then
    return nil, err
  end
  local order = {}
  for _, member in ipairs(members) do
    table.insert(order, member == known and 1 or #order + 1, member)
  end
  if order[1] ~= known then
    return nil, errors.new("INVALID", { message = ("option canary: %s is not among shard_ids"):format(canary) })
  end
  return order
end

local function record_of(member, plan)
  return { shard_id = member.shard_id, outcome = "skipped", steps = #plan.steps, applied = 0, cleaned = {} }
end

local function summary(plan, opts, records)
  local report = { change = opts.change or plan.name, steps = #plan.steps, shards = records, failed = {} }
  for _, record in ipairs(records) do
    if record.error then
      report.failed[#report.failed + 1] = { shard_id = record.shard_id, error = record.error }
    end
  end
  report.complete = true
  for _, record in ipairs(records) do
    report.complete = report.complete and (record.outcome == "changed" or record.outcome == "unchanged")
  end
  return report
end

--- Apply a script to the shards. Yields.
-- The first of them goes alone; the others follow when it has succeeded, and no more are begun after a failure. Raises for
-- unknown options and wrong types.
-- @tparam Router router
-- @tparam table plan from @{plan}
-- @tparam[opt] table opts `change`: the name under which it is kept what is done [the plan's]; `canary`: the shard that goes
--   first [the first]; `shard_ids`; `parallel`: how many shards at a time after it [4]; `go_on = true`: also after a
--   failure; `again = true`: also what is done already; `timeout` seconds for all [3600]; `lock_timeout` seconds that a
--   statement waits for a lock, and others behind it [5]; `on_progress(event)`: `shard_id`, `step`, `steps`, `title`
-- @treturn[1] table `complete`, `change`, `steps`, `failed` (a list of `{ shard_id, error }`), and `shards`: a list of
--   `shard_id`, `outcome` (`changed`, `unchanged`, `failed`, `unreachable`, `skipped`), `steps`, `applied` (steps done by
--   this run), `failed_step`, `error`, `duration`, `cleaned` (names of invalid indexes that were removed)
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_SHARD`, `INVALID`, `CLOSED`; nothing was done
function apply.run(router, plan, opts)
  opts = options.check(opts, OPTIONS, "schema.apply")
  local ok, err = router.manager:check_open()
  local members
  if ok then
    members, err = members_of(router, opts)
  end
  if not members then
    return nil, err
  end
  local deadline = task.deadline(opts.timeout or TIMEOUT)
  local records = {}
  for i, member in ipairs(members) do
    records[i] = record_of(member, plan)
  end
  local function one(member, i)
    local record = run_shard(router, plan, opts, records[i], member, deadline)
    return not record.error and record or nil, record.error
  end
  local first = one(members[1], 1)
  if first or opts.go_on then
    local rest = { unpack(members, 2) }
    parallel.each(rest, function(member, i)
      return one(member, i + 1)
    end, { limit = opts.parallel or PARALLEL, stop_on_error = not opts.go_on })
  end
  return summary(plan, opts, records)
end

local function preview_shard(router, plan, opts, record, member, deadline)
  local lease, err = attempt.lease(router, member, {}, deadline)
  local states
  if lease then
    states, err = ledger.read(lease, opts.change or plan.name, { deadline = deadline })
    lease:release()
  end
  if not states then
    record.outcome, record.error = UNREACHABLE[err.code] and "unreachable" or "failed", err
    return record
  end
  record.pending = {}
  for _, step in ipairs(plan.steps) do
    if states[step.digest] ~= "done" or opts.again then
      record.pending[#record.pending + 1] = step.number
    end
  end
  record.outcome = #record.pending > 0 and "pending" or "unchanged"
  return record
end

--- What `run` would do; nothing is written. Yields.
-- @tparam Router router
-- @tparam table plan
-- @tparam[opt] table opts as for `run`
-- @treturn[1] table as from `run`; the `outcome` of shards is `pending`, `unchanged`, `failed` or `unreachable`, and `pending`
--   the numbers of the steps
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_SHARD`, `INVALID`, `CLOSED`
function apply.preview(router, plan, opts)
  opts = options.check(opts, OPTIONS, "schema.apply")
  local ok, err = router.manager:check_open()
  local members
  if ok then
    members, err = members_of(router, opts)
  end
  if not members then
    return nil, err
  end
  local deadline, records = task.deadline(opts.timeout or router.query_timeout), {}
  for i, member in ipairs(members) do
    records[i] = record_of(member, plan)
  end
  parallel.each(members, function(member, i)
    return preview_shard(router, plan, opts, records[i], member, deadline)
  end)
  local report = summary(plan, opts, records)
  report.complete = #report.failed == 0
  return report
end

return apply
