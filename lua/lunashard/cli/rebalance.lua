--- `lunashard rebalance`: moves rows between shards while they are read and written.
-- stdout has the plan or the job's state, stderr progress and what to type next.
-- @module lunashard.cli.rebalance

local cjson = require("cjson.safe")
local cli = require("lunashard.cli")
local cluster = require("lunashard.cluster")
local confirm = require("lunashard.cli.confirm")
local errors = require("lunashard.errors")
local output = require("lunashard.cli.output")
local preflight = require("lunashard.rebalancer.preflight")
local progress = require("lunashard.script.progress")
local rebalancer = require("lunashard.rebalancer")
local signal = require("lunashard.core.signal")
local signals = require("lunashard.process").signals
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local view = require("lunashard.cli.rebalance.view")

local command = {}

command.examples = {
  "lunashard rebalance plan -c cluster.lua                 # after a shard joined the cluster file",
  "lunashard rebalance start -c cluster.lua --throttle-ms 20",
  "lunashard rebalance start -c cluster.lua --drain shard2",
  "lunashard rebalance start -c cluster.lua --table users --pin 42 --to shard3",
  "lunashard rebalance status -c cluster.lua --watch",
  "lunashard rebalance resume -c cluster.lua",
}

command.examples = {
  "lunashard rebalance plan --even rows",
  "lunashard rebalance start --drain shard3 --dry-run",
  "lunashard rebalance start --pin 42 --to shard1",
  "lunashard rebalance status --watch",
  "lunashard rebalance pause",
  "lunashard rebalance resume",
  "lunashard rebalance cancel",
  "lunashard rebalance rollback",
  "lunashard rebalance cleanup",
}

local STOP_WITHIN, ALARM = 4, 6 -- seconds that a run has to stop after a signal; and until it is ended outright
local WATCH_EVERY = 1

local wait_signal = task.waits(signal.wait)

-- ---- arguments -------------------------------------------------------------------------

local function count(least)
  return function(text)
    local number = tonumber(text)
    if not number or number % 1 ~= 0 or number < least then
      return nil, ("%q is not a whole number, %d or more"):format(text, least)
    end
    return number
  end
end

local function seconds(text)
  local number = tonumber(text)
  if not number or number < 0 or number ~= number or number == math.huge then
    return nil, ("%q is not a number of seconds"):format(text)
  end
  return number
end

local function add_common(parser)
  parser:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  parser:flag("--json", "JSON on stdout, also on failure")
  return parser
end

local function add_choice(parser)
  parser:option("--group", "whose buckets: the name of a group, which is the type of its key")
  parser:option("--table", "the same by one of its tables [all groups in turn]")
  parser:mutex(
    parser:option("--even", "as few buckets as give each shard its share by `rows`, `bytes` or `buckets`"),
    parser:option("--drain", "everything away from this shard"):argname("SHARD"),
    parser:option("--pin", "the bucket of this key to the shard of --to; several columns with commas between"):argname("KEY"),
    parser:option("--bucket", "this bucket to the shard of --to; may be given several times"):count("*"):target("buckets"),
    parser:option("--moves", "a file of lines `BUCKET SHARD`; - reads stdin"):argname("FILE"))
  parser:option("--to", "the shard for --pin and --bucket"):argname("SHARD")
  parser:option("--harmless", "a trigger or rule on the tables that may see rows which move; may be given several times")
    :argname("NAME"):count("*")
  return parser
end

local function add_pace(parser)
  parser:option("--batch-size", "rows that are copied at a time [5000]"):convert(count(1)):target("batch_size")
  parser:option("--throttle-ms", "pause after each batch [0]"):convert(count(0)):target("throttle_ms")
  parser:option("--parallel", "moves at a time [4]"):convert(count(1)):target("max_parallel_tasks")
  parser:option("--max-cutover", "seconds that statements of a bucket wait at the most when it changes hands [2]")
    :convert(seconds):target("max_cutover")
  parser:option("--purge-delay", "seconds that the source keeps what was moved, out of sight [0]"):convert(seconds)
    :target("purge_delay")
  parser:flag("--no-validation", "do not compare the two sides before a bucket changes hands"):target("no_validation")
  return parser
