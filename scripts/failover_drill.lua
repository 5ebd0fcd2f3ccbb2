#!/usr/bin/env -S lunashard run
-- A drill: writes go to a shard while a command of yours breaks its primary. How long were writes refused, who took over,
-- and was every answer true: is each acknowledged row there, and none that was refused?

local lunashard = require("lunashard")
local process = require("lunashard.process")
local script = require("lunashard.script")

local PAUSE = 0.02 -- seconds between two writes of a task
local CALM = 1 -- seconds of writes without a failure that end the search for one
local PATIENCE = 2 -- seconds that a write may take

local function seconds(text)
  local value = tonumber(text)
  if not value or value <= 0 then
    return nil, ("expected a number of seconds, got %q"):format(text)
  end
  return value
end

local function whole(text)
  local value = tonumber(text)
  if not value or value < 1 or value > 64 or value % 1 ~= 0 then
    return nil, ("expected a whole number from 1 to 64, got %q"):format(text)
  end
  return value
end

local Drill = {}
Drill.__index = Drill

function Drill:say(format, ...)
  self.job:say("%5.1f s  %s", lunashard.now() - self.started, format:format(...))
end

function Drill:write_one(id)
  local result, err = self.job.plain:execute("INSERT INTO " .. self.table .. " VALUES ($1)", { id },
    { shard_id = self.shard_id, timeout = PATIENCE, retries = 0 })
  local now = lunashard.now()
  if result then
    table.insert(self.acknowledged, id)
    self.longest_gap = math.max(self.longest_gap, now - self.last_ack)
    self.last_ack = now
    return
  end
  table.insert(err.code == "UNKNOWN_OUTCOME" and self.unknown or self.refused, id)
  self.codes[err.code] = (self.codes[err.code] or 0) + 1
  self.last_failure = now
end

function Drill:write()
  while self.running do
    self.next_id = self.next_id + 1
    self:write_one(self.next_id)
    lunashard.sleep(PAUSE)
  end
end

function Drill:read()
  while self.running do
    local result = self.job.plain:execute("SELECT 1", nil, { shard_id = self.shard_id, timeout = PATIENCE, read_only = true })
    self.reads, self.failed_reads = self.reads + 1, self.failed_reads + (result and 0 or 1)
    lunashard.sleep(PAUSE)
  end
end

function Drill:command(what, command)
  self:say("%s: %s", what, command)
  local result, err = process.run({ argv = { "/bin/sh", "-c", command }, timeout = self.job.args.timeout, stdout = "capture" })
  if not result then
    return nil, err
  elseif result.code ~= 0 then
    return nil, lunashard.errors.new("INVALID", { exit_code = 1, message = ("--%s ended with %s: %s"):format(what,
      result.code and "exit code " .. result.code or "signal " .. tostring(result.signal),
      (result.stderr .. result.stdout):gsub("%s+$", ""):match("[^\n]*$")) })
  end
  return true
end

-- Writes are acknowledged again, and none has failed for a while.
function Drill:wait_for_writes()
  local stop = lunashard.now() + self.job.args.timeout
  while lunashard.now() < stop do
    local now = lunashard.now()
    if self.last_ack > self.broken_at and self.last_ack > self.last_failure and now - math.max(self.last_failure,
      self.broken_at) >= CALM then
      return true
    end
    lunashard.sleep(0.05)
  end
  return nil, lunashard.errors.new("TIMEOUT", { message = ("no write to %s was acknowledged within %g s of the break"):format(
    self.shard_id, self.job.args.timeout) })
end

function Drill:wait_for_health()
  local stop = lunashard.now() + self.job.args.timeout
  while true do
    local missing
    for _, endpoint in ipairs(self.member.endpoints) do
      local well = endpoint.health.is_healthy and not endpoint.fenced and not self.member.fenced[endpoint]
      missing = missing or not well and endpoint.name or nil
    end
    if not missing then
      return true
    elseif lunashard.now() >= stop then
      return nil, lunashard.errors.new("TIMEOUT", { message = ("%s is not well %g s after the repair"):format(missing,
        self.job.args.timeout) })
    end
    lunashard.sleep(0.1)
  end
end

-- How many of these rows are there?
function Drill:count(ids)
  if #ids == 0 then
    return 0
  end
  return assert(self.job.plain:execute("SELECT count(*) AS n FROM " .. self.table .. " WHERE id = ANY ($1)", { ids },
    { shard_id = self.shard_id })).rows[1].n
end

function Drill:run()
  local args = self.job.args
  self:say("%d tasks write to %s; its primary is %s", args.writers, self.shard_id, self.member.primary.name)
  lunashard.sleep(args.before)
  self.longest_gap, self.broken_at = 0, lunashard.now()
  local ok, err = self:command("break", args["break"])
  if ok then
    ok, err = self:wait_for_writes()
  end
  if ok then
    self:say("writes are acknowledged by %s; the longest gap was %.2f s", self.member.primary.name, self.longest_gap)
  end
  local after = self.member.primary.name
  if args.repair then -- also when the shard did not come back by itself: it shall not stay broken
    local mended, problem = self:command("repair", args.repair)
    if mended then
      mended, problem = self:wait_for_health()
    end
    if ok and not mended then
      ok, err = nil, problem
    end
  end
  return ok, err, after
