--- `lunashard distribution`: how keys spread over shards and buckets, and which of them another version would move.
-- Keys come from a file, without any connection, or from the shards.
-- @module lunashard.cli.distribution

local breath = require("lunashard.plugin.breath")
local cli = require("lunashard.cli")
local cluster = require("lunashard.cluster")
local distribution = require("lunashard.distribution")
local earlier = require("lunashard.distribution.earlier")
local errors = require("lunashard.errors")
local json_text = require("lunashard.json_text")
local keyfile = require("lunashard.distribution.keyfile")
local output = require("lunashard.cli.output")
local row_key = require("lunashard.row_key")
local sorted = require("lunashard.sorted")
local statement = require("lunashard.router.statement")

local command = {}

command.examples = {
  "lunashard distribution --keys keys.csv --column user_id",
  "lunashard distribution --table users --exit-code",
  "lunashard distribution --keys keys.txt --against old/cluster.lua",
}

local PIECE = 64 -- keys between two looks at the clock

local function count(text)
  local number = tonumber(text)
  if not number or number % 1 ~= 0 or number < 0 or number > 10000 then
    return nil, ("%q is not a whole number from 0 to 10000"):format(text)
  end
  return number
end

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  parser:option("--keys", "a file with a key on each line, or CSV; - reads it from stdin. Connects nowhere")
  parser:option("--column", "of CSV: the key's column, or its columns with commas between; names (which the first line "
    .. "has) or numbers, from 1")
  parser:option("--table", "count this table's rows on the shards; with --keys, the table whose keys they are")
  parser:option("--against", "an earlier version of the strategy's plug-in, or an earlier cluster file: says which keys "
    .. "have another shard since")
  parser:option("--top", "how many of the buckets with the most keys to show [5]"):convert(count)
  parser:flag("--exit-code", "exit code 3 when rows are on the wrong shard, or keys have moved"):target("exit_code")
  parser:flag("--json", "JSON on stdout, also on failure")
end

local function invalid(format, ...)
  return nil, errors.new("INVALID", { message = format:format(...) })
end

local function check(args)
  if not args.keys and not args.table then
    cli.usage_error("say which keys: --keys FILE, or --table NAME")
  elseif args.column and not args.keys then
    cli.usage_error("--column goes with --keys FILE")
  end
  return cli.cluster_path(args)
end

-- ---- what is meant ---------------------------------------------------------------

-- The strategy whose keys are counted.
local function strategy_of(manager, table_name)
  if table_name and next(manager.tables) ~= nil then
    return manager:strategy_for(table_name)
  elseif manager.strategies.mixed then
    return invalid("tables declare keys of several types: say with --table which table's keys they are")
  end
  return manager.strategy
end

