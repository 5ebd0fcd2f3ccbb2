--- Scripts for operators: arguments, `--json`, `--dry-run`, progress, locks, a summary by shard and exit codes, in a few
-- lines. Those in `scripts/` are made with it, and users' own may be:
--
--    local script = require("lunashard.script")
--
--    return script.main({
--      summary = "how many rows each shard has",
--      example = "lunashard run -c cluster.lua rows.lua users",
--      arguments = function(parser) parser:argument("table", "whose rows") end,
--      run = function(job)
--        local rows = {}
--        job:each_shard(function(shard)
--          local found = assert(shard:execute("SELECT count(*) AS n FROM " .. job:quoted_table(job.args.table)))
--          rows[#rows + 1] = { shard = shard.shard_id, rows = found.rows[1].n }
--          return "ok"
--        end)
--        return job:table("rows", { "shard", "rows" }, rows)
--      end,
--    })
--
-- stdout has the data (tables, or with `--json` one object, also on failure), stderr all else. The exit code is 0, 1
-- (failed), 2 (usage), 3 (differences, with `--exit-code`), 4 (some of the shards failed) or 5 (another run holds the lock).
-- @module lunashard.script

local argparse = require("argparse")
local cli = require("lunashard.cli")
local confirm = require("lunashard.cli.confirm")
local core = require("lunashard.core.task")
local ending = require("lunashard.script.ending")
local errors = require("lunashard.errors")
local job = require("lunashard.script.job")
local options = require("lunashard.options")
local output = require("lunashard.script.output")
local progress = require("lunashard.script.progress")
local summary = require("lunashard.script.summary")
local task = require("lunashard.task")

local script = {}

local SPEC = {
  name = "string", summary = "string", example = "string", arguments = "function", run = "function", writes = "any",
  shards = "boolean", differences = "boolean", lock = "any", severe = "boolean",
}

local EXIT = cli.exit

local Help, Usage = ending.Help, job.Usage -- metatables of what --help and a wrong command line raise

-- argparse prints and exits by itself; ours raises, so that one place decides.
local function adopt(parser)
  function parser.error(_, message)
    error(setmetatable({ message = (message:gsub("\n+Did", "; did")) }, Usage), 0)
  end
  parser:add_help({
    action = function()
      error(setmetatable({ text = parser:get_help() }, Help), 0)
    end,
  })
end

local function parser_of(spec)
  local parser = argparse("lunashard run [-c cluster.lua] " .. spec.name .. ".lua", spec.summary)
  parser:option("-c --cluster", "cluster file, unless `lunashard run -c` or LUNASHARD_CLUSTER names it")
  parser:flag("--json", "one object of JSON on stdout, also on failure")
  if spec.writes then
    parser:flag("--dry-run", "say what would be done, in order, and do nothing"):target("dry_run")
    confirm.configure(parser)
  end
  if spec.lock then
    parser:option("--lock", "run only when no other run holds the lock of this name; exit code 5 when one does")
  end
  if spec.shards then
    parser:option("--shard", "this shard alone; may be given several times"):argname("ID"):count("*"):target("shard_ids")
  end
  if spec.differences then
    parser:flag("--exit-code", "exit code 3 when there is something to see to"):target("exit_code")
  end
  if spec.arguments then
    spec.arguments(parser)
  end
  if spec.example then
    parser:epilog("Example:\n  " .. spec.example)
  end
  adopt(parser)
  return parser
end

-- What follows the script's name on the command line of `lunashard run`.
local function given_arguments(globals)
  local list = {}
  for i, argument in ipairs(globals.arg or {}) do
    list[i] = argument
  end
  return list
end

local function name_of(spec, globals)
  local path = (globals.arg or {})[0] or "script"
  return spec.name or path:match("([^/]+)%.lua$") or path:match("[^/]+$")
end

local function say(name, format, ...)
  progress.say(("lunashard: %s: %s"):format(name, select("#", ...) > 0 and format:format(...) or format))
end

-- ---- the parts of a run ---------------------------------------------------------------

local function open_cluster(args, globals)
  if not args.cluster then
    local cluster = globals.cluster
    if cluster then
      return cluster
    end
    error(setmetatable({ message = "give the cluster's file with -c or LUNASHARD_CLUSTER" }, Usage), 0)
  end
  local cluster, err = require("lunashard").open(args.cluster)
  if not cluster then
    error(err, 0)
  end
  return cluster
end

local function wanted_shards(manager, ids)
  if not ids or #ids == 0 then
    return manager.shards
  end
  local wanted, list = {}, {}
  for _, id in ipairs(ids) do
    local member, err = manager:member(id)
    if not member then
      error(setmetatable({ message = "--shard: " .. err.message }, Usage), 0)
    end
    wanted[id] = true
  end
  for _, shard in ipairs(manager.shards) do
    list[#list + 1] = wanted[shard.shard_id] and shard or nil
  end
  return list
end

local function take_lock(spec, self)
  local name = self.args.lock
  if not name and type(spec.lock) == "function" then
    name = spec.lock(self.args)
  elseif not name and type(spec.lock) == "string" then
    name = spec.lock
  end
  if not name or self.dry_run then
    return nil
  end
  local held, err = require("lunashard.lock").acquire(self.manager, name)
  if not held then
    error(err, 0)
  end
  return held
end

-- The words for what is about to happen go to the question.
local function ask(spec, self)
  if not spec.writes or self.dry_run then
    return
  end
  local what = type(spec.writes) == "function" and spec.writes(self.args) or spec.writes
  local ok, err = confirm.check(self.manager, {
    what = type(what) == "string" and what or "write",
    yes = self.args.yes,
    severe = spec.severe,
  })
  if not ok then
    error(err, 0)
  end
end

local function work(spec, argv, state)
  local args = parser_of(spec):parse(argv)
  state.json = args.json
  local cluster = open_cluster(args, spec.globals)
  state.opened = args.cluster and cluster or nil
  local self = job.new({
    name = spec.name,
    folder = (spec.globals.arg or {})[0] and spec.globals.arg[0]:match("^.*/") or "",
    args = args,
    cluster = cluster,
    dry_run = args.dry_run or false,
    json = args.json or false,
    shards = wanted_shards(cluster.manager, args.shard_ids),
  })
  state.job = self
  ask(spec, self)
  local held = take_lock(spec, self)
  local ok, err = spec.run(self)
  if held then
    if not held:is_held() then
      say(spec.name, "the lock %q was lost while this ran: its session on %s ended", held.name, held.lease.shard_id)
    end
    held:release()
  end
  if not ok and err ~= nil then
    error(errors.is(err) and err or { plain = tostring(err) }, 0)
  end
end

-- ---- the end ----------------------------------------------------------------------------

-- With --json given anywhere a wrong command line is answered in JSON, too.
local function wants_json(argv)
  for _, argument in ipairs(argv) do
    if argument == "--json" then
      return true
    end
  end
  return false
end

--- Run a script's work and say how it went; to be called by `run`. Yields.
-- @local
-- @tparam table spec
-- @tparam {string,...} argv
-- @treturn number exit code
function script.execute(spec, argv)
  local state = { started = task.now() }
  local ok, err = xpcall(work, ending.on_raise, spec, argv, state)
  if ok then
    err = nil
  elseif getmetatable(err) == Help then
    ok, err = output.write(err.text .. "\n")
    if ok then
      return EXIT.ok
    end
  end
  if state.job then
    state.job:close()
    ending.note_shards(state.job, err)
    state.job.summary:sort(state.job.manager.shards)
  end
  if errors.is(err, "CANCELED") or type(err) == "string" then
    state.interrupted = true
  end
  local code = ending.code_of(state, err)
  ending.tell(spec, state, err)
  if state.json or not state.job and wants_json(argv) then
    local written, problem = ending.tell_json(spec, state, err, code)
    if not written then
      say(spec.name, "%s", problem.message)
      code = problem.exit_code
    end
  end
  if state.opened then
    state.opened:close()
  end
  return code, state.interrupted and err or nil
end

--- Be a script: read the arguments, do the work, tell how it went. Yields. Run by `lunashard run`, the program ends here unless
-- all went well; as a job of `lunashard serve` it returns nil and an error then.
-- @tparam table spec
--
-- - `summary`, `example`: for `--help`; `name` [the file's]
-- - `arguments(parser)`: adds what is the script's own (argparse); `-c`, `--json` and `--help` are there already
-- - `run(job)`: the work. It returns true, or nil and an error; an error that is raised is the same
-- - `shards = true`: adds `--shard ID`, and `job.shards` has those that are meant
-- - `writes`: it changes something: adds `--dry-run`, which the work must heed (`job.dry_run`), and `--yes NAME`, which a
--   production cluster wants. A text that follows "this will", or a function of the arguments that gives one.
--   `severe = true`: any cluster wants it
-- - `lock`: adds `--lock NAME`; a text, or a function of the arguments, is the name when none is given
-- - `differences = true`: adds `--exit-code`: 3 when `job:difference()` was called
-- @tparam[opt] {string,...} argv [what follows the script on the command line]
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function script.main(spec, argv)
  spec = options.check(spec, SPEC, "script.main")
  if not spec.run then
    error("script.main: run is missing: the function that does the work", 2)
  end
  local copy = {}
  for name, value in pairs(spec) do
    copy[name] = value
  end
  local globals = getfenv(spec.run) -- as `run`, `serve` and the prompt set them
  copy.name, copy.globals = name_of(spec, globals), globals
  local code, interrupt = script.execute(copy, argv or given_arguments(globals))
  if interrupt and (core.is_exiting() or not globals.arg) then
    error(interrupt, 0) -- the signal decides the exit code
  elseif code ~= EXIT.ok and globals.arg then
    os.exit(code)
  elseif code ~= EXIT.ok then
    return nil, errors.new("INVALID", { message = ("%s ended with exit code %d"):format(copy.name, code) })
  end
  return true
end

--- The words that a shard's outcome may have: `ok changed failed unreachable skipped`.
-- @table STATES
script.STATES = summary.STATES

return script
