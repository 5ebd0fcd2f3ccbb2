--- `lunashard sql`: one statement, and its rows as a table, CSV or JSON.
-- @module lunashard.cli.sql

local cli = require("lunashard.cli")
local confirm = require("lunashard.cli.confirm")
local errors = require("lunashard.errors")
local opening = require("lunashard.cli.opening")
local output = require("lunashard.cli.output")
local parse = require("lunashard.sql.statement").parse
local rows = require("lunashard.cli.rows")
local statement = require("lunashard.router.statement")
local suggest = require("lunashard.cli.suggest")
local task = require("lunashard.task")
local traits = require("lunashard.schema.traits")
local typed = require("lunashard.cli.typed")

local command = {}

local TERMINAL_ROWS = 1000
local COUNTING = { INSERT = true, UPDATE = true, DELETE = true, MERGE = true, COPY = true }

command.examples = {
  [[lunashard sql "SELECT * FROM users WHERE user_id = 42"]],
  [[lunashard sql --key 42 "SELECT name FROM users WHERE user_id = $1" --param 42 --json]],
  [[lunashard sql --all --each "SELECT version()"]],
  [[lunashard sql --format csv - <report.sql >report.csv]],
}

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:argument("sql", "the statement; - reads it from stdin")
  parser:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  parser:option("--key", "the shard of this routing key; again for each column of a composite one"):count("*")
    :target("keys")
  parser:option("--table", "the table whose key it is")
  parser:option("--shard", "this shard, instead of a key")
  parser:flag("--all", "every shard: reads are merged, writes are done on each")
  parser:flag("--each", "with --all: the rows of each shard as they come, with a column that names it")
  parser:option("--param", "a parameter, $1 first: 42, text, 'text', null or {1,2}; may be given again"):count("*")
    :target("params")
  parser:option("--format", "table, csv, json (one object) or jsonl (an object on each line) [table]"):choices(rows.formats)
  parser:flag("--json", "as --format json, and JSON also on failure")
  parser:option("--max-rows", ("rows of a table that are shown; 0 for all [%d on a terminal]"):format(TERMINAL_ROWS))
    :target("max_rows"):convert(typed.count)
  parser:option("--timeout", "seconds for all of it [query_timeout]"):convert(typed.seconds)
  parser:flag("--read-only", "it changes nothing: replicas may answer"):target("read_only")
  parser:flag("--dry-run", "say where it would go and what each shard is sent, and send nothing"):target("dry_run")
  confirm.configure(parser)
end

local function read_statement(args)
  local sql = args.sql
  if sql == "-" then
    local text, reason = io.read("*a")
    if not text then
      return nil, errors.new("INVALID", { message = "cannot read the statement from stdin: " .. tostring(reason or "closed") })
    end
    sql = text
  end
  if not sql:find("%S") then
    cli.usage_error(args.sql == "-" and "there is no statement on stdin" or "the statement is empty")
  end
  return sql
end

