--- The moving part of a chaos run: one job after the other, by the program itself, whose processes may be killed.
-- @module spec.chaos.moving

local dice = require("spec.chaos.dice")
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
  local cluster = assert(lunashard.open(run.cluster_file))
  run.buckets = {}
  for key = 1, run.options.keys do
    run.buckets[key] = assert(cluster.manager.catalog.groups.int8.bound:bucket(key))
  end
  cluster:close()
end

local function job_status(run)
  local result = run:lunashard({ "rebalance", "status", "-c", run.larger_file, "--json" })
  return result and result.code == 0 and json.decode(result.stdout) or nil, result
end

local OPEN = { pending = true, running = true, paused = true, failed = true }

local function random_moves(run, drawn)
  local path = run.servers.dir .. "/moves"
  local file = assert(io.open(path, "w"))
  local seen = {}
  for i = 1, 100 do -- most of them with rows
    local bucket = i % 3 == 0 and drawn:int(0, 16383) or drawn:pick(run.buckets)
    local shard = drawn:pick(run.servers.shards)
    if not seen[bucket] then
      seen[bucket] = true
      file:write(bucket, " ", shard.shard_id, "\n")
    end
  end
  file:close()
  return { "--moves", path }
end

local CHOICES = {
  function() return {} end,
  function() return { "--even", "rows" } end,
  function() return { "--even", "buckets" } end,
  function(run, drawn) return { "--drain", run.servers.shards[drawn:int(2, #run.servers.shards)].shard_id } end,
  random_moves, random_moves, random_moves,
}

local LATEST = 8 -- seconds after which a mover has done much

-- What is done with the process of a job besides letting it run to its end.
local function interfere(run, child, drawn)
  local chance, pause = run.options.calm and 10 or drawn:int(1, 10), drawn:between(0, LATEST)
  run.mover = child
  if chance <= 3 then
    lunashard.sleep(pause)
    child:signal("KILL")
  elseif chance <= 5 then
    lunashard.sleep(pause)
    child:signal("STOP")
    lunashard.sleep(drawn:pick({ 0.5, 2, 4, 8 }))
    child:signal("CONT")
  elseif chance == 6 then
    lunashard.sleep(pause)
    child:signal("INT")
  end
  run.faults = run.faults + (chance <= 6 and 1 or 0)
  local result = child:wait(300)
  run.mover = nil
  return result
end

-- `accidents` is a mover of our own that has them around its commits.
local AFTERWARDS = { "resume", "resume", "accidents", "accidents", "accidents", "cancel", "rollback" }

local function arguments(run, verb, drawn)
  if verb == "accidents" then
    return { "run", "-c", run.larger_file, "spec/chaos/job.lua", tostring(drawn:int(1, 1e6)) }
  end
  local args = { "rebalance", verb, "-c", run.larger_file }
  if verb ~= "resume" then
    args[5], args[6] = "--yes", "chaos"
  end
  return args
end

local function say(run, verb, result)
  run:log(("%s: %s %s%s"):format(verb, result and tostring(result.code or result.signal) or "no end",
    result and result.stdout or "", result and result.stderr or ""))
end

-- Whatever state the latest job is in: to an end. While things break that may take a while.
local function settle(run, name)
  local deadline, tries = lunashard.now() + 300, 0
  while lunashard.now() < deadline do
    local status, result = job_status(run)
    if status and not OPEN[status.status] then
      return
    elseif not status then
      say(run, "status", result)
      if result.stdout:find("there is no rebalance job yet", 1, true) then
        return
      end
    end
    tries = tries + 1
    local drawn = dice.new(run.options.seed, ("%s, again %d"):format(name, tries))
    local verb = run.options.calm and "resume" or drawn:pick(AFTERWARDS)
    local child = run:spawn(arguments(run, verb, drawn))
    say(run, verb, drawn:chance(0.3) and interfere(run, child, drawn) or child:wait(300))
    lunashard.sleep(0.2)
  end
  error("a job does not come to an end", 0)
end

--- Start one job after the other. Yields.
-- @treturn table `jobs`: how many
function moving.keep_moving(run, until_then)
  local done = { jobs = 0 }
  while lunashard.now() < until_then do
    done.jobs = done.jobs + 1
    local name = ("job %d"):format(done.jobs)
    local drawn = dice.new(run.options.seed, name)
    local args = { "rebalance", "start", "-c", run.larger_file, "--yes", "chaos", "--batch-size",
      tostring(drawn:int(10, 200)), "--parallel", tostring(drawn:int(1, 4)) }
    if drawn:chance(0.15) then
      args[#args + 1] = "--offline"
    end
    for _, one in ipairs(drawn:pick(CHOICES)(run, drawn)) do
      args[#args + 1] = one
    end
    say(run, table.concat(args, " ", 4), interfere(run, run:spawn(args), drawn))
    settle(run, name)
  end
  return done
end

--- Bring the last job to its end, with everything well. Yields.
function moving.finish(run)
  local status, result = job_status(run)
  for _ = 1, 10 do
    if status and OPEN[status.status] then
      say(run, "resume", run:lunashard({ "rebalance", "resume", "-c", run.larger_file }))
      status, result = job_status(run)
    end
  end
  must(result, "rebalance status")
  assert(not OPEN[status.status], "the last job does not come to an end")
  must(run:lunashard({ "rebalance", "cleanup", "-c", run.larger_file }), "rebalance cleanup")
  must(run:lunashard({ "cluster", "verify", "--exit-code", "-c", run.larger_file }), "cluster verify")
end

--- The map in the end. Yields.
-- @treturn table `buckets` (bucket -> `shard_id`, `version`), `owner_of(key)`
-- @treturn {number,...} seconds that each live move made statements wait
-- @treturn int moves that were done
function moving.read_map(run)
  local cluster = assert(lunashard.open(run.larger_file))
  local catalog = cluster.manager.catalog
  local buckets, pauses = {}, {}
  local deadline = lunashard.now() + 60
  for _, row in ipairs(assert(catalog:execute("SELECT bucket, shard_id, version FROM lunashard_catalog.bucket", nil,
    deadline)).rows) do
    buckets[row.bucket] = row
  end
  local moves = assert(catalog:execute([[SELECT m.pause_seconds AS s, j.strategy = 'offline' AS offline
      FROM lunashard_catalog.move m JOIN lunashard_catalog.job j ON j.id = m.job WHERE m.state = 'done']], nil, deadline)).rows
  for _, row in ipairs(moves) do
    pauses[#pauses + 1] = not row.offline and row.s or nil -- closed for as long as it takes is no pause
  end
  local owners = {}
  for key = 1, run.options.keys do
    owners[key] = cluster.manager:get_shard_for_write(key, { table = "registers" }).shard_id
  end
  cluster:close()
  return { buckets = buckets, owner_of = function(key) return owners[tonumber(key)] end }, pauses, #moves
end

return moving