end

local function add_job(parser)
  parser:argument("job", "number of the job [the latest]"):args("?"):convert(count(1))
  return parser
end

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:command_target("action")
  parser:require_command(true)
  add_choice(add_common(parser:command("plan", "what would move: buckets, rows, bytes, share of the rows, time; moves nothing")))
  local start = add_pace(add_choice(add_common(parser:command("start", "move it; without --even, --drain, ... to where the "
    .. "strategy puts it over the shards of the cluster file"))))
  start:flag("--offline", "close buckets to writers first, and copy them then")
  start:flag("--dry-run", "only show the plan"):target("dry_run")
  confirm.configure(start)
  local status = add_job(add_common(parser:command("status", "how a job does")))
  status:flag("--watch", "again and again, until it has ended")
  add_job(add_common(parser:command("pause", "stop a job at the next point from which it can go on")))
  add_pace(add_job(add_common(parser:command("resume", "go on with a job that was paused, failed, or left by whoever ran it"))))
  local cancel = add_job(add_common(parser:command("cancel", "end a job: what is half-way is undone, what has moved stays")))
  local rollback = add_job(add_common(parser:command("rollback", "bring back the map of before a job, by moving back")))
  confirm.configure(cancel)
  confirm.configure(rollback)
  add_common(parser:command("cleanup", "remove what ended jobs have left: staging tables, triggers, guards"))
end