local function check(args)
  local ways = (#args.keys > 0 and 1 or 0) + (args.shard and 1 or 0) + (args.all and 1 or 0)
  if ways > 1 then
    cli.usage_error("--key, --shard and --all exclude one another")
  elseif args.each and not args.all then
    cli.usage_error("--each goes with --all")
  elseif args.table and #args.keys == 0 then
    cli.usage_error("--table says whose key --key is: give both, or neither")
  elseif args.json and args.format and args.format ~= "json" then
    cli.usage_error("--json is --format json: give one of them")
  end
  args.format = args.format or args.json and "json" or "table"
  args.json = args.json or args.format == "json"
end

-- What would be lost by it, in words.
local function loss(sql)
  local parsed = parse(sql)
  for _, entry in ipairs(parsed and parsed.ast or {}) do
    local found = traits.of(entry.stmt, parsed)
    if found and found.destroys then
      return found.destroys
    end
  end
end

local function confirmed(manager, sql, args)
  local lost = loss(sql)
  if not lost and statement.classify(sql) == "read" then
    return true
  end
  return confirm.check(manager, {
    yes = args.yes,
    severe = lost ~= nil,
    what = lost and "destroy " .. lost or "write",
  })
end

local function options_of(args)
  return {
    routing_key = typed.key(args.keys),
    table = args.table,
    shard_id = args.shard,
    all_shards = args.all or nil,
    read_only = args.read_only or nil,
    timeout = args.timeout,
  }
end

-- The rows of each shard as they come, the shard's name in front.
local function with_shards(result, manager)
  local list, columns, types = {}, nil, nil
  for _, shard in ipairs(manager.shards) do
    local one = result.shard_results[shard.shard_id]
    if one and one.success then
      if not columns then
        columns, types = { "shard", unpack(one.columns or {}) }, { "text", unpack(one.column_types or {}) }
      end
      for _, row in ipairs(one.rows) do
        local copy = { shard = shard.shard_id }
        for name, value in pairs(row) do
          copy[name] = value
        end
        list[#list + 1] = copy
      end
    end
  end
  result.rows, result.columns, result.column_types, result.row_count = list, columns or {}, types or {}, #list
  return result
end

local function gather_each(router, manager, sql, params, args)
  local function same(results)
    local list = {}
    for _, one in ipairs(results) do
      for _, row in ipairs(one.rows) do
        list[#list + 1] = row
      end
    end
    return list
  end
  local result, err = router:scatter_gather(sql, params, {
    all_shards = true,
    read_only = args.read_only or nil,
    timeout = args.timeout,
    aggregation_func = same,
  })
  if not result then
    return nil, err
  end
  return with_shards(result, manager)
end

local function run_statement(router, manager, sql, params, args)
  local kind = statement.classify(sql)
  local parsed = kind == "write" and parse(sql)
  if args.all and parsed and parsed.kind == "utility" then
    return router:execute_on_all_shards(sql, { timeout = args.timeout })
  elseif args.each then
    return gather_each(router, manager, sql, params, args)
  end
  return router:execute(sql, params, options_of(args))
end

local function shards_of(result)
  local list = {}
  for shard_id, one in pairs(result.shard_results or {}) do
    list[#list + 1] = one.success and shard_id or nil
  end
  table.sort(list)
  return #list > 0 and list or { result.shard_id }
end

local function counted(n, word)
  return ("%d %s%s"):format(n, word, n == 1 and "" or "s")
end

local function show(result, args)
  local shards = shards_of(result)
  local max_rows = args.max_rows or output.is_terminal() and TERMINAL_ROWS or 0
  local command_tag = result.command or "OK"
  local left_out = rows.write(result, {
    format = args.format,
    max_rows = max_rows > 0 and max_rows or nil,
    width = output.width(),
    fields = { { "command", command_tag }, { "row_count", result.row_count or 0 }, { "shards", shards },
      { "duration", result.duration or 0 } },
  })
  output.flush()
  local what = result.columns and #result.columns > 0 and counted(result.row_count or #result.rows, "row")
    or COUNTING[command_tag] and ("%s %d"):format(command_tag, result.row_count or 0) or command_tag
  cli.say("sql: %s from %s in %.1f ms%s", what, table.concat(shards, ", "), (result.duration or 0) * 1000,
    left_out > 0 and ("; %s left out (--max-rows 0 for all)"):format(counted(left_out, "row")) or "")
end

local function dry_run(router, sql, params, args)
  local explained, err = router:explain(sql, params, options_of(args))
  if not explained then
    return output.failure("sql", err, args, sql)
  end
  if args.json then
    output.json(explained:to_table())
  else
    output.write(tostring(explained), "\n")
  end
  cli.say("sql: a dry run: nothing was sent")
  return cli.exit.ok
end

-- Rows of shards as they come need not be kept: there may be any number of them.
local function may_stream(sql, args)
  return (args.format == "csv" or args.format == "jsonl") and (args.each or args.shard ~= nil or #args.keys > 0)
    and statement.classify(sql) == "read" and parse(sql) ~= nil
end

local function run_stream(router, sql, params, args)
  local started, opts = task.now(), options_of(args)
  local rows_of = router:stream(sql, params, opts)
  local ok, n = pcall(rows.stream, rows_of, { format = args.format, with_shard = args.each })
  rows_of:close()
  if not ok and errors.is(n) and n.code ~= "CANCELED" then
    return output.failure("sql", suggest.complete(router, n, sql), args, sql)
  elseif not ok then
    error(n, 0)
  end
  output.flush()
  cli.say("sql: %s in %.1f ms", counted(n, "row"), (task.now() - started) * 1000)
  return cli.exit.ok
end

local function run(router, manager, sql, args)
  local params = typed.values(args.params)
  if args.dry_run then
    return dry_run(router, sql, params, args)
  elseif may_stream(sql, args) then
    return run_stream(router, sql, params, args)
  end
  local ok, err = confirmed(manager, sql, args)
  local result
  if ok then
    result, err = run_statement(router, manager, sql, params, args)
  end
  if not result then
    if err.code == "NO_KEY" then
      err.hint = err.hint or "on the command line: --key K, --shard S or --all"
    elseif err.code == "RESULT_TOO_LARGE" then
      err.hint = err.hint or "--format csv or jsonl with --key, --shard or --all --each takes any number of rows"
    end
    return output.failure("sql", ok and suggest.complete(router, err, sql) or err, args, sql)
  end
  show(result, args)
  return cli.exit.ok
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code: 1 when the statement failed, 4 when it failed on some of several shards
function command.run(args)
  check(args)
  local sql, err = read_statement(args)
  local router, manager
  if sql then
    router, manager = opening.router(args, { offline = args.dry_run })
    err = manager
  end
  if not router then
    return output.failure("sql", err, args)
  end
  local ok, code = pcall(run, router, manager, sql, args)
  manager:shutdown()
  if not ok then
    error(code, 0)
  end
  return code
end

return command
