--- Background jobs of `lunashard serve`: Lua files that are run again and again.
-- One runs at a time; those that are due meanwhile wait for their turn. A file is read for each run, so what it says
-- now is what is done. It sees `cluster`, `manager` and `router`; it fails when it raises, returns `false` or `nil, err`,
-- or takes longer than its `timeout`, and is then cancelled.
-- @module lunashard.serve.jobs

local errors = require("lunashard.errors")
local events = require("lunashard.events")
local task = require("lunashard.task")

local jobs = {}

local CANCEL_GRACE = 5 -- seconds that a job has to end once it is cancelled

local Jobs = {}
Jobs.__index = Jobs

local function source(path)
  local file, why = io.open(path, "rb")
  if not file then
    return nil, why
  end
  local text, reason = file:read("*a")
  file:close()
  return text, reason
end

-- Runs in the job's own task.
local function execute(self, job)
  local text, why = source(job.path)
  if not text then
    error(("cannot read the job: %s"):format(why), 0)
  end
  local globals = { cluster = self.cluster, manager = self.cluster.manager, router = self.cluster.router }
  local chunk, problem = load((text:gsub("^#", "--#", 1)), "@" .. job.path, "t", setmetatable(globals, { __index = _G }))
  if not chunk then
    error(problem, 0)
  end
  return chunk()
end

local function note(self, job, outcome, problem)
  local had_failed = job.outcome == "failed" or job.outcome == "timeout"
  job.runs = job.runs + 1
  job.outcome, job.error = outcome, problem
  if outcome == "ok" then
    job.failures_in_a_row = 0
    if had_failed then
      events.emit({ kind = "job", job = job.name, to = "ok", message = ("job %s is well again"):format(job.name) },
        self.cluster.manager)
    end
    return
  end
  job.failures = job.failures + 1
  job.failures_in_a_row = job.failures_in_a_row + 1
  if outcome ~= "cancelled" then
    events.emit({ kind = "job", job = job.name, to = "failed",
      message = ("job %s failed: %s"):format(job.name, problem) }, self.cluster.manager)
  end
end

local ENDED = { ended = true, failed = true, canceled = true }

local function end_of(self, job, joined, value, err)
  if joined then
    if value == false or (value == nil and err ~= nil) then
      return "failed", err ~= nil and tostring(err) or "it returned false"
    end
    return "ok"
  elseif errors.is(value, "TIMEOUT") then
    self.running:cancel()
    self.running:join(CANCEL_GRACE)
    local ended = ENDED[self.running:status()]
    job.lingers = not ended and self.running or nil
    return "timeout", ("it took longer than %gs%s"):format(job.timeout, ended and "" or ", and goes on though it was cancelled")
  elseif errors.is(value, "CANCELED") then
    return "cancelled", "it was cancelled"
  end
  return "failed", tostring(value.cause or value)
end

local function run(self, job)
  job.state, job.last_started = "running", os.time()
  local began = task.now()
  job.due = began + job.every
  self.running = task.daemon(execute, self, job):watch()
  local outcome, problem = end_of(self, job, self.running:join(job.timeout))
  self.running = nil
  job.state, job.last_duration = "waiting", task.now() - began
  note(self, job, outcome, problem and problem:match("^[^\n]*"))
end

local function still_goes_on(job)
  if job.lingers and ENDED[job.lingers:status()] then
    job.lingers = nil
  end
  return job.lingers ~= nil
end

local function next_due(self)
  local found
  for _, job in ipairs(self.list) do
    if still_goes_on(job) then
      job.due = math.max(job.due, task.now() + job.every)
    end
    if not found or job.due < found.due then
      found = job
    end
  end
  return found
end

local function work(self)
  while not self.stopping do
    local job = next_due(self)
    if job and job.due <= task.now() then
      run(self, job)
      self.changed:notify()
    else
      self.changed:wait(job and job.due)
    end
  end
end

--- Make what runs a cluster's jobs.
-- @tparam lunashard.cluster cluster
-- @tparam ?{table,...} list `name`, `every`, `run` and `timeout` of each, as `config` has checked them
-- @treturn Jobs with `start`, `set`, `status`, `stop`
function jobs.new(cluster, list)
  local self = setmetatable({ cluster = cluster, list = {}, changed = task.event() }, Jobs)
  self:set(list)
  return self
end

--- Run these from now on. One that has its name already keeps what is known of it, and when it is due; a new one is due
-- at once.
-- @tparam ?{table,...} list
function Jobs:set(list)
  local before, after = {}, {}
  for _, job in ipairs(self.list) do
    before[job.name] = job
  end
  for i, given in ipairs(list or {}) do
    local job = before[given.name] or { name = given.name, state = "waiting", runs = 0, failures = 0,
      failures_in_a_row = 0, due = task.now() }
    job.path, job.every, job.timeout = given.run, given.every, given.timeout
    job.due = math.min(job.due, task.now() + job.every)
    after[i] = job
  end
  self.list = after
  self.changed:notify()
end

--- Begin.
function Jobs:start()
  self.worker = self.worker or task.daemon(work, self)
end

--- How the jobs are.
-- @treturn {table,...} of each `name`, `path`, `every`, `timeout`, `state` (`waiting`, `running`), `next_in` (seconds),
--   `runs`, `failures`, `failures_in_a_row`, and once it was run `last_started` (Unix time), `last_duration`, `outcome` (`ok`,
--   `failed`, `timeout`, `cancelled`) and `error`
function Jobs:status()
  local all, now = {}, task.now()
  for i, job in ipairs(self.list) do
    local one = { next_in = math.max(0, job.due - now) }
    for _, name in ipairs({ "name", "path", "every", "timeout", "state", "runs", "failures", "failures_in_a_row",
      "last_started", "last_duration", "outcome", "error" }) do
      one[name] = job[name]
    end
    all[i] = one
  end
  return all
end

--- Start no more. What runs may go on until the deadline, and is cancelled then. Yields. May be called again.
-- @tparam ?number deadline on the clock of `lunashard.now`; at once without one
function Jobs:stop(deadline)
  self.stopping = true
  self.changed:notify()
  if not self.worker then
    return
  end
  self.worker:join(deadline and math.max(0, deadline - task.now()) or 0)
  if self.running then
    self.running:cancel()
    self.worker:join(CANCEL_GRACE)
  end
  self.worker:cancel()
end

return jobs
