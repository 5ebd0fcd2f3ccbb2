--- COPY into several shards at once, committed together as far as that can be.
-- A job has one load for each shard that gets rows; each is a task with a connection of its own
-- inside a transaction. No load commits before all have sent everything without complaint.
-- @module lunashard.router.copy_load

local attempt = require("lunashard.router.attempt")
local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local lease_of_map = require("lunashard.catalog.lease")
local scatter = require("lunashard.router.scatter")
local task = require("lunashard.task")

local copy_load = {}

local MAX_QUEUED = 2 -- buffers that may wait for a shard that is slow

-- ---- one shard's load: a task ----------------------------------------------------

local Load = {}
Load.__index = Load

-- BEGIN, and the guard.
function Load:begin(lease, timing)
  local ok, err = lease:execute("BEGIN", nil, timing)
  if ok and type(self.under) == "table" then
    ok, err = lease:execute(self.under.sql, self.under.params, timing)
  end
  self.begun = ok and true
  self.changed:notify()
  return ok, err
end

-- Where all loads have begun before there were rows, those that get none do nothing.
function Load:start(lease)
  while self.prepared and not self.queue[1] and not self.finished do
    self.changed:wait()
  end
  if self.prepared and not self.queue[1] then
    self.idle = true
    return nil
  elseif type(self.under) == "number" and self.under ~= guarding.EXEMPT
    and not lease_of_map.holds(self.router.manager, self.under) then
    return guarding.changed()
  end
  return lease:copy_in(self.sql, { deadline = self.deadline, started = self.started })
end

-- Everything that happens on the connection happens in one task, to which the lease belongs.
function Load:work()
  local lease, err = attempt.lease(self.router, self.member, {
    writes = true,
    generation = type(self.under) == "number" and self.under or guarding.EXEMPT,
  }, self.deadline or self.acquire_deadline)
  if not lease then
    return nil, err
  end
  local timing = { deadline = self.deadline }
  local ok
  ok, err = self:begin(lease, timing)
  local copy
  if ok then
    copy, err = self:start(lease)
  end
  while copy do
    local bytes = table.remove(self.queue, 1)
    if bytes then
      self.changed:notify()
      ok, err = copy:write(bytes)
      if not ok then
        break
      end
    elseif self.finished then
      break
    else
      self.changed:wait(self.deadline)
      if self.deadline and task.now() >= self.deadline then
        err = errors.new("TIMEOUT", {
          message = "timed out while waiting for the caller's rows",
          endpoint = lease.endpoint,
          elapsed = task.now() - self.started,
        })
        break
      end
    end
  end
  if copy and not err then
    local result
    result, err = copy:finish()
    self.rows = result and result.row_count
  elseif self.idle then
    self.rows = 0
  end
  if err then
    lease:release()
    return nil, self:at_row(err)
  end
  return self:commit(lease, timing)
end

-- The server counts the rows that it was sent: say which of all rows it means.
function Load:at_row(err)
  local line
  for found in (err.context or ""):gmatch("COPY [^\n]-, line (%d+)") do
    line = tonumber(found)
  end
  local row = line and self.row_of(self.shard_id, line)
  if not row then
    return err
  end
  local named = errors.wrap(err, { index = row })
  named.message = ("row %d: %s"):format(row, err.message)
  return named
end

-- Wait for the others, then commit.
function Load:commit(lease, timing)
  self.loaded = true
  self.changed:notify()
  while not self.may_commit do
    self.changed:wait()
  end
  self.commit_sent = true
  local result, err = lease:execute("COMMIT", nil, timing)
  lease:release()
  if result and result.command == "COMMIT" then
    return true
  elseif err and err.code ~= "SQL" then
    err = errors.new("UNKNOWN_OUTCOME", {
      message = "COMMIT was not confirmed; the rows may have been committed",
      endpoint = err.endpoint,
      cause = err,
    })
  end
  return nil, err or errors.new("SQL", { message = "the server rolled the load back", sqlstate = "25P02" })
end

local function start(job, member, under)
  local load_ = setmetatable({
    under = under or guarding.EXEMPT,
    prepared = under ~= nil,
    shard_id = member.shard_id,
    router = job.router,
    member = member,
    started = job.started,
    sql = job.sql,
    queue = {},
    changed = job.changed,
    row_of = job.row_of,
    deadline = job.deadline,
    acquire_deadline = job.router:deadline({}),
  }, Load)
  load_.task = task.spawn(function()
    local ok, done, err = pcall(load_.work, load_)
    if not ok then
      done, err = nil, errors.wrap(done, { code = errors.is(done) and done.code or "INVALID" })
    end
    load_.committed, load_.ended = done, true
    if err then
      load_.err = errors.wrap(err, { shard_id = load_.shard_id })
      load_.err.elapsed = task.now() - load_.started
    end
    job.changed:notify()
  end):watch()
  return load_
end

-- ---- the whole load -----------------------------------------------------------------

local Job = {}
Job.__index = Job

