--- `lunashard schema apply`: a schema change on all shards; `lunashard schema diff`: where their schemas differ.
-- @module lunashard.cli.schema

local apply = require("lunashard.schema.apply")
local cli = require("lunashard.cli")
local confirm = require("lunashard.cli.confirm")
local diff = require("lunashard.schema.diff")
local errors = require("lunashard.errors")
local input = require("lunashard.cli.input")
local json_text = require("lunashard.json_text")
local lock = require("lunashard.lock")
local opening = require("lunashard.cli.opening")
local output = require("lunashard.cli.output")
local table_text = require("lunashard.table_text")
local typed = require("lunashard.cli.typed")

local command = {}

local LOCK = "schema"

command.examples = {
  "lunashard schema apply --dry-run 2026-11-add-email.sql",
  "lunashard schema apply --canary shard2 --yes production 2026-11-add-email.sql",
  "lunashard schema diff --sql >mend.sql",
  "lunashard schema diff --against shard1 --exit-code",
}

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:command_target("action")
  parser:require_command(true)
  local one = parser:command("apply", "run a script on every shard, one of them first; run again, it goes on where it stopped")
  one:argument("file", "the script; - reads it from stdin")
  one:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  one:option("--change", "the name under which it is kept what is done [the file's]")
  one:option("--canary", "the shard that goes first; the others follow when it has succeeded [the first]")
  one:option("--shard", "this shard alone; may be given several times"):argname("ID"):count("*"):target("shard_ids")
  one:option("--parallel", "how many shards at a time, after the canary [4]"):convert(typed.count)
  one:flag("--go-on", "begin other shards also after one has failed"):target("go_on")
  one:flag("--again", "also what is done already")
  one:option("--lock-timeout", "seconds that a statement waits for a lock, and others behind it [5]"):target("lock_timeout")
    :convert(typed.seconds)
  one:option("--timeout", "seconds for all of it [3600]"):convert(typed.seconds)
  one:flag("--dry-run", "say what each shard would do, in order, and do nothing"):target("dry_run")
  one:option("--lock", ("the lock against other runs [%s]"):format(LOCK))
  confirm.configure(one)
  one:flag("--json", "JSON on stdout, also on failure")

  local other = parser:command("diff", "compare the shards' schemas with one of them")
  other:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  other:option("--against", "the shard that is the model [the first]")
  other:option("--shard", "compare this shard alone; may be given several times"):argname("ID"):count("*"):target("shard_ids")
  other:option("--schema", "of this schema alone; may be given several times"):count("*"):target("schemas")
  other:flag("--sql", "the SQL that would mend it; what would lose rows is a comment")
  other:option("--timeout", "seconds for all of it [query_timeout]"):convert(typed.seconds)
  other:flag("--exit-code", "exit code 3 when there are differences"):target("exit_code")
  other:flag("--json", "JSON on stdout, also on failure")
end

local function list_or_nil(list)
  return #list > 0 and list or nil
end

-- ---- apply -----------------------------------------------------------------------

local function make_plan(args)
  local text, reason = input.read(args.file)
  if not text then
    return nil, errors.new("INVALID", { message = "cannot read the script: " .. reason })
  end
  return apply.plan(text, args.file == "-" and "stdin" or args.file:match("[^/]+$"))
end

local function destroyed(plan)
  local list = {}
  for i, one in ipairs(apply.destroys(plan)) do
    list[i] = ("%s (line %d)"):format(one.what, one.line)
  end
  return #list > 0 and table.concat(list, ", ") or nil
end

local function plain_report(report)
  local plain = { change = report.change, steps = report.steps, complete = report.complete, shards = json_text.list() }
  for i, record in ipairs(report.shards) do
    plain.shards[i] = {
      shard_id = record.shard_id, outcome = record.outcome, applied = record.applied, pending = record.pending,
      failed_step = record.failed_step, duration = record.duration, cleaned = list_or_nil(record.cleaned),
      error = record.error and errors.to_table(record.error),
    }
  end
  return plain
end

