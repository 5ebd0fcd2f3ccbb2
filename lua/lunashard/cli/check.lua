--- `lunashard check FILE`: what is wrong with a plug-in's file, before it is used; without a file, see
-- `lunashard.cli.check_cluster`.
-- It is looked at (globals, I/O, randomness), loaded as a cluster would, its contract is checked, and it is tried on
-- sample keys or rows. stdout is data: a line for each finding, or JSON.
-- @module lunashard.cli.check

local cli = require("lunashard.cli")
local cluster_file = require("lunashard.cluster")
local json_text = require("lunashard.json_text")
local output = require("lunashard.cli.output")
local single = require("lunashard.plugin.single")

local command = {}

local MAX_SHARDS = 1000

command.examples = {
  "lunashard check -c cluster.lua",
  "lunashard check plugins/strategies/tenant_tier.lua",
}

local function shard_count(text)
  local number = tonumber(text)
  if not number or number % 1 ~= 0 or number < 1 or number > MAX_SHARDS then
    return nil, ("--shards is a whole number from 1 to %d, not %q"):format(MAX_SHARDS, text)
  end
  return number
end

-- `pinned = { [42] = "shard1" }` as a table.
local function options_of(text)
  local chunk, problem = load("return {" .. text .. "\n}", "=--options", "t", {})
  local ok, value
  if chunk then
    ok, value = pcall(chunk)
    problem = value
  end
  if not ok then
    return nil, ("--options are a Lua table's fields, such as 'tiers = { 1, 2 }': %s"):format(
      tostring(problem):gsub("^%-%-options:%d+: ", ""))
  end
  return value
end

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:argument("file", "a plug-in's file; several may be named. Without one the cluster is checked"):args("*")
  parser:option("-c --cluster", "the cluster; for a plug-in the one whose strategy, shards and key types it is tried with "
    .. "[LUNASHARD_CLUSTER]")
  parser:option("--shards", "of a strategy: how many shards to try it with [3]"):convert(shard_count)
  parser:option("--key-type", "of a strategy: int8, text, uuid or date [int8]"):choices({ "int8", "text", "uuid", "date" })
  parser:option("--options", "of a strategy: its options, such as 'pinned = { [42] = \"shard1\" }'"):convert(options_of)
  parser:flag("--exit-code", "of a cluster: exit code 3 when there are warnings"):target("exit_code")
  parser:flag("--json", "JSON on stdout, also on failure")
end

