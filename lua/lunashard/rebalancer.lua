--- Moving rows between shards while they are read and written.
-- It takes a cluster with a catalog (`lunashard cluster init`). What moves is planned first and can be looked at; a job is
-- written down in the catalog, so that any process can watch it, and resume it when the one that ran it is gone.
--
--     local rebalancer = lunashard.rebalancer { shard_manager = manager, router = router }
--     local job = assert(rebalancer:create_rebalance_job { table_name = "users", strategy = "live_migration" })
--     local ok, err = rebalancer:execute_job(job.job_id)
-- @classmod lunashard.rebalancer

local back = require("lunashard.rebalancer.back")
local cleanup = require("lunashard.rebalancer.cleanup")
local errors = require("lunashard.errors")
local giants = require("lunashard.rebalancer.giants")
local job = require("lunashard.rebalancer.job")
local manager_module = require("lunashard.manager")
local options_of = require("lunashard.options")
local planning = require("lunashard.rebalancer.planning")
local policy = require("lunashard.policy")
local preflight = require("lunashard.rebalancer.preflight")
local runner = require("lunashard.rebalancer.runner")
local shards = require("lunashard.rebalancer.shards")
local status = require("lunashard.rebalancer.status")
local task = require("lunashard.task")
local waves = require("lunashard.rebalancer.waves")

local rebalancer = {}

local Rebalancer = {}
Rebalancer.__index = Rebalancer
Rebalancer.__name = "lunashard.rebalancer"

local DEFAULTS = { batch_size = 5000, throttle_ms = 0, max_parallel_tasks = 4, max_per_shard = 2, enable_validation = true,
  max_cutover = 2, purge_delay = 0 }

local OPTIONS = { shard_manager = "any", router = "any", batch_size = "count", throttle_ms = "count",
  max_parallel_tasks = "count", max_per_shard = "count", enable_validation = "boolean", max_cutover = "seconds",
  purge_delay = "any", throttle = "any" }

-- What a job keeps of these, for whoever resumes it.
local KEPT = { "batch_size", "throttle_ms", "enable_validation", "max_cutover", "purge_delay" }

local JOB_OPTIONS = { table_name = "string", group = "string", shard_key = "any", strategy = "string", planner = "any",
  by = "string", tolerance = "any", shard = "string", key = "any", buckets = "table", moves = "table", harmless = "table",
  waves = "table", soak = "any", gate = "table", reverse = "boolean" }

local STRATEGIES = { live_migration = true, offline = true, gradual = true }
local LONGEST_PAUSE = 60 -- seconds

local function short()
  return task.now() + 10
end