local function print_report(report)
  local rows = {}
  for i, record in ipairs(report.shards) do
    rows[i] = {
      shard = record.shard_id, outcome = record.outcome, seconds = record.duration and ("%.2f"):format(record.duration) or "",
      steps = record.pending and ("%d to do of %d"):format(#record.pending, record.steps)
        or ("%d of %d"):format(record.applied, record.steps),
    }
  end
  output.write((table_text.render({ "shard", "outcome", "steps", "seconds" }, rows)))
end

local function say_records(report)
  for _, record in ipairs(report.shards) do
    for _, name in ipairs(record.cleaned) do
      cli.say("schema: %s: removed the index %s, whose build had failed", record.shard_id, name)
    end
    if record.error then
      cli.say("schema: %s: %s", record.shard_id, tostring(record.error))
      io.stderr:write(record.error.hint and "  " .. record.error.hint .. "\n" or "")
    end
  end
end

local function finish_apply(report, args)
  if args.json then
    output.json(plain_report(report))
  else
    print_report(report)
  end
  output.flush()
  say_records(report)
  local again = ("%s schema apply %s"):format(cli.program(), args.file)
  if args.dry_run then
    cli.say("schema: a dry run: nothing was changed; next: %s", again)
  elseif report.complete then
    cli.say("schema: %s is on every shard; next: %s schema diff", report.change, cli.program())
  else
    cli.say("schema: what is done is kept; mend what failed, and go on with: %s", again)
  end
  if report.complete then
    return cli.exit.ok
  end
  local is_any_done = false
  for _, record in ipairs(report.shards) do
    is_any_done = is_any_done or record.outcome == "changed" or record.outcome == "unchanged" or record.outcome == "pending"
  end
  return is_any_done and cli.exit.partial or cli.exit.failed
end

local function print_plan(plan)
  for _, step in ipairs(plan.steps) do
    cli.say("schema: step %d, line %d: %s%s", step.number, step.line, step.title,
      step.transactional and "" or " (outside of a transaction)")
  end
end

local function run_apply(router, manager, plan, args)
  local opts = {
    change = args.change, canary = args.canary, shard_ids = list_or_nil(args.shard_ids), parallel = args.parallel,
    go_on = args.go_on, again = args.again, lock_timeout = args.lock_timeout, timeout = args.timeout,
  }
  if args.dry_run then
    print_plan(plan)
    return apply.preview(router, plan, opts)
  end
  local lost = destroyed(plan)
  local ok, err = confirm.check(manager, {
    yes = args.yes, severe = lost ~= nil,
    what = ("apply %s%s"):format(plan.name, lost and " and destroy " .. lost or ""),
  })
  local held
  if ok then
    held, err = lock.acquire(manager, args.lock or LOCK)
  end
  if not held then
    return nil, err
  end
  function opts.on_progress(event)
    cli.say("schema: %s: step %d of %d: %s", event.shard_id, event.step, event.steps, event.title)
  end
  local report
  report, err = apply.run(router, plan, opts)
  held:release()
  return report, err
end

local actions = {}

function actions.apply(args)
  local plan, err = make_plan(args)
  local router, manager
  if plan then
    router, manager = opening.router(args)
    err = manager
  end
  if not router then
    return output.failure("schema", err, args)
  end
  local ok, report
  ok, report, err = pcall(run_apply, router, manager, plan, args)
  manager:shutdown()
  if not ok then
    error(report, 0)
  end
  return report and finish_apply(report, args) or output.failure("schema", err, args)
end

-- ---- diff ------------------------------------------------------------------------

local function plain_diff(report)
  local plain = { against = report.against, same = report.same, complete = report.complete, shards = json_text.list() }
  for i, shard in ipairs(report.shards) do
    local one = { shard_id = shard.shard_id, error = shard.error and errors.to_table(shard.error),
      differences = json_text.list() }
    for k, difference in ipairs(shard.differences or {}) do
      one.differences[k] = {
        kind = difference.kind, name = difference.name, what = difference.what, expected = difference.expected,
        found = difference.found, sql = diff.script({ difference }),
      }
    end
    plain.shards[i] = one
  end
  return plain
end

local function shown(definition)
  local text = definition and definition:gsub("%s+", " ") or ""
  return #text > 60 and text:sub(1, 57) .. "..." or text
end

local function print_diff(report)
  local rows = {}
  for _, shard in ipairs(report.shards) do
    for _, one in ipairs(shard.differences or {}) do
      rows[#rows + 1] = { shard = shard.shard_id, what = one.what, kind = one.kind, name = one.name,
        [report.against] = shown(one.expected), found = shown(one.found) }
    end
  end
  if #rows > 0 then
    output.write((table_text.render({ "shard", "what", "kind", "name", report.against, "found" }, rows)))
  end
end

local function print_sql(report)
  for _, shard in ipairs(report.shards) do
    if #(shard.differences or {}) > 0 then
      output.write("-- ", shard.shard_id, ": as ", report.against, "\n", diff.script(shard.differences), "\n")
    end
  end
end

local function finish_diff(report, args)
  local print = args.json and function(value)
    output.json(plain_diff(value))
  end or args.sql and print_sql or print_diff
  print(report)
  output.flush()
  for _, failure in ipairs(report.failed) do
    cli.say("schema: %s: %s", failure.shard_id, tostring(failure.error))
  end
  cli.say("schema: compared %d shard%s with %s, %d objects%s", #report.shards, #report.shards == 1 and "" or "s",
    report.against, report.objects, not report.same and (args.sql and "" or "; --sql shows what would mend it")
      or report.complete and ": no differences" or "")
  if not report.complete then
    return #report.failed == #report.shards and cli.exit.failed or cli.exit.partial
  end
  return args.exit_code and not report.same and cli.exit.differences or cli.exit.ok
end

function actions.diff(args)
  local router, manager = opening.router(args)
  if not router then
    return output.failure("schema", manager, args)
  end
  local ok, report, err = pcall(diff.run, router, {
    against = args.against, shard_ids = list_or_nil(args.shard_ids), schemas = list_or_nil(args.schemas),
    timeout = args.timeout,
  })
  manager:shutdown()
  if not ok then
    error(report, 0)
  end
  return report and finish_diff(report, args) or output.failure("schema", err, args)
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code: 3 with `--exit-code` when there are differences, 4 when it failed on some of the shards, 5 when
--   another run holds the lock
function command.run(args)
  return actions[args.action](args)
end

return command
