--- The moving part of a chaos run: one job after the other, by the program itself, whose processes may be killed.
-- @module spec.chaos.moving

local json = require("cjson.safe")
local lunashard = require("lunashard")

local moving = {}

local function must(result, what)
  if not result or result.code ~= 0 then
    error(("%s: exit code %s: %s%s"):format(what, result and tostring(result.code or result.signal) or "none",
      result and result.stdout or "", result and result.stderr or ""), 0)
  end
  return result
end

--- Install the catalog on the shards in use. Yields.
function moving.init(run)
  must(run:lunashard({ "cluster", "init", "-c", run.cluster_file }), "cluster init")
end

local function job_status(run)
  local result = run:lunashard({ "rebalance", "status", "-c", run.larger_file, "--json" })
  return result and result.code == 0 and json.decode(result.stdout) or nil, result
end

local OPEN = { pending = true, running = true, paused = true, failed = true }

local function random_moves(run)
  local path = run.servers.dir .. "/moves"
  local file = assert(io.open(path, "w"))
  local seen = {}
  for _ = 1, 300 do
    local bucket = math.random(0, 16383)
    if not seen[bucket] then
      seen[bucket] = true
      file:write(bucket, " ", run.servers.shards[math.random(#run.servers.shards)].shard_id, "\n")
    end
  end
  file:close()
  return { "--moves", path }
end

local CHOICES = {
  function() return {} end,
  function() return { "--even", "rows" } end,
  function() return { "--even", "buckets" } end,
  function(run) return { "--drain", run.servers.shards[math.random(2, #run.servers.shards)].shard_id } end,
  random_moves, random_moves, random_moves,
}

-- What is done with a job besides letting it run to its end.
local function interfere(run, child)
  local dice = math.random(10)
  if dice <= 4 then
    lunashard.sleep(math.random() * 2)
    child:signal("KILL")
    run.faults = (run.faults or 0) + 1
  elseif dice == 5 then
    child:signal("STOP")
    lunashard.sleep(math.random() * 4)
    child:signal("CONT")
    run.faults = (run.faults or 0) + 1
  elseif dice == 6 then
    lunashard.sleep(math.random())
    child:signal("INT")
  end
  return child:wait(300)
end

local AFTERWARDS = { "resume", "resume", "resume", "cancel", "rollback" }
local ASKS = { cancel = true, rollback = true }

local function say(run, verb, result)
  run:log(("%s: %s %s%s"):format(verb, result and tostring(result.code or result.signal) or "no end",
    result and result.stdout or "", result and result.stderr or ""))
end

-- Whatever state the latest job is in: to an end.
local function settle(run)
  for _ = 1, 40 do
    local status, result = job_status(run)
    if status and not OPEN[status.status] then
      return true
    elseif not status then
      say(run, "status", result)
      if result.stdout:find("there is no rebalance job yet", 1, true) then
        return true
      end
    end
    local verb = AFTERWARDS[math.random(#AFTERWARDS)]
    local args = { "rebalance", verb, "-c", run.larger_file }
    if ASKS[verb] then
      args[5], args[6] = "--yes", "chaos"
    end
    local child = assert(run:spawn(args))
    say(run, verb, math.random() < 0.3 and interfere(run, child) or child:wait(300))
    lunashard.sleep(0.2)
  end
  error("a job does not come to an end", 0)
end

--- Start one job after the other. Yields.
-- @treturn table `jobs`: how many
function moving.keep_moving(run, until_then)
  local done = { jobs = 0 }
  while lunashard.now() < until_then do
    local args = { "rebalance", "start", "-c", run.larger_file, "--yes", "chaos", "--batch-size",
      tostring(math.random(10, 200)), "--parallel", tostring(math.random(1, 4)) }
    for _, one in ipairs(CHOICES[math.random(#CHOICES)](run)) do
      args[#args + 1] = one
    end
    say(run, table.concat(args, " ", 4), interfere(run, assert(run:spawn(args))))
    done.jobs = done.jobs + 1
    settle(run)
  end
  return done
end

--- Bring the last job to its end, with everything well. Yields.
function moving.finish(run)
  for _ = 1, 10 do
    local status = job_status(run)
    if not status or not OPEN[status.status] then
      break
    end
    say(run, "resume", run:lunashard({ "rebalance", "resume", "-c", run.larger_file }))
  end
  must(run:lunashard({ "rebalance", "cleanup", "-c", run.larger_file }), "rebalance cleanup")
  must(run:lunashard({ "cluster", "verify", "-c", run.larger_file }), "cluster verify")
end

--- The map in the end. Yields.
-- @treturn table `buckets` (bucket -> `shard_id`, `version`), `owner_of(key)`
-- @treturn {number,...} seconds that each move made statements wait
function moving.read_map(run)
  local cluster = assert(lunashard.open(run.larger_file))
  local catalog = cluster.manager.catalog
  local buckets, pauses = {}, {}
  local deadline = lunashard.now() + 60
  for _, row in ipairs(assert(catalog:execute("SELECT bucket, shard_id, version FROM lunashard_catalog.bucket", nil,
    deadline)).rows) do
    buckets[row.bucket] = row
  end
  for _, row in ipairs(assert(catalog:execute([[SELECT pause_seconds AS s FROM lunashard_catalog.move
      WHERE state = 'done' AND pause_seconds IS NOT NULL]], nil, deadline)).rows) do
    pauses[#pauses + 1] = row.s
  end
  local owners = {}
  for key = 1, run.options.keys do
    owners[key] = cluster.manager:get_shard_for_write(key, { table = "registers" }).shard_id
  end
  cluster:close()
  return { buckets = buckets, owner_of = function(key) return owners[tonumber(key)] end }, pauses
end

return moving