end

function Drill:verify()
  local missing = #self.acknowledged - self:count(self.acknowledged)
  local wrong = self:count(self.refused)
  return missing, wrong
end

local function new_drill(job)
  local member = assert(job.manager:member(job.args.shard))
  local now = lunashard.now()
  return setmetatable({
    job = job, shard_id = member.shard_id, member = member, started = now, running = true, next_id = 0,
    table = ("lunashard_drill_%d"):format(require("lunashard.core.system").getpid()),
    acknowledged = {}, refused = {}, unknown = {}, codes = {}, reads = 0, failed_reads = 0,
    last_ack = now, last_failure = 0, longest_gap = 0, broken_at = math.huge,
  }, Drill)
end

local function start(drill, n)
  local tasks = { lunashard.spawn(drill.read, drill) }
  for _ = 1, n do
    tasks[#tasks + 1] = lunashard.spawn(drill.write, drill)
  end
  return tasks
end

local function tell(job, drill, before, after)
  local missing, wrong = drill:verify()
  local rows = {
    { what = "primary before", value = before }, { what = "primary after", value = after },
    { what = "longest gap between writes, s", value = math.floor(drill.longest_gap * 1000 + 0.5) / 1000 },
    { what = "writes acknowledged", value = #drill.acknowledged }, { what = "and lost", value = missing },
    { what = "writes refused", value = #drill.refused }, { what = "but there", value = wrong },
    { what = "writes of unknown outcome", value = #drill.unknown },
    { what = "reads", value = drill.reads }, { what = "reads that failed", value = drill.failed_reads },
  }
  job.result.codes = drill.codes
  local ok, err = job:table("drill", { "what", "value" }, rows)
  if ok and missing + wrong > 0 then
    return nil, lunashard.errors.new("INVALID", { exit_code = 1, message = ("not every answer was true: %d acknowledged "
      .. "rows are lost, %d refused ones are there"):format(missing, wrong) })
  end
  return ok, err
end

return script.main({
  summary = "break a shard's primary with a command of yours while writes go there, and see what happens",
  example = "lunashard run -c cluster.lua scripts/failover_drill.lua --shard shard1 --yes sandbox --break 'lunashard sandbox "
    .. "kill shard1 && lunashard sandbox promote shard1' --repair 'lunashard sandbox start && lunashard sandbox rejoin shard1'",
  writes = "break the primary of a shard",
  severe = true,
  lock = "failover_drill",
  arguments = function(parser)
    parser:option("--shard", "which"):count(1)
    parser:option("--break", "the command that breaks its primary"):count(1)
    parser:option("--repair", "the command that brings it back; then all its servers have to be well again")
    parser:option("--writers", "tasks that write", "4"):convert(whole)
    parser:option("--before", "seconds of writes before the break", "1"):convert(seconds)
    parser:option("--timeout", "seconds that commands, the fail-over and the return may take, each", "60"):convert(seconds)
  end,
  run = function(job)
    local drill = new_drill(job)
    local before = drill.member.primary.name
    if job.dry_run then
      for i, step in ipairs({ "make the table " .. drill.table .. " on " .. drill.shard_id,
        ("let %d tasks write there for %g s"):format(job.args.writers, job.args.before), job.args["break"],
        "wait until writes are acknowledged again", job.args.repair or "repair nothing",
        "look for every row, drop the table" }) do
        job:say("%d. %s", i, step)
      end
      job.summary:add(drill.shard_id, "ok")
      return true
    end
    assert(job.plain:execute_on_all_shards(("CREATE TABLE %s (id int8 PRIMARY KEY)"):format(drill.table),
      { shard_ids = { drill.shard_id } }))
    local tasks = start(drill, job.args.writers)
    local ran, ok, err, after = pcall(drill.run, drill)
    drill.running = false
    for _, one in ipairs(tasks) do
      one:join(PATIENCE + 5)
    end
    if ran and ok then
      ok, err = tell(job, drill, before, after)
    end
    if not ran then
      job:next("look at the rows, then: lunashard sql -c %s --shard %s 'DROP TABLE %s'", job.cluster.path, drill.shard_id,
        drill.table)
      error(ok, 0) -- interrupted
    end
    local dropped, problem = job.plain:execute_on_all_shards("DROP TABLE IF EXISTS " .. drill.table,
      { shard_ids = { drill.shard_id } })
    if not dropped then
      job:say("the table %s could not be dropped: %s", drill.table, tostring(problem))
    end
    if not ok then
      return nil, err
    end
    job.summary:add(drill.shard_id, "changed", { primary = after })
    return true
  end,
})