--- A job without loads.
-- @tparam Router router
-- @string sql the COPY command
-- @tparam func row_of from a shard_id and the how manieth row there, to the row's number
-- @tparam ?number deadline for all of it
-- @treturn Job
function copy_load.new(router, sql, row_of, deadline)
  return setmetatable({
    router = router,
    manager = router.manager,
    sql = sql,
    row_of = row_of,
    deadline = deadline,
    started = task.now(),
    loads = {},
    changed = task.event(),
  }, Job)
end

--- Begin on shards before any rows are there, so that nothing moves between them until the end. Yields.
-- @tparam {table,...} members
-- @tparam func under from a member to what its load relies on, see `lunashard.router.guarding`
-- @treturn[1] boolean true
-- @treturn[2] nil, all were ended
-- @treturn[2] lunashard.error
function Job:prepare(members, under)
  for _, member in ipairs(members) do
    self.loads[member.shard_id] = start(self, member, under(member))
  end
  local ok, begun = pcall(self.wait_for, self, "begun")
  if ok and begun then
    return true
  end
  local first = ok and self:failure().err -- the others are about to fail for being cancelled
  self:abort()
  if not ok then
    error(begun, 0)
  end
  return nil, first
end

--- Has the load begun on all of these?
-- @tparam ?{string,...} shard_ids
-- @treturn boolean
function Job:has_begun(shard_ids)
  for _, shard_id in ipairs(shard_ids or {}) do
    if not self.loads[shard_id] then
      return false
    end
  end
  return true
end

function Job:load_of(shard_id)
  local found = self.loads[shard_id]
  if not found then
    found = start(self, self.manager.by_id[shard_id])
    self.loads[shard_id] = found
  end
  return found
end

--- A load that has failed.
-- @treturn ?table
function Job:failure()
  for _, load_ in pairs(self.loads) do
    if load_.err then
      return load_
    end
  end
end

--- Has this shard nothing to do? Starts its load, if need be.
-- @string shard_id
-- @treturn boolean
function Job:is_idle(shard_id)
  return self:load_of(shard_id).queue[1] == nil
end

--- Hand rows to a shard. Yields while the shard has enough to do.
-- @string shard_id
-- @tparam string|buffer bytes rows as COPY takes them
-- @treturn boolean false once any shard has failed
function Job:push(shard_id, bytes)
  local load_ = self:load_of(shard_id)
  while #load_.queue >= MAX_QUEUED and not self:failure() do
    self.changed:wait(self.deadline)
  end
  if self:failure() then
    return false
  end
  load_.queue[#load_.queue + 1] = bytes
  self.changed:notify()
  return true
end

-- Wait until every load has come to `state`, or one has failed.
function Job:wait_for(state)
  for _, load_ in pairs(self.loads) do
    while not load_[state] and not self:failure() do
      self.changed:wait()
    end
  end
  return not self:failure()
end

function Job:each(fn)
  for _, member in ipairs(self.manager.members) do
    local load_ = self.loads[member.shard_id]
    if load_ then
      fn(load_)
    end
  end
end

function Job:cancel()
  self:each(function(load_)
    load_.task:cancel()
  end)
end

--- End what has not committed; connections go back with their tasks, which rolls back. Yields.
function Job:abort()
  self:cancel()
  self:each(function(load_)
    load_.task:join()
  end)
end

function Job:outcome()
  local committed, failed, rows_by_shard, n = {}, {}, {}, 0
  self:each(function(load_)
    n = n + (load_.idle and 0 or 1)
    if load_.committed and load_.idle then -- it had nothing to do
      return
    elseif load_.committed then
      committed[#committed + 1] = ("%s (%d rows)"):format(load_.shard_id, load_.rows)
      rows_by_shard[load_.shard_id] = load_.rows
    elseif load_.err and (load_.err.code ~= "CANCELED" or load_.commit_sent) then
      failed[#failed + 1] = { shard_id = load_.shard_id, error = load_.err }
    end
  end)
  return committed, failed, rows_by_shard, n
end

function Job:failed()
  local committed, failed, rows_by_shard, n = self:outcome()
  return nil, scatter.failure(failed, n, {
    elapsed = task.now() - self.started,
    message = #committed == 0 and "no rows were committed on any shard"
      or "rows were committed on " .. table.concat(committed, ", ") .. " but not elsewhere",
    committed = rows_by_shard,
  })
end

--- No more rows: wait for all loads, then commit them. Yields.
-- @treturn[1] table `success`, `rows_by_shard`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` with `failed` and `committed` (shard_id -> rows)
function Job:finish()
  self:each(function(load_)
    load_.finished = true
  end)
  self.changed:notify()
  local ok, loaded = pcall(self.wait_for, self, "loaded")
  if not ok then -- our task is cancelled: none of the loads may wait for it any longer
    self:cancel()
    error(loaded, 0)
  elseif not loaded then
    self:abort()
    return self:failed()
  end
  self:each(function(load_)
    load_.may_commit = true
  end)
  self.changed:notify()
  -- Every COMMIT is let come to its end: what was done where must be known.
  self:each(function(load_)
    load_.task:join()
  end)
  if self:failure() then
    return self:failed()
  end
  local _, _, rows_by_shard = self:outcome()
  return { success = true, rows_by_shard = rows_by_shard }
end

return copy_load
