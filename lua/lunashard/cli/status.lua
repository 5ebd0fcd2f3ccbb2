--- `lunashard status`: how the shards and their servers do.
-- @module lunashard.cli.status

local cli = require("lunashard.cli")
local json_text = require("lunashard.json_text")
local opening = require("lunashard.cli.opening")
local output = require("lunashard.cli.output")
local table_text = require("lunashard.table_text")
local task = require("lunashard.task")
local typed = require("lunashard.cli.typed")

local command = {}

local INTERVAL = 2
local CLEAR = "\27[H\27[J"

local COLUMNS = { "shard", "server", "role", "state", "latency", "lag", "connections" }

command.examples = {
  "lunashard status",
  "lunashard status --watch",
  "lunashard status --json | jq .healthy_shards",
}

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  parser:flag("--watch", "again and again, until it is interrupted")
  parser:option("--interval", ("with --watch: seconds between two looks [%d]"):format(INTERVAL)):convert(typed.seconds)
  parser:option("--count", "with --watch: end after so many"):convert(typed.count)
  parser:flag("--json", "JSON on stdout, also on failure; with --watch an object on each line")
end

local function latency(endpoint)
  return endpoint.average_latency_ms and endpoint.average_latency_ms > 0 and ("%.1f ms"):format(endpoint.average_latency_ms)
    or "-"
end

local function lag(endpoint)
  if endpoint.lag_seconds then
    return ("%.1f s"):format(endpoint.lag_seconds)
  elseif endpoint.lag_bytes then
    return ("%.0f bytes"):format(endpoint.lag_bytes)
  end
  return "-"
end

local function connections(endpoint, stats)
  return stats and ("%d of %d"):format(stats.used or 0, stats.max_size or 0) or endpoint.connection_count or "-"
end

local function one_line(text)
  return text and (text:gsub("%s*\n%s*", " ")) or nil
end

-- A row for each server; what is said of a shard stands with its first.
local function rows_of(status, shards)
  local list = {}
  for _, shard in ipairs(shards) do
    local one = status.shards[shard.shard_id]
    for i, endpoint in ipairs(one.endpoints) do
      list[#list + 1] = {
        shard = i == 1 and shard.shard_id or "",
        server = endpoint.endpoint,
        role = endpoint.role .. (endpoint.fenced and " (fenced)" or ""),
        state = endpoint.status,
        latency = latency(endpoint),
        lag = lag(endpoint),
        connections = connections(endpoint, i == 1 and one.pool or nil),
      }
    end
  end
  return list
end

local function headline(manager, status)
  local name = manager.name or "without a name"
  local environment = manager.options.environment
  return ("cluster %s%s: %d of %d shards healthy%s"):format(name, environment and (" (%s)"):format(environment) or "",
    status.healthy_shards, status.total_shards,
    #status.alerts > 0 and (", %d alert%s"):format(#status.alerts, #status.alerts == 1 and "" or "s") or "")
end

local function as_text(manager, status)
  local lines = { headline(manager, status), "", (table_text.render(COLUMNS, rows_of(status, manager.shards))) }
  for _, alert in ipairs(status.alerts) do
    lines[#lines + 1] = ("alert: %s%s"):format(alert.shard_id and alert.shard_id .. ": " or "", one_line(alert.message))
  end
  return table.concat(lines, "\n"):gsub("\n+$", "") .. "\n"
end

-- Lists stay lists when they are empty.
local function as_json(manager, status)
  status.name, status.environment = manager.name, manager.options.environment
  json_text.lists(status, "alerts", "plugins")
  for _, shard in pairs(status.shards) do
    json_text.lists(shard, "alerts")
    if shard.pool then
      shard.pool.replicas = json_text.list(shard.pool.replicas)
    end
  end
  return status
end

local function show(manager, args, clears)
  local status = manager:get_cluster_status()
  local healthy, total = status.healthy_shards, status.total_shards
  if args.json then
    output.json(as_json(manager, status))
  else
    output.write(clears and CLEAR or "", as_text(manager, status))
  end
  output.flush()
  return healthy == total and cli.exit.ok or healthy == 0 and cli.exit.failed or cli.exit.partial
end

local function watch(manager, args)
  local clears, n = output.is_terminal() and os.getenv("TERM") ~= "dumb", 0
  while true do
    local code = show(manager, args, clears)
    n = n + 1
    if n == args.count then
      return code
    end
    if not clears and not args.json then
      output.write("\n")
    end
    task.sleep(args.interval or INTERVAL)
  end
end

local function check(args)
  if not args.watch and (args.interval or args.count) then
    cli.usage_error(("--%s goes with --watch"):format(args.interval and "interval" or "count"))
  elseif args.count == 0 then
    cli.usage_error("--count: expected 1 or more, got 0")
  end
end

--- Run it. Yields.
-- @tparam table args
-- @treturn number exit code: 4 when some of the shards are not healthy, 1 when none is
function command.run(args)
  check(args)
  local router, manager = opening.router(args, {
    overrides = args.watch and { health_check_interval = args.interval or INTERVAL } or nil,
  })
  if not router then
    return output.failure("status", manager, args)
  end
  local ok, code = pcall(args.watch and watch or show, manager, args)
  manager:shutdown()
  if not ok then
    error(code, 0)
  end
  return code
end

return command