local function refuse(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

--- Make one. Raises for unknown or wrong options.
-- @tparam table options
--
-- - `shard_manager`: an initialized manager; `router` is taken for the guide's sake, and its manager when there is no other
-- - `batch_size`: rows that are copied at a time [5000]; `throttle_ms`: pause after each batch [0]
-- - `max_parallel_tasks`: moves at a time [4]; `max_per_shard`: of these from or to one shard [2]
-- - `enable_validation`: compare count and checksum of both sides before anything changes hands [true]
-- - `max_cutover`: seconds that the statements of a bucket wait at the most when it changes hands [2]
-- - `purge_delay`: seconds that the source keeps what was moved, out of sight [0]
-- - `throttle`: function(stats) -> seconds to pause after each batch from now on, or a policy, as `{ "pace", p95_ms = 20 }`;
--   asked twice a second with `throttle` (the present pause), `lag_seconds` (of the replica that is farthest behind), `p95_ms`
--   and `p99_ms` of late (of this process' statements and of small looks at every shard), `error_rate`, `time` (as
--   `os.date("*t")`)
-- @treturn Rebalancer
function rebalancer.new(options)
  options = options_of.check(options, OPTIONS, "rebalancer")
  local manager = options.shard_manager or options.router and options.router.manager
  if not manager_module.is(manager) then
    error("rebalancer: option shard_manager: expected a manager, got " .. options_of.describe(manager), 2)
  end
  local throttle, problem = policy.handler(options.throttle, "throttle")
  if problem then
    error("rebalancer: option " .. problem, 2)
  end
  local self = setmetatable({ manager = manager, jobs = setmetatable({}, { __mode = "v" }), given = options,
    throttle = throttle }, Rebalancer)
  for name, value in pairs(DEFAULTS) do
    self[name] = options[name] == nil and value or options[name]
  end
  if self.batch_size < 1 or self.max_parallel_tasks < 1 or self.max_per_shard < 1 then
    error("rebalancer: batch_size, max_parallel_tasks and max_per_shard are at least 1", 2)
  elseif type(self.purge_delay) ~= "number" or self.purge_delay < 0 then
    error("rebalancer: option purge_delay: expected seconds, 0 or more, got " .. options_of.describe(self.purge_delay), 2)
  end
  return self
end

-- Every call begins here: the catalog may have come since.
local function begin(self)
  local ok, err = self.manager:check_open()
  if not ok then
    return nil, err
  end
  self.catalog = self.manager.catalog
  if not self.catalog then
    return refuse("the cluster has no catalog, which says where rows are while they move: run `lunashard cluster init`")
  end
  return self.catalog:refresh(short())
end

-- ---- plans ---------------------------------------------------------------------------

--- What a job would move. Changes nothing. Yields.
-- @tparam table given
--
-- - `table_name` or `group`: whose rows; not needed where there is one group. `shard_key` may be given, and is compared
-- - `planner`: a policy that plans: its name, `{ name, option = ... }`, or `lunashard.policy.<name> { option = ... }`. `follow`
--   [default]: to where the strategy puts them over the present shards; `minimal`; `even` (`by`: `rows` [default], `bytes`,
--   `buckets`; `tolerance`: of a share [0.02]; `cost`, `capacity`, `allowed`: functions); `by_load`; `by_region`; `drain`
--   (`shard`); `pin` (`key` or `buckets`, `shard`); `list` (`moves`: a list of `{ buckets = {...}, to = shard_id }`); or one of
--   the plug-in folder. `by`, `tolerance`, `shard`, `key`, `buckets` and `moves` may be given beside it
-- - `strategy`, `waves`, `soak`, `harmless`: see `create_rebalance_job`
-- @treturn[1] table `group`, `planner`, `moves` (a list: `seq`, `source`, `destination`, `buckets`, `rows`, `bytes`),
--   `buckets`, `rows`, `bytes`, `total_rows`, `share` (of the rows, 0 to 1), `estimated_seconds`, `shards` (before and
--   after), `by`, `warnings`, `giants` (buckets that are too large to be moved), `waves` (a list:
--   `share` in percent, `moves`, `buckets`, `rows`) of a gradual job
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`, `SHARDS_FAILED`, ...
function Rebalancer:plan(given)
  given = options_of.check(given, JOB_OPTIONS, "plan")
  local ok, err = begin(self)
  if not ok then
    return nil, err
  end
  return planning.make(self, given)
end

-- ---- jobs ------------------------------------------------------------------------------

-- A table that others keep gets what is known now.
local function update(self, told)
  local object = self.jobs[told.job_id] or {}
  for name in pairs(object) do
    object[name] = name == "plan" and object.plan or nil
  end
  for name, value in pairs(told) do
    object[name] = value
  end
  self.jobs[told.job_id] = object
  return object
end

local function read(self, id)
  local row, err = job.read(self.catalog, id, short())
  if not row then
    return nil, err
  end
  return update(self, job.describe(row)), row
end

--- Options of the moves of a job: what was said now, else what was said when it was made.
-- @local
function Rebalancer:move_options(row)
  local own = { strategy = row.strategy }
  for _, name in ipairs(KEPT) do
    own[name] = self.given[name]
    if own[name] == nil then
      own[name] = row.options[name]
    end
    if own[name] == nil then
      own[name] = self[name]
    end
  end
  return own
end

--- A move has got on.
-- @local
function Rebalancer:note_progress(row, move)
  for i, one in ipairs(row.moves) do
    if one.seq == move.seq then
      row.moves[i] = move
    end
  end
  row.status, row.held = "running", true
  update(self, job.describe(row))
end

--- Waves have got on.
-- @local
function Rebalancer:note_waves(row)
  update(self, job.describe(row))
end

-- What is asked for the pause: what was said now, else the policy that was named when the job was made.
local function throttle_of(self, row)
  local named = not self.throttle and row.options.throttle
  if not named then
    return self.throttle
  end
  local given = { named.name }
  for name, value in pairs(named.options) do
    given[name] = value
  end
  local fn, problem = policy.handler(given, "throttle")
  return fn, problem
end

--- Has a job a function or a policy that throttles it?
-- @local
function Rebalancer:throttles(row)
  return (self.throttle or row.options.throttle) ~= nil
end

--- Ask for the pause after a batch.
-- @local
function Rebalancer:throttle_now(context)
  if not self:throttles(context.job) or not context.pulse then
    return
  end
  local stats = context.pulse:lately()
  stats.throttle, stats.time = context.options.throttle_ms / 1000, os.date("*t")
  local fn, problem = throttle_of(self, context.job)
  local ok, pause = fn ~= nil, problem
  if fn then
    ok, pause = pcall(fn, stats)
  end
  if ok and type(pause) == "number" and pause >= 0 and pause == pause then
    context.options.throttle_ms = math.min(pause, LONGEST_PAUSE) * 1000
  else
    self.catalog:note("throttle", ("the throttle function %s; %g s stay"):format(ok and "gave " .. options_of.describe(pause)
      .. ", and no number of seconds" or "raised: " .. tostring(pause), stats.throttle), context.job.id)
  end
end

local function participants(made)
  local list, seen = {}, {}
  for _, side in ipairs({ "source", "destination" }) do
    for _, move in ipairs(made.moves) do
      if not seen[move[side]] then
        seen[move[side]] = true
        list[#list + 1] = move[side]
      end
    end
  end
  return list
end

-- What JSON can keep of a planner's options; which buckets were meant, the moves say.
local function kept_of(made)
  local kept = { name = made.planner }
  for name, value in pairs(made.options) do
    if type(value) == "string" or type(value) == "number" or type(value) == "boolean" then
      kept[name] = value
    end
  end
  return kept
end

local function record(self, made, given)
  local options = { planner = kept_of(made), harmless = given.harmless, waves = made.gradual,
    throttle = policy.spelled(self.given.throttle) }
  for _, name in ipairs(KEPT) do
    options[name] = self[name]
  end
  return job.create(self.catalog, { group = made.group, kind = made.planner, strategy = given.strategy or "live_migration",
    options = options, moves = made.moves, rows = math.floor(made.rows + 0.5) }, short())
end

--- Write a job down. Nothing moves before `execute_job`. Yields.
-- Everything that would stop it is looked for first: unreachable shards, missing tables, keys and rights, other definitions.
-- A shard that is new gets our schema, and is noted in the catalog.
-- @tparam table given as for `plan`, and
--
-- - `strategy`: `live_migration` [default]; `offline` (buckets are closed to writers first, and copied then); `gradual`: in
--   waves, with a while after each in which the shards have to stay well, or the job pauses
-- - of a gradual job: `waves`: percentages of what moves after each [{ 1, 5, 25, 100 }]; `soak`: seconds after each [60];
--   `gate`: limits of what the worst shard may come to meanwhile, `error_rate` [0.01], `p99_ms` [1000], `lag_seconds` [30], of
--   this process' statements and small looks at every shard; false for none; `reverse`: a wave after which a gate closes is
--   moved back
-- - `harmless`: names of triggers and rules on the tables that may see rows which move
-- @treturn[1] table the job, with the fields of `get_job_status`, live while it runs here; `plan`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `JOB_OPEN`, `INVALID` (`problems`: all that is wrong, each with `shard_id`, `table`, `message`)
function Rebalancer:create_rebalance_job(given)
  given = options_of.check(given, JOB_OPTIONS, "create_rebalance_job")
  if given.strategy and not STRATEGIES[given.strategy] then
    local near = errors.nearest(given.strategy, STRATEGIES)
    error(("create_rebalance_job: option strategy: expected \"live_migration\", \"gradual\" or \"offline\", got %q%s"):format(
      given.strategy, near and ("; did you mean %q?"):format(near) or ""), 2)
  end
  local _, problem = waves.wanted(given)
  if problem then
    error("create_rebalance_job: " .. problem, 2)
  end
  local ok, err = begin(self)
  local open
  if ok then
    ok, err = preflight.rights(self.catalog, short())
  end
  if ok then
    open, err = job.find_open(self.catalog, short())
  end
  if open == nil then
    return nil, err
  elseif open then
    return nil, job.open_error(open)
  end
  cleanup.run(self.manager) -- what a job could not remove from a shard out of reach; that it remains, pre-flight tells
  local made
  made, err = planning.make(self, given)
  if not made then
    return nil, err
  elseif #made.giants > 0 then
    return nil, giants.refusal(made.giants, made.giant_limit)
  end
  local fresh, warnings
  fresh, err = shards.fresh(self.catalog, participants(made), short())
  if fresh then
    warnings, err = preflight.check(self.manager, made.tables, participants(made), { harmless = given.harmless, fresh = fresh,
      deadline = task.now() + 60 })
  end
  if warnings then
    ok, err = shards.enrol(self.manager, fresh, task.now() + 60)
  end
  if not warnings or not ok then
    return nil, err
  end
  for _, one in ipairs(warnings) do
    table.insert(made.warnings, preflight.line(one))
  end
  local id
  id, err = record(self, made, given)
  if id and made.planner == "drain" then
    ok, err = shards.set(self.catalog, given.shard, "draining", short())
    id = ok and id
  end
  if not id then
    return nil, err
  end
  local object
  object, err = read(self, id)
  if not object then
    return nil, err
  end
  object.plan = made
  return object
end

-- With the latest job where none is named.
local function find(self, id)
  if id ~= nil and (type(id) ~= "number" or id % 1 ~= 0) then
    error("a job's number is a whole number, got " .. options_of.describe(id), 3)
  end
  local ok, err = begin(self)
  if not ok then
    return nil, err
  end
  return read(self, id)
end

--- Run a job to its end, or go on with one that was paused, failed, or left by whoever ran it. Yields.
-- @int id
-- @treturn[1] boolean true: all has moved
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` naming who runs it, `INVALID`, `CANCELED` when it was asked to pause or to end, or what
--   failed; the job's `error_message` says it too
function Rebalancer:execute_job(id)
  local told, err = find(self, id)
  if not told then
    return nil, err
  end
  local ok
  ok, err = runner.run(self, told.job_id)
  read(self, told.job_id)
  return ok, err
end

--- The same as `execute_job`, in the guide's word for a paused one. Yields.
-- @int id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Rebalancer:resume_job(id)
  return self:execute_job(id)
end

-- Ask whoever runs the job, and wait until it is so; when nobody does, it is done here.
local function ask(self, id, request, wanted, alone)
  local told, err = find(self, id)
  if not told then
    return nil, err
  end
  local ok
  local deadline = task.now() + 60
  repeat -- whoever has just begun with the job forgets what was asked before
    ok, err = job.ask(self.catalog, told.job_id, request, short())
    if not ok then
      return nil, err
    end
    ok, err = alone(self, told.job_id)
    if ok or not errors.is(err, "LOCK_HELD") then
      job.ask(self.catalog, told.job_id, nil, short())
      read(self, told.job_id)
      return ok, err
    end
    task.sleep(0.1)
    told, err = read(self, told.job_id)
    if not told or told.status == wanted then
      return told and true or nil, err
    end
  until task.now() > deadline
  return nil, errors.new("TIMEOUT", { message = ("job %d was asked to %s and has not done so yet"):format(told.job_id, request) })
end

--- Stop a job at the next point from which it can go on. Yields until it has.
-- @int id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when it has ended
function Rebalancer:pause_job(id)
  return ask(self, id, "pause", "paused", runner.pause)
end

--- End a job. Moves that are half-way are undone, or completed where they cannot be; what has moved stays where it is.
-- Yields.
-- @int id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when it has ended
function Rebalancer:cancel_job(id)
  return ask(self, id, "cancel", "cancelled", runner.cancel)
end

--- Bring back the map of before a job, by moving back what it has moved. Yields.
-- @int id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when a bucket has been moved again since, or nothing is to be brought back
function Rebalancer:rollback_job(id)
  local told, err = find(self, id)
  if not told then
    return nil, err
  end
  local ok
  ok, err = runner.rollback(self, told.job_id, function(row)
    return back.plan(self.catalog, row, short())
  end)
  read(self, told.job_id)
  return ok, err
end

--- How a job does. Yields: it asks the catalog.
-- @int[opt] id the latest by default
-- @treturn[1] table the guide's `status` (`pending running paused completed failed cancelled rolled_back`),
--   `progress_percent`, `total_migrated`, `total_rows`, `duration_seconds`, `error_message`; and `job_id`, `group`, `planner`,
--   `strategy`, `moves` (how many in each state), `moves_done`, `moves_total`, `rate` (rows a second), `eta` (seconds),
--   `last_pause`, `longest_pause` (seconds), `interrupted` (nobody runs it), `waves` of a gradual job (`current`,
--   `total`, `share`, `state`: `moving soaking reversing passed`, `soak`, `soaked`, `reading`, `verdict`), `backlog` (changes
--   that are yet to be applied), `fences` (a list: moves whose buckets nobody can write now, with `seconds`)
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Rebalancer:get_job_status(id)
  local told, err = find(self, id)
  if not told then
    return nil, err
  end
  status.of_shards(self.manager, told)
  return told
end

--- Remove what ended jobs have left on the shards: staging tables, triggers, notes; and switch guards off when no job is
-- open. Yields.
-- @treturn[1] {string,...} what was removed
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` while somebody moves, `SHARDS_FAILED`
function Rebalancer:cleanup()
  local ok, err = begin(self)
  if not ok then
    return nil, err
  end
  return cleanup.run(self.manager)
end

--- The latest jobs. Yields.
-- @int[opt=10] limit
-- @treturn[1] {table,...} as the catalog has them
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Rebalancer:list_jobs(limit)
  local ok, err = begin(self)
  if not ok then
    return nil, err
  end
  return job.list(self.catalog, limit or 10, short())
end

return rebalancer
