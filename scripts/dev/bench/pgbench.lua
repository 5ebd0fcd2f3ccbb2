--- pgbench as a peer: one process with one thread for each shard, started together.
local rusage = require("rusage")
local spread = require("spread")
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local worker = require("worker")

local pgbench = {}

local LOG_SHARE = 0.2 -- of the transactions; writing all of them down would slow it

local function start(ctx, server, clients, options, more)
  local argv = { ctx.peers.pgbench, "--no-vacuum", "--protocol=" .. (options.protocol or "prepared"), "--jobs=1",
    "--client=" .. clients, "--file=" .. options.file, "--host=" .. server.host, "--port=" .. server.port,
    "--username=app" }
  for _, argument in ipairs(more) do
    argv[#argv + 1] = argument
  end
  argv[#argv + 1] = server.database
  return function()
    local result, reason = worker.run({ argv = argv, env = { PGPASSFILE = ctx.passfile } })
    if not result then
      error(reason, 0)
    end
    return result.stdout .. result.stderr
  end
end

local function run_all(ctx, options, more)
  local fns, count = {}, #options.servers
  for i, server in ipairs(options.servers) do
    local clients = math.floor(options.clients / count) + (i <= options.clients % count and 1 or 0)
    fns[i] = start(ctx, server, clients, options, more(i))
  end
  local cpu = rusage.children_cpu()
  local outputs, err = task.gather(fns)
  if not outputs then
    return nil, tostring(err.cause or err)
  end
  return outputs, rusage.children_cpu() - cpu
end

-- Transactions a second once it is warm: its reports of the seconds after the first.
local function warm_rate(output)
  local rates = {}
  for at, rate in output:gmatch("progress: ([%d.]+) s, ([%d.]+) tps") do
    if tonumber(at) > 1.5 then
      rates[#rates + 1] = tonumber(rate)
    end
  end
  local sum = 0
  for _, rate in ipairs(rates) do
    sum = sum + rate
  end
  return #rates > 0 and sum / #rates
end

-- Latencies from the logs, without those of the first second; the logs are removed.
local function read_logs(prefix)
  local sorted, dir = {}, prefix:match("^(.*)/")
  for _, name in ipairs(assert(system.listdir(dir))) do
    local path = dir .. "/" .. name
    if path:sub(1, #prefix) == prefix then
      local first
      for line in io.lines(path) do
        -- client, transaction, latency in microseconds, script, seconds, microseconds
        local latency, s, us = line:match("^%d+ %d+ (%d+) %d+ (%d+) (%d+)")
        local at = tonumber(s) + tonumber(us) * 1e-6
        first = first or at
        if at > first + 1 then
          sorted[#sorted + 1] = tonumber(latency) * 1e-6
        end
      end
      system.unlink(path)
    end
  end
  table.sort(sorted)
  return sorted
end

--- CPU seconds that starting and connecting take, which are not the queries'. Yields.
local function starting_cpu(ctx, options)
  local _, cpu = run_all(ctx, options, function()
    return { "--transactions=1" }
  end)
  return cpu
end

--- Run it. Yields.
-- @tparam table ctx
-- @tparam table options `servers`, `clients` in all, `file` (the script), `protocol` [prepared], `cpu`, `latencies`
-- @treturn[1] table `rate`, and when asked for, `cpu` (seconds a transaction), `p50` and `p99`
-- @treturn[2] nil
-- @treturn[2] string reason
function pgbench.run(ctx, options)
  local starting = options.cpu and starting_cpu(ctx, options) or 0
  local prefix = ctx.work_dir .. "/pgbench_log"
  local outputs, cpu = run_all(ctx, options, function(i)
    local more = { "--time=" .. ctx.seconds + 1, "--progress=1" }
    if options.latencies then
      more[#more + 1] = "--log"
      more[#more + 1] = "--log-prefix=" .. prefix .. i
      more[#more + 1] = "--sampling-rate=" .. LOG_SHARE
    end
    return more
  end)
  if not outputs then
    return nil, cpu
  end
  local rate, transactions = 0, 0
  for _, output in ipairs(outputs) do
    local one = warm_rate(output)
    if not one then
      return nil, "pgbench reported no progress"
    end
    rate = rate + one
    transactions = transactions + tonumber(output:match("actually processed: (%d+)"))
  end
  local figures = { rate = rate, cpu = options.cpu and (cpu - starting) / transactions or nil }
  if options.latencies then
    local sorted = read_logs(prefix)
    figures.p50, figures.p99 = spread.quantile(sorted, 0.5), spread.quantile(sorted, 0.99)
  end
  return figures
end

return pgbench
