--- The arguments of `lunashard rebalance`, and what they ask of a planner.
-- @module lunashard.cli.rebalance.arguments

local cli = require("lunashard.cli")
local confirm = require("lunashard.cli.confirm")
local errors = require("lunashard.errors")
local input = require("lunashard.cli.input")
local sorted = require("lunashard.sorted")
local values = require("lunashard.cli.rebalance.values")
local waves = require("lunashard.rebalancer.waves")

local arguments = {}

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
    parser:option("--planner", "what this policy says, such as by_load, by_region, or one of the plug-in folder; with options as "
      .. "in even:by=bytes,tolerance=0.1"):argname("POLICY"):convert(values.policy),
    parser:option("--moves", "a file of lines `BUCKET SHARD`; - reads stdin"):argname("FILE"))
  parser:option("--to", "the shard for --pin and --bucket"):argname("SHARD")
  parser:flag("--offline", "close buckets first, and copy them then: faster, but their statements wait meanwhile")
  parser:option("--harmless", "a trigger or rule on the tables that may see rows which move; may be given several times")
    :argname("NAME"):count("*")
  return parser
end

local function add_pace(parser)
  parser:option("--batch-size", "rows that are copied at a time [5000]"):convert(count(1)):target("batch_size")
  parser:option("--throttle-ms", "pause after each batch [0]"):convert(count(0)):target("throttle_ms")
  parser:option("--throttle", "a policy that says how long to pause, such as pace:p95_ms=20,lag_seconds=5"):argname("POLICY")
    :convert(values.policy)
  parser:option("--parallel", "moves at a time [4]"):convert(count(1)):target("max_parallel_tasks")
  parser:option("--max-cutover", "seconds that statements of a bucket wait at the most when it changes hands [2]")
    :convert(seconds):target("max_cutover")
  parser:option("--purge-delay", "seconds that the source keeps what was moved, out of sight [0]"):convert(seconds)
    :target("purge_delay")
  parser:flag("--no-validation", "do not compare the two sides before a bucket changes hands"):target("no_validation")
  return parser
end

local function add_waves(parser)
  parser:option("--waves", "move so many percent first, then as many in all, ...; after each the shards have to stay well, or "
    .. "the job pauses [all at once; 1,5,25,100 with one of the following]"):argname("1,5,25,100"):convert(values.percentages)
  parser:option("--soak", "seconds that are waited after each wave [60]"):convert(seconds)
  parser:option("--gate", "what the worst shard may come to meanwhile, or off [error_rate=0.01,p99_ms=1000,lag_seconds=30]")
    :argname("NAME=LIMIT,..."):convert(values.gate)
  parser:flag("--reverse", "a wave that is not borne is moved back")
  return parser
end

local function is_gradual(args)
  return args.waves or args.soak or args.gate or args.reverse
end

local function add_job(parser)
  parser:argument("job", "number of the job [the latest]"):args("?"):convert(count(1))
  return parser
end

--- Declare the arguments.
-- @param parser
function arguments.configure(parser)
  parser:command_target("action")
  parser:require_command(true)
  local plan = parser:command("plan", "what would move: buckets, rows, bytes, share of the rows, time; moves nothing")
  add_waves(add_choice(add_common(plan)))
  plan:option("--max-cutover", "as of start"):convert(seconds):target("max_cutover")
  local start = parser:command("start", "move it; without --even, --drain, ... to where the strategy puts it over the shards of "
    .. "the cluster file")
  add_waves(add_pace(add_choice(add_common(start))))
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
  local text, reason = input.read(path)
  if not text then
    cli.usage_error("--moves: " .. reason)
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
  local given = { group = group, harmless = #args.harmless > 0 and args.harmless or nil, waves = args.waves, soak = args.soak,
    gate = args.gate, reverse = args.reverse }
  given.strategy = args.offline and "offline" or is_gradual(args) and "gradual" or "live_migration"
  if args.planner then
    given.planner = args.planner
  elseif args.even then
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

--- See that they go together. A wrong one ends the program.
-- @tparam table args gets `moves`, read from its file
-- @treturn string path of the cluster file
function arguments.check(args)
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
    local _, problem = waves.wanted({ strategy = is_gradual(args) and "gradual", waves = args.waves, gate = args.gate })
    if args.offline and is_gradual(args) then
      cli.usage_error("--waves, --soak, --gate and --reverse do not go with --offline")
    elseif problem then
      cli.usage_error("--" .. problem)
    end
    args.moves = args.moves and read_moves(args.moves)
  end
  return path
end

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
  return sorted.keys(catalog.groups)
end

--- What is asked for, of each group that is meant.
-- @tparam Rebalancer self
-- @tparam table args
-- @treturn[1] {table,...} as for `rebalancer:plan`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function arguments.requests(self, args)
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

return arguments