local function columns_of(text, bound)
  local width = type(bound.key_type) == "table" and #bound.key_type or 1
  local columns = {}
  if not text then
    for i = 1, width do
      columns[i] = i
    end
    return width > 1 and columns or nil
  end
  for name in (text .. ","):gmatch("([^,]*),") do
    columns[#columns + 1] = name:find("^%d+$") and tonumber(name) or name
    if name == "" or columns[#columns] == 0 then
      cli.usage_error(("--column: expected a column's name or its number, got %q"):format(name))
    end
  end
  if #columns ~= width then
    return invalid("--column: the key has %d column%s, but %d are given", width, width == 1 and "" or "s", #columns)
  end
  return columns
end

-- ---- counting ----------------------------------------------------------------------

local function count_file(tally, args, bound)
  local columns, err = columns_of(args.column, bound)
  if err then
    return nil, err
  end
  local reader
  reader, err = keyfile.open(args.keys, columns)
  if not reader then
    return nil, err
  end
  local pause, n = breath.new(), 0
  local key
  key, err = reader:read()
  while key ~= nil do
    tally:add(distribution.key_of(bound, key), reader)
    n = n + 1
    if n % PIECE == 0 then
      pause()
    end
    key, err = reader:read()
  end
  reader:close()
  if err then
    return nil, err
  elseif n == 0 then
    return invalid("%s holds no keys", reader.name)
  end
  return true
end

local function query_of(manager, table_name, bound)
  local declared = manager.tables[table_name]
  local key = declared and declared.shard_key or bound.shard_key
  if key == nil then
    return invalid("%s: neither the cluster file's tables nor its strategy say which column is the shard key", table_name)
  end
  local columns, quoted = type(key) == "table" and key or { key }, {}
  for i, column in ipairs(columns) do
    quoted[i] = statement.quote_ident(column)
  end
  local name = statement.quote_table(table_name)
  if not name then
    return invalid("%q is no table's name", table_name)
  end
  return ("SELECT %s FROM %s"):format(table.concat(quoted, ", "), name), columns
end

local function count_shard(tally, router, sql, columns, shard_id)
  local stream = router:stream(sql, {}, { shard_id = shard_id, read_only = true })
  local ok, err = pcall(function()
    local pause, n = breath.new(), 0
    for row in stream do
      tally:add(row_key.of(row, columns), shard_id, shard_id)
      n = n + 1
      if n % PIECE == 0 then
        pause()
      end
    end
  end)
  stream:close()
  if ok then
    return true
  elseif not errors.is(err) or err.code == "CANCELED" then
    error(err, 0)
  end
  return nil, err
end

-- Shards that cannot be read are listed; the others are counted.
local function count_table(tally, manager, table_name, bound)
  local sql, columns = query_of(manager, table_name, bound)
  if not sql then
    return nil, columns
  end
  local router, failed = require("lunashard.router").new({ shard_manager = manager }), {}
  for _, shard in ipairs(manager.shards) do
    local ok, err = count_shard(tally, router, sql, columns, shard.shard_id)
    if not ok then
      failed[#failed + 1] = { shard_id = shard.shard_id, error = err }
    end
  end
  if #failed > 0 then
    return nil, errors.new("SHARDS_FAILED", {
      message = ("%d of %d shards could not be read"):format(#failed, #manager.shards),
      failed = failed,
      total = #manager.shards,
    })
  end
  return true
end

-- ---- telling -----------------------------------------------------------------------

local function percent(share)
  return share > 0 and share < 0.001 and "<0.1 %" or ("%.1f %%"):format(share * 100)
end

-- Columns as wide as what is in them; the first is flush left.
local function print_rows(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, text in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, #text)
    end
  end
  for _, row in ipairs(rows) do
    local parts = {}
    for i, text in ipairs(row) do
      parts[i] = ((rows.left or 1) >= i and "%-" or "%") .. widths[i] .. "s"
      parts[i] = parts[i]:format(text)
    end
    io.stdout:write((table.concat(parts, "  "):gsub("%s+$", "")), "\n")
  end
end

local function print_shards(report)
  local rows = { { "SHARD", "KEYS", "SHARE", "EVEN" } }
  if report.misplaced then
    table.insert(rows[1], "ROWS")
    table.insert(rows[1], "MISPLACED")
  end
  for _, shard in ipairs(report.shards) do
    local row = { shard.shard_id, ("%d"):format(shard.keys), percent(shard.share), percent(shard.expected_share) }
    if report.misplaced then
      table.insert(row, ("%d"):format(shard.rows))
      table.insert(row, ("%d (%s)"):format(shard.misplaced, percent(shard.rows > 0 and shard.misplaced / shard.rows or 0)))
    end
    rows[#rows + 1] = row
  end
  print_rows(rows)
  if report.balance then
    io.stdout:write(("balance: %.2f to %.2f of an even share, deviation %s\n"):format(report.balance.least,
      report.balance.most, percent(report.balance.deviation)))
  end
end

local function print_hot(report)
  if #report.hot_buckets == 0 then
    return
  end
  local rows = { left = 2, { "BUCKET", "SHARD", "KEYS", "SHARE", "TIMES THE MEAN" } }
  for _, one in ipairs(report.hot_buckets) do
    rows[#rows + 1] = { tostring(one.bucket), one.shard_id or "-", ("%d"):format(one.keys), percent(one.share),
      ("%.1f"):format(one.times_mean) }
  end
  io.stdout:write(("\n%s%d buckets have keys%s; those with the most:\n"):format(report.buckets_exact and "" or "more than ",
    report.used_buckets, report.buckets and (", of %d"):format(report.buckets) or ""))
  print_rows(rows)
end

local function print_moved(report)
  local change = report.against
  if not change then
    return
  end
  io.stdout:write(("\nagainst %s (strategy %s): %d of %d keys (%s) have another shard\n"):format(change.source,
    change.strategy, change.moved, change.compared, percent(change.share)))
  local rows = { left = 1, { "MOVED", "KEYS" } }
  local ways = sorted.keys(change.by)
  for _, way in ipairs(ways) do
    rows[#rows + 1] = { (way:gsub("%->", " -> ")), ("%d"):format(change.by[way]) }
  end
  if #ways > 0 then
    print_rows(rows)
    for _, example in ipairs(change.examples) do
      io.stdout:write(("such as %s: from %s to %s\n"):format(example.key, example.from, example.to or "no shard"))
    end
  end
end

local function print_report(report)
  io.stdout:write(("strategy %s, keys of type %s: %d key%s from %s\n\n"):format(report.strategy,
    report.key_type or "int8 or text", report.keys, report.keys == 1 and "" or "s", report.source))
  print_shards(report)
  for _, example in ipairs(report.misplaced_examples or {}) do
    io.stdout:write(("such as %s: on %s, belongs to %s\n"):format(example.key, example.at, example.belongs_to))
  end
  print_hot(report)
  print_moved(report)
end

-- What was left out, on stderr.
local function say_failures(report)
  if report.null_keys > 0 then
    cli.say("distribution: %d without a key (NULL or empty)", report.null_keys)
  end
  for _, failure in ipairs(report.failures) do
    cli.say("distribution: %s: %s", failure.where, failure.message)
  end
  if report.failed_keys > #report.failures then
    cli.say("distribution: %d keys in all have no shard", report.failed_keys)
  end
end

-- ---- the command ---------------------------------------------------------------------

local function prepare(args, path)
  local manager, err = cluster.build(path)
  local bound
  if manager then
    bound, err = strategy_of(manager, args.table)
  end
  if not bound then
    return nil, err
  end
  local against
  if args.against then
    against, err = earlier.load(args.against, bound, args.table, manager.plugins and manager.plugins.real)
    if not against then
      return nil, err
    end
  end
  local offline = args.keys and not distribution.needs_servers(bound)
  cli.say("cluster %s (%s)%s", manager.name or "without a name", path, offline and ", not connected" or "")
  if not offline then
    local ok
    ok, err = manager:initialize()
    if not ok then
      return nil, err
    end
  end
  return manager, bound, against
end

local function counted(args, manager, bound, against)
  local tally = distribution.new(bound, { against = against, top = args.top })
  local ok, err
  if args.keys then
    ok, err = count_file(tally, args, bound)
  else
    ok, err = count_table(tally, manager, args.table, bound)
  end
  if not ok and not errors.is(err, "SHARDS_FAILED") then
    return nil, err
  end
  local report = tally:report()
  report.source = args.keys or "table " .. args.table
  if report.against then
    report.against.source = args.against
  end
  return report, err
end

local function finish(args, report, err)
  if args.json then
    report.failed = err and errors.to_table(err).failed
    json_text.lists(report.against or {}, "examples")
    output.json(json_text.lists(report, "failures", "shards", "hot_buckets", "misplaced_examples"))
  else
    print_report(report)
  end
  say_failures(report)
  if err then
    cli.say("distribution: %s", tostring(err))
    return errors.exit_code(err)
  elseif report.failed_keys > 0 then
    return cli.exit.failed
  elseif args.exit_code and ((report.misplaced or 0) > 0 or report.against and report.against.moved > 0) then
    return cli.exit.differences
  end
  return cli.exit.ok
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code: 1 when a key has no shard, 3 with `--exit-code` when something is not where it was or belongs,
--   4 when some of the shards could not be read
function command.run(args)
  local path = check(args)
  local manager, bound, against = prepare(args, path)
  local err = bound
  local report
  if manager then
    report, err = counted(args, manager, bound, against)
    manager:shutdown()
  end
  if report then
    return finish(args, report, err)
  end
  cli.say("distribution: %s", tostring(err.message))
  if args.json then
    output.json({ error = errors.to_table(err) })
  end
  return errors.exit_code(err)
end

return command
