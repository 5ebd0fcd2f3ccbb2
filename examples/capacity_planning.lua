-- Capacity planning: the guide's formulas for sizes and pools as a calculator with command-line arguments; needs no cluster.
--
--   lunashard run examples/capacity_planning.lua --total-size 2TB --shards 8 --growth 3 \
--     --app-instances 10 --connections-per-instance 50

local argparse = require("argparse")

local UNITS = { MB = 1e6, GB = 1e9, TB = 1e12, PB = 1e15 }
local DISKS = { 100e9, 250e9, 500e9, 1e12, 2e12, 4e12, 8e12, 16e12, 32e12 }

local function size(text)
  local number, unit = text:match("^([%d.]+)%s*(%a*)$")
  local factor = UNITS[(unit or ""):upper()]
  number = tonumber(number)
  if not number or number <= 0 or not factor then
    return nil, ("%q is not a size such as 500GB or 2TB"):format(text)
  end
  return number * factor
end

local function positive(text)
  local number = tonumber(text)
  if not number or number ~= number or number <= 0 or number == math.huge then
    return nil, ("%q is not a number above 0"):format(text)
  end
  return number
end

local function whole_from(least)
  return function(text)
    local number = tonumber(text)
    if not number or number < least or number % 1 ~= 0 then
      return nil, ("%q is not a whole number from %d"):format(text, least)
    end
    return number
  end
end
local whole = whole_from(1)

local parser = argparse("capacity_planning", "How large shards and their connection pools have to be.")
parser:option("--total-size", "all data, indexes included, such as 500GB or 2TB", "2TB"):convert(size)
parser:option("--shards", "number of shards", "8"):convert(whole)
parser:option("--growth", "growth buffer: plan for so many times the data", "3"):convert(positive)
parser:option("--app-instances", "processes of the application", "10"):convert(whole)
parser:option("--connections-per-instance", "connections that each of them needs, to all shards together", "50")
  :convert(whole)
parser:option("--pool-buffer", "share of connections to add for peaks", "0.2"):convert(positive)
parser:option("--max-connections", "max_connections of each PostgreSQL server", "100"):convert(whole)
parser:option("--replicas", "replicas of each shard", "1"):convert(whole_from(0))

local ok, args = parser:pparse(arg)
if not ok then
  io.stderr:write("capacity_planning: ", args, "\n")
  os.exit(2)
end

local function readable(bytes)
  for _, unit in ipairs { "PB", "TB", "GB", "MB" } do
    if bytes >= UNITS[unit] then
      return (("%.1f"):format(bytes / UNITS[unit]):gsub("%.0$", "")) .. unit
    end
  end
  return ("%.1fMB"):format(bytes / 1e6)
end

-- Sizes: total / shards, times the growth buffer, on the next larger disk.
local per_shard = args.total_size / args.shards
local planned = per_shard * args.growth
local disk
for _, candidate in ipairs(DISKS) do
  if not disk and candidate >= planned then
    disk = candidate
  end
end

print(("Total DB size: %s"):format(readable(args.total_size)))
print(("Number of shards: %d"):format(args.shards))
print(("Per-shard size: %s / %d = %s"):format(readable(args.total_size), args.shards, readable(per_shard)))
print(("With %gx growth buffer: %s * %g = %s per shard"):format(args.growth, readable(per_shard), args.growth,
  readable(planned)))
if disk then
  print(("Hardware: %s SSD per shard, %.0f%% full today, %.0f%% at the end; %d servers with %d replica(s) each"):format(
    readable(disk), per_shard / disk * 100, planned / disk * 100, args.shards * (1 + args.replicas), args.replicas))
else
  print(("Hardware: no single disk up to %s holds it; use at least %d shards"):format(readable(DISKS[#DISKS]),
    math.ceil(args.total_size * args.growth / DISKS[#DISKS])))
end

-- Pools: connections_per_shard = max_app_instances * connections_per_instance / num_shards, with a buffer.
local total = args.app_instances * args.connections_per_instance
local connections = math.ceil(total / args.shards)
local buffered = math.ceil(connections * (1 + args.pool_buffer) - 1e-9)
-- Every process has a pool of its own for every shard, so this is what goes into its cluster file.
local pool_size = math.max(math.ceil(buffered / args.app_instances - 1e-9), 1)
local on_server = pool_size * args.app_instances

print("")
print(("Connections: %d instances * %d = %d; %d / %d shards = %d per shard, %d with a buffer of %g%%"):format(
  args.app_instances, args.connections_per_instance, total, total, args.shards, connections, buffered,
  args.pool_buffer * 100))
print(("connection_pool_size = %d in each instance; a shard then sees up to %d connections"):format(pool_size, on_server))

local RESERVED = 10 -- for superusers, replication, backups and rebalancing
if on_server + RESERVED > args.max_connections then
  print(("max_connections = %d is too small: raise it to %d, or use fewer instances"):format(args.max_connections,
    on_server + RESERVED))
else
  print(("max_connections = %d is enough, with %d to spare"):format(args.max_connections,
    args.max_connections - on_server))
end

-- runs without a cluster
-- run: --total-size 2TB --shards 8 --growth 3
-- expect: Per%-shard size: 2TB / 8 = 250GB
-- expect: With 3x growth buffer: 250GB %* 3 = 750GB per shard
-- expect: Hardware: 1TB SSD per shard
-- run: --shards 10 --app-instances 10 --connections-per-instance 50
-- expect: 10 instances %* 50 = 500; 500 / 10 shards = 50 per shard, 60 with a buffer of 20%%
-- expect: connection_pool_size = 6 in each instance; a shard then sees up to 60 connections
-- expect: max_connections = 100 is enough
-- run: --total-size 500TB --shards 4 --app-instances 100
-- expect: no single disk up to 32TB holds it; use at least 47 shards
-- expect: too small: raise it to 1510
-- run: --help
-- expect: Usage: capacity_planning
-- run: --shards 0
-- exit: 2
