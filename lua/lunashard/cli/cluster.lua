--- `lunashard cluster`: the catalog of a cluster, which knows where every bucket lives.
-- stdout is data: what was found or done; what is to be done, and the next command, are on stderr.
-- @module lunashard.cli.cluster

local catalog = require("lunashard.catalog")
local cli = require("lunashard.cli")
local cluster_file = require("lunashard.cluster")
local confirm = require("lunashard.cli.confirm")
local errors = require("lunashard.errors")
local json_text = require("lunashard.json_text")
local lock = require("lunashard.lock")
local output = require("lunashard.cli.output")
local overview = require("lunashard.catalog.overview")
local place = require("lunashard.catalog.place")
local removal = require("lunashard.catalog.removal")
local setup = require("lunashard.catalog.setup")
local table_text = require("lunashard.table_text")
local task = require("lunashard.task")
local typed = require("lunashard.cli.typed")
local verify = require("lunashard.catalog.verify")

local command = {}

local TIMEOUT = 3600
local SHOWN = 20 -- differences of ownership

command.examples = {
  "lunashard cluster init --dry-run",
  "lunashard cluster init --grant app",
  "lunashard cluster verify --exit-code",
  "lunashard cluster status --json | jq .shards",
  "lunashard cluster remove --yes production",
}

local function add(parser, name, what)
  local one = parser:command(name, what)
  one:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  one:option("--timeout", ("seconds for all of it [%d]"):format(TIMEOUT)):convert(typed.seconds)
  one:flag("--json", "JSON on stdout, also on failure")
  return one
end

local DRY = "look, say what would be done, and do nothing"

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:command_target("action")
  parser:require_command(true)
  local init = add(parser, "init", "install the catalog, or record what it lacks: new tables, new shards; looks whether "
    .. "every row is where the map says, and changes none")
  init:flag("--dry-run", DRY):target("dry_run")
  init:option("--grant", "a role that routers log in as, when it is not the one that installs; may be given several times")
    :argname("ROLE"):count("*")
  confirm.configure(init)
  add(parser, "status", "the map, what each shard owns, who routes, what is open")
  local check = add(parser, "verify", "look for rows that are not where the map says, and how to bring them home")
  check:option("--table", "this table alone; may be given several times"):count("*"):target("tables")
  check:flag("--exit-code", "exit code 3 when something is not where it belongs"):target("exit_code")
  local upgrade = add(parser, "upgrade", "bring the catalog up to date: our schemas, addresses, a new version of a strategy")
  upgrade:flag("--dry-run", DRY):target("dry_run")
  confirm.configure(upgrade)
  local remove = add(parser, "remove", "remove the catalog and our schemas, where the cluster file alone says the same")
  remove:flag("--dry-run", DRY):target("dry_run")
  remove:flag("--abandon-map", "also where rows would not be found any more"):target("abandon_map")
  confirm.configure(remove)
end

-- ---- telling --------------------------------------------------------------------------------

local function progress(text)
  cli.say("cluster: %s", text)
end

local function say_steps(result, args)
  if #result.steps == 0 then
    cli.say("cluster: there is nothing to do")
  end
  for i, step in ipairs(result.steps) do
    cli.say("cluster: %d. %s%s", i, args.dry_run and "would " or "", step)
  end
end

local function print_verified(report)
  local rows = {}
  for i, one in ipairs(report.tables) do
    local wrong = 0
    for _, way in ipairs(one.misplaced) do
      wrong = wrong + way.rows
    end
    rows[i] = { table = one.table, group = one.group, rows = one.rows, misplaced = wrong, by = one.by,
      ["missing on"] = table.concat(one.missing_on, ", ") }
  end
  output.write((table_text.render({ "table", "group", "rows", "misplaced", "by", "missing on" }, rows)))
end