-- The key types that tables declare, each once.
local function types_of(tables)
  local list, seen = {}, {}
  for _, declared in pairs(tables) do
    local name = type(declared.type) == "table" and table.concat(declared.type, ", ") or declared.type
    if name ~= nil and not seen[name] then
      seen[name] = true
      list[#list + 1] = declared.type
    end
  end
  return list
end

-- The cluster's own strategy, when that is the plug-in in question.
local function as_in_cluster(how, path)
  local given, err = cluster_file.load(path)
  if not given then
    return nil, err.message
  end
  how.cluster_strategy, how.shards = given.strategy, given.shards or how.shards
  how.time, how.memory = given.plugin_time, given.plugin_memory
  how.cluster_types = types_of(given.tables or {})
  return how
end

local function conditions(args)
  local how = { shards = {}, key_type = args.key_type }
  for i = 1, args.shards or 3 do
    how.shards[i] = { shard_id = "shard" .. i }
  end
  how.options = args.options or {}
  local path = args.cluster or os.getenv("LUNASHARD_CLUSTER")
  if path and path ~= "" then
    return as_in_cluster(how, path)
  end
  return how
end

local function name_in(given)
  return type(given) == "table" and (given[1] or given.name) or given
end

-- How this strategy is bound, once for each type of key: as the cluster does it when it is the cluster's.
local function bindings_of(entry, how)
  local given, types = { entry.name }, { "int8" }
  for name, value in pairs(how.options) do
    given[name] = value
  end
  if how.cluster_strategy ~= nil and name_in(how.cluster_strategy) == entry.name then
    given = how.cluster_strategy
    local own = type(given) == "table" and (given.key_type or given.options and given.options.key_type)
    types = own and { own } or #how.cluster_types > 0 and how.cluster_types or types
  end
  local list = {}
  for i, key_type in ipairs(how.key_type and { how.key_type } or types) do
    local columns = {}
    for n = 1, type(key_type) == "table" and #key_type or 1 do
      columns[n] = "key" .. n
    end
    list[i] = { shards = how.shards, strategy = given, shard_key = columns, key_type = key_type }
  end
  return list
end

local function add(report, message, line)
  report.findings[#report.findings + 1] = { line = line, message = message }
end

-- Of a message that begins with its place, as the loader shows it (`plugins/strategies/tier.lua:7: ...`).
local function add_located(report, message)
  local shown, rest = message:match("^([^:]+): ?(.*)$")
  if not shown or ("/" .. report.file):sub(-#shown - 1) ~= "/" .. shown then
    return add(report, message) -- it is in a file that this one requires
  end
  local line, text = rest:match("^(%d+): (.*)$")
  add(report, text or rest, tonumber(line))
end

-- What a strategy was tried with.
local function note_trial(report, bound_as)
  if bound_as.shards then
    local name = bound_as.key_type
    name = type(name) == "table" and table.concat(name, ", ") or name
    report.tried_with = report.tried_with or { shards = #bound_as.shards, key_types = {} }
    table.insert(report.tried_with.key_types, name)
    table.sort(report.tried_with.key_types)
  end
end

local function examine(path, how)
  local report = { file = path, findings = {} }
  local found, problem = single.look(path)
  if not found then
    add_located(report, problem)
    return report
  elseif #found > 0 then
    report.findings = found
    return report
  end
  local entry
  entry, problem = single.load(path, { time = how.time, memory = how.memory })
  if not entry then
    add_located(report, problem)
    return report
  end
  report.kind, report.name = entry.kind, entry.name
  for _, bound_as in ipairs(entry.kind == "strategy" and bindings_of(entry, how) or { {} }) do
    local ok, remark = single.try(entry, bound_as)
    if not ok then
      add(report, "self-test: " .. remark)
      return report
    end
    report.remark = remark
    note_trial(report, bound_as)
  end
  return report
end

local function print_report(report)
  for _, finding in ipairs(report.findings) do
    io.stdout:write(report.file, finding.line and ":" .. finding.line or "", ": ", finding.message, "\n")
  end
  if #report.findings == 0 then
    local with = report.tried_with
    io.stdout:write(("%s: ok: %s %s%s%s\n"):format(report.file, report.kind, report.name,
      with and (", tried with %d shard%s and %s keys"):format(with.shards, with.shards == 1 and "" or "s",
        table.concat(with.key_types, " and ")) or "",
      report.remark and "; " .. report.remark or ""))
  end
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code: 1 when something is wrong with one of the files, or with the cluster
function command.run(args)
  if #args.file == 0 then
    for _, name in ipairs({ "shards", "key_type", "options" }) do
      if args[name] then
        cli.usage_error(("--%s is of a plug-in: name its file"):format((name:gsub("_", "-"))))
      end
    end
    return require("lunashard.cli.check_cluster").run(args)
  end
  local how, problem = conditions(args)
  if not how then
    cli.say("%s", problem)
    return cli.exit.failed
  end
  local reports, is_good = {}, true
  for i, path in ipairs(args.file) do
    reports[i] = examine(path, how)
    reports[i].ok = #reports[i].findings == 0
    is_good = is_good and reports[i].ok
    if not args.json then
      print_report(reports[i])
    end
  end
  if args.json then
    for _, report in ipairs(reports) do
      json_text.lists(report, "findings")
    end
    output.json({ ok = is_good, files = reports })
  end
  return is_good and cli.exit.ok or cli.exit.failed
end

return command