-- "17 shard4" -> moves of the planner `list`
local function read_moves(path)
  local text, reason
  if path == "-" then
    text = io.read("*a")
  else
    local file
    file, reason = io.open(path, "rb")
    text = file and file:read("*a")
    if file then
      file:close()
    end
  end
  if not text then
    cli.usage_error(("--moves: %s"):format(reason or path .. ": cannot be read"))
  end
  local moves, number = {}, 0
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    number = number + 1
    if line:find("%S") and not line:find("^%s*#") then
      local bucket, shard = line:match("^%s*(%S+)%s+(%S+)%s*$")
      if not bucket then
        cli.usage_error(("--moves: %s:%d: expected `BUCKET SHARD`, got %q"):format(path, number, line))
      end
      moves[#moves + 1] = { bucket = bucket, to = shard }
    end
  end
  return moves
end

local function key_of(text)
  local parts = {}
  for part in (text .. ","):gmatch("([^,]*),") do
    parts[#parts + 1] = part
  end
  return parts
end

-- What the arguments ask of a planner, for a group.
local function request_of(args, group, bound)
  local given = { group = group, harmless = #args.harmless > 0 and args.harmless or nil }
  if args.even then
    given.planner, given.by = "even", args.even
  elseif args.drain then
    given.planner, given.shard = "drain", args.drain
  elseif args.pin then
    given.planner, given.shard = "pin", args.to
    given.key = type(bound.key_type) == "table" and key_of(args.pin) or args.pin
  elseif #args.buckets > 0 then
    given.planner, given.shard, given.buckets = "pin", args.to, args.buckets
  elseif args.moves then
    given.planner, given.moves = "list", args.moves
  end
  return given
end

local function check(args)
  local path = cli.cluster_path(args)
  if args.action == "plan" or args.action == "start" then
    local to_shard = args.pin or #args.buckets > 0
    if to_shard and not args.to then
      cli.usage_error("--pin and --bucket want --to SHARD")
    elseif args.to and not to_shard then
      cli.usage_error("--to goes with --pin or --bucket")
    elseif args.group and args.table then
      cli.usage_error("give --group or --table, not both")
    end
    args.moves = args.moves and read_moves(args.moves)
  end
  return path
end

-- ---- telling -----------------------------------------------------------------------------

local function print_json(value)
  io.stdout:write(cjson.encode(value), "\n")
end

local function fail(args, err, told)
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
    print_json({ error = errors.to_table(err), job = told and view.json(told) })
  end
  return errors.is(err, "INVALID") and cli.exit.failed or errors.exit_code(err)
end

local function next_command(args, what, id)
  cli.say("next: %s rebalance %s %d -c %s", cli.program(), what, id, cli.cluster_path(args))
end

-- ---- actions -------------------------------------------------------------------------------

local actions = {}

local function groups_of(self, args)
  local catalog = self.manager.catalog
  if not catalog then
    return { args.group or false } -- refused with advice when it is planned
  elseif args.group then
    return { args.group }
  elseif args.table then
    local bound, err = self.manager:strategy_for(args.table)
    for name, group in pairs(catalog.groups) do
      if bound and group.bound == bound then
        return { name }
      end
    end
    return nil, err
  end
  local names = {}
  for name in pairs(catalog.groups) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function each_request(self, args)
  local groups, err = groups_of(self, args)
  if not groups then
    return nil, err
  elseif #groups > 1 and (args.pin or #args.buckets > 0 or args.moves) then
    return nil, errors.new("INVALID", { message = ("say whose bucket with --table or --group; there are the groups %s"):format(
      table.concat(groups, ", ")) })
  end
  local list = {}
  for i, name in ipairs(groups) do
    local group = name and self.manager.catalog and self.manager.catalog.groups[name]
    list[i] = request_of(args, name or nil, group and group.bound or {})
  end
  return list
end

function actions.plan(self, args)
  local requests, err = each_request(self, args)
  local plans = {}
  for i, given in ipairs(requests or {}) do
    plans[i], err = self:plan(given)
    if not plans[i] then
      break
    end
  end
  if err then
    return fail(args, err)
  end
  for i, made in ipairs(plans) do
    if not args.json then
      io.stdout:write(i > 1 and "\n" or "", view.plan(made))
    else
      plans[i] = view.json(made)
    end
    for _, warning in ipairs(made.warnings) do
      cli.say("warning: %s", warning)
    end
  end
  if args.json then
    print_json({ plans = plans })
  elseif args.action == "plan" then
    cli.say("nothing was moved; next: %s rebalance start -c %s", cli.program(), cli.cluster_path(args))
  end
  return cli.exit.ok
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

-- Run a job to its end while its progress is shown.
local function follow(self, args, id, told)
  local bar
  local worker = task.spawn(function()
    return self:execute_job(id)
  end):watch()
  local ok, err, signo = attend(self, worker, function()
    local live = self.jobs[id] or told
    if not bar and live.total_rows and live.status == "running" and not args.json then
      bar = progress.new("rebalance", ("job %d"):format(id), math.max(live.total_rows, 1), "rows")
    elseif bar then
      bar:set(math.min(live.rows_copied or 0, math.max(live.total_rows, 1)))
    end
  end)
  if bar then
    bar:finish()
  end
  local last = self:get_job_status(id) or told
  if not ok then
    local code = fail(args, err, last)
    if last.open or last.status == "failed" or last.status == "paused" then
      next_command(args, "resume", id)
    end
    return signo and 128 + signo or code, last
  end
  return cli.exit.ok, last
end

local function show(args, last)
  if args.json then
    print_json(view.json(last))
  else
    io.stdout:write(view.status(last))
  end
end

local function start_one(self, args, given)
  given.strategy = args.offline and "offline" or "live_migration"
  local made, err = self:create_rebalance_job(given)
  if not made then
    return fail(args, err)
  end
  for _, warning in ipairs(made.plan.warnings) do
    cli.say("warning: %s", warning)
  end
  if not args.json then
    io.stderr:write(view.plan(made.plan))
  end
  local code, last = follow(self, args, made.job_id, made)
  if code == cli.exit.ok then
    show(args, last)
    if last.planner == "drain" then
      cli.say("%s owns nothing any more in this group: take it out of the cluster file when all groups are done", args.drain)
    end
  end
  return code
end

function actions.start(self, args)
  if args.dry_run then
    return actions.plan(self, args)
  end
  local ok, err = confirm.check(self.manager, { what = "move rows between shards", yes = args.yes })
  local requests
  if ok then
    requests, err = each_request(self, args)
  end
  if not requests then
    return fail(args, err)
  end
  for _, given in ipairs(requests) do
    local code = start_one(self, args, given)
    if code ~= cli.exit.ok then
      return code
    end
  end
  return cli.exit.ok
end

function actions.status(self, args)
  local told, err = self:get_job_status(args.job)
  while told and args.watch and (told.status == "running" or told.status == "pending") do
    if args.json then
      print_json(view.json(told))
    else
      io.stdout:write(progress.is_terminal() and system.isatty(1) and "\27[H\27[2J" or "", view.status(told))
    end
    io.stdout:flush()
    task.sleep(WATCH_EVERY)
    told, err = self:get_job_status(told.job_id)
  end
  if not told then
    return fail(args, err)
  end
  show(args, told)
  if told.interrupted or told.status == "paused" or told.status == "failed" then
    next_command(args, "resume", told.job_id)
  end
  return cli.exit.ok
end

-- The number of the job that is meant.
local function job_id(self, args)
  if args.job then
    return args.job
  end
  local told, err = self:get_job_status()
  return told and told.job_id, err
end

function actions.resume(self, args)
  local id, err = job_id(self, args)
  if not id then
    return fail(args, err)
  end
  local code, last = follow(self, args, id, {})
  if code == cli.exit.ok then
    show(args, last)
  end
  return code
end

local function simple(method, question)
  return function(self, args)
    local id, err = job_id(self, args)
    local ok = id
    if id and question then
      ok, err = confirm.check(self.manager, { what = question, yes = args.yes })
    end
    if ok then
      ok, err = self[method](self, id)
    end
    local told = ok and self:get_job_status(id)
    if not told then
      return fail(args, err)
    end
    show(args, told)
    return cli.exit.ok
  end
end

actions.pause = simple("pause_job")
actions.cancel = simple("cancel_job", "end a rebalance job")

function actions.rollback(self, args)
  local id, err = job_id(self, args)
  local told = id
  if id then
    told, err = self:get_job_status(id)
  end
  local ok
  if told then
    cli.say("rolling back job %d: what %d of its moves have brought away (%.0f rows) is moved back, live, as it was moved there",
      id, told.moves_done, told.total_migrated)
    ok, err = confirm.check(self.manager, { what = "move rows back", yes = args.yes })
  end
  if not ok then
    return fail(args, err)
  end
  local worker = task.spawn(function()
    return self:rollback_job(id)
  end):watch()
  local signo
  ok, err, signo = attend(self, worker, function() end)
  local last = self:get_job_status(id)
  if not ok or not last then
    local code = fail(args, err, last)
    next_command(args, "resume", id)
    return signo and 128 + signo or code
  end
  show(args, last)
  return cli.exit.ok
end

function actions.cleanup(self, args)
  local removed, err = self:cleanup()
  if not removed then
    return fail(args, err)
  end
  if args.json then
    print_json({ removed = setmetatable(removed, cjson.array_mt) })
  else
    for _, line in ipairs(removed) do
      io.stdout:write(line, "\n")
    end
    cli.say("%s", #removed == 0 and "there was nothing to remove" or ("%d things removed"):format(#removed))
  end
  return cli.exit.ok
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code: 5 when somebody else runs the job
function command.run(args)
  local path = check(args)
  local opened, err = cluster.open(path)
  if not opened then
    return fail(args, err)
  end
  cli.say("cluster %s (%s)", opened.name or "without a name", path)
  local self = rebalancer.new({ shard_manager = opened.manager, batch_size = args.batch_size, throttle_ms = args.throttle_ms,
    max_parallel_tasks = args.max_parallel_tasks, max_cutover = args.max_cutover, purge_delay = args.purge_delay,
    enable_validation = args.no_validation and false })
  local ok, code = pcall(actions[args.action], self, args)
  opened:close()
  if not ok then
    error(code, 0)
  end
  return code
end

return command