local function say_misplaced(report)
  for _, one in ipairs(report.tables) do
    for _, way in ipairs(one.misplaced) do
      cli.say("cluster: %s: %d rows on %s %s, in %d buckets%s", one.table, way.rows, way.from,
        way.to and "belong to " .. way.to or "belong nowhere", #way.buckets,
        way.buckets[1] and " (" .. table.concat(way.buckets, ", ", 1, math.min(#way.buckets, 5))
          .. (#way.buckets > 5 and ", ..." or "") .. ")" or "")
      for _, step in ipairs(way.repair) do
        io.stderr:write("  ", step, "\n")
      end
    end
  end
end

local function print_status(found)
  output.write(("cluster %s (%s): map %d, guards %s\n\n"):format(found.name or "without a name", found.id, found.map_version,
    found.guards and "on" or "off"))
  local rows = {}
  for i, one in ipairs(found.shards) do
    rows[i] = { shard = one.shard_id, address = one.address or "-", state = one.error or one.state, buckets = one.buckets,
      ["in transition"] = one.in_transition or "-", fences = one.fences or "-" }
  end
  output.write((table_text.render({ "shard", "address", "state", "buckets", "in transition", "fences" }, rows)), "\n")
  rows = {}
  for i, one in ipairs(found.groups) do
    rows[i] = { group = one.name, strategy = one.strategy, buckets = one.buckets or "open",
      tables = table.concat(one.tables, ", ") }
  end
  output.write((table_text.render({ "group", "strategy", "buckets", "tables" }, rows)))
  for _, one in ipairs(found.routers) do
    output.write(("router %s: lease %s\n"):format(one.name, one.lease_seconds > 0 and ("for %.1f s"):format(one.lease_seconds)
      or ("ran out %.1f s ago"):format(-one.lease_seconds)))
  end
  for _, one in ipairs(found.jobs) do
    output.write(("job %s of %s: %s, %s of %s rows%s\n"):format(tostring(one.id), one.group, one.status,
      tostring(one.total_migrated), tostring(one.total_rows), one.error_message and ": " .. one.error_message or ""))
  end
end

-- Those that change the catalog do it one after the other.
local LOCK, CHANGES = "catalog", { init = true, upgrade = true, remove = true }

local function act(manager, action, args, deadline)
  local held, err
  if CHANGES[args.action] and not args.dry_run then
    local lease
    lease, err = place.pool(manager):acquire(deadline)
    if lease then
      held, err = lock.take(lease, LOCK, deadline)
    end
    if not held then
      return nil, err
    end
  end
  local result, tell, code = action(manager, args, deadline)
  if held then
    held:release()
  end
  return result, tell, code
end

-- ---- the actions ------------------------------------------------------------------------------

local function no_catalog(manager)
  return nil, errors.new("INVALID", {
    message = ("the cluster has no catalog in %s: run `lunashard cluster init`"):format(place.describe(manager)),
  })
end

local function attached(manager, deadline)
  local found, err = catalog.attach(manager, deadline)
  if found == false then
    return no_catalog(manager)
  end
  return found, err
end

local actions = {}

function actions.init(manager, args, deadline)
  local ok, err = true, nil
  if not args.dry_run then
    ok, err = confirm.check(manager, { what = "install the catalog", yes = args.yes })
  end
  local result
  if ok then
    result, err = setup.init(manager, { dry_run = args.dry_run, grant = args.grant, deadline = deadline,
      on_progress = progress })
  end
  if not result then
    return nil, err
  end
  return result, function()
    say_steps(result, args)
    print_verified(result.verified)
    if args.dry_run then
      cli.say("cluster: a dry run: nothing was changed; next: %s cluster init", cli.program())
    else
      local at = manager.catalog_place
      if not at.named then
        cli.say('cluster: say in the cluster file where the catalog is: catalog = "%s"', at.shard_id)
      end
      cli.say("cluster: programs that have the cluster open notice with their next health check; next: %s cluster status",
        cli.program())
    end
  end
end

function actions.status(manager, _, deadline)
  local found, err = attached(manager, deadline)
  local result
  if found then
    result, err = overview.read(manager, deadline)
  end
  return result, result and function()
    print_status(result)
  end or err
end

function actions.verify(manager, args, deadline)
  local found, err = attached(manager, deadline)
  local report, differences
  if found then
    report, err = verify.run(manager, { tables = #args.tables > 0 and args.tables or nil, deadline = deadline,
      on_progress = progress })
  end
  if report then
    differences, err = verify.ownership(manager, deadline)
  end
  if not differences then
    return nil, err
  end
  report.ownership = differences
  local is_quiet, open = setup.no_open_job(place.pool(manager), deadline)
  if not is_quiet then
    cli.say("cluster: %s; rows on their way may stand on two shards", open.message)
  end
  return report, function()
    print_verified(report)
    say_misplaced(report)
    for i = 1, math.min(#differences, SHOWN) do
      cli.say("cluster: %s", differences[i].message)
    end
    if #differences > SHOWN then
      cli.say("cluster: and %d more such differences", #differences - SHOWN)
    end
  end, args.exit_code and (report.misplaced > 0 or #differences > 0) and cli.exit.differences or nil
end

function actions.upgrade(manager, args, deadline)
  local ok, err = true, nil
  if not args.dry_run then
    ok, err = confirm.check(manager, { what = "upgrade the catalog", yes = args.yes })
  end
  local result
  if ok then
    result, err = setup.upgrade(manager, { dry_run = args.dry_run, deadline = deadline, on_progress = progress })
  end
  return result, result and function()
    say_steps(result, args)
    if result.verified then
      print_verified(result.verified)
    end
  end or err
end

-- What an installation or a removal has left midway is removed as well.
function actions.remove(manager, args, deadline)
  local found, err = catalog.attach(manager, deadline, { addresses = true, fingerprints = true, tables = true })
  if found == nil and not args.abandon_map then
    return nil, err
  elseif not found and catalog.schema_version(manager, deadline) == 0 and not args.abandon_map then
    return no_catalog(manager)
  end
  local ok = true
  if not args.dry_run then
    ok, err = confirm.check(manager, { what = "remove the catalog", yes = args.yes, severe = true })
  end
  local result
  if ok then
    result, err = removal.run(manager, { dry_run = args.dry_run, abandon_map = args.abandon_map, deadline = deadline })
  end
  return result, result and function()
    say_steps(result, args)
  end or err
end

local function open(args)
  local path = cli.cluster_path(args)
  local manager, err = cluster_file.build(path)
  if not manager then
    return nil, err
  end
  cli.say("cluster %s (%s)", manager.name or "without a name", path)
  local ok
  ok, err = setup.open(manager)
  if not ok then
    manager:shutdown()
    return nil, err
  end
  return manager
end

-- What goes to programs: lists are lists also when they are empty.
local function plain(result)
  for _, one in ipairs(result.tables or {}) do
    json_text.lists(one, "misplaced", "missing_on")
    for _, way in ipairs(one.misplaced) do
      json_text.lists(way, "buckets", "repair")
    end
  end
  for _, one in ipairs(result.groups or {}) do
    json_text.lists(one, "tables")
  end
  result.verified = result.verified and plain(result.verified)
  return json_text.lists(result, "steps", "tables", "ownership", "shards", "groups", "routers", "jobs", "events")
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code
function command.run(args)
  local manager, err = open(args)
  local result, tell, code
  if manager then
    result, tell, code = act(manager, actions[args.action], args, task.now() + (args.timeout or TIMEOUT))
    err = not result and tell or nil
    manager:shutdown()
  end
  if not result then
    if err.report then
      say_misplaced(err.report)
    end
    return output.failure("cluster", err, args)
  end
  if args.json then
    output.json(plain(result))
  end
  if not args.json then
    tell()
  end
  return code or cli.exit.ok
end

return command
