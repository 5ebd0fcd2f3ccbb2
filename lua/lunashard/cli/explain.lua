--- `lunashard explain`: where a statement or a key would go, and why. Connects nowhere.
-- @module lunashard.cli.explain

local cli = require("lunashard.cli")
local cluster = require("lunashard.cluster")
local errors = require("lunashard.errors")
local json_text = require("lunashard.json_text")
local output = require("lunashard.cli.output")
local typed = require("lunashard.cli.typed")

local command = {}

command.examples = {
  [[lunashard explain "SELECT * FROM users WHERE user_id = 42"]],
  [[lunashard explain --param 42 "DELETE FROM users WHERE user_id = $1"]],
  "lunashard explain --key 42 --json",
}

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:argument("sql", "the statement; - reads it from stdin. May be left out with --key"):args("?")
  parser:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  parser:option("--param", "a parameter, $1 first: 42, text, 'text', null or {1,2}; may be given again"):count("*")
    :target("params")
  parser:option("--key", "routing key; again for each column of a composite one"):count("*"):target("keys")
  parser:option("--table", "the table whose key it is")
  parser:option("--shard", "the shard, instead of a key")
  parser:flag("--all", "for every shard, as with all_shards = true")
  parser:flag("--read-only", "as with read_only = true: replicas may answer"):target("read_only")
  parser:flag("--json", "JSON on stdout, also on failure")
end

-- A router whose manager connects nowhere.
local function offline_router(path)
  local manager, err = cluster.build(path)
  if not manager then
    return nil, err
  end
  cli.say("cluster %s (%s), not connected", manager.name or "without a name", path)
  return require("lunashard.router").new({ shard_manager = manager })
end

local function explain(args)
  local path = cli.cluster_path(args)
  local sql = args.sql
  if sql == "-" then
    sql = io.read("*a")
  elseif not sql and #args.keys == 0 then
    cli.usage_error("give a statement, or a key with --key")
  end
  local router, err = offline_router(path)
  if not router then
    return nil, err
  end
  return router:explain(sql, typed.values(args.params), {
    routing_key = typed.key(args.keys),
    table = args.table,
    shard_id = args.shard,
    all_shards = args.all,
    read_only = args.read_only,
  })
end

--- Run it.
-- @tparam table args
-- @treturn number exit code
function command.run(args)
  local explained, err = explain(args)
  if explained then
    output.write(args.json and json_text.encode(explained:to_table()) or tostring(explained), "\n")
    return cli.exit.ok
  end
  cli.say("explain: %s", tostring(err))
  if err.hint then
    io.stderr:write("  ", err.hint, "\n")
  end
  if args.json then
    output.json({ error = errors.to_table(err) })
  end
  return errors.exit_code(err)
end

return command
