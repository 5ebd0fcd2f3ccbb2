--- Bulk unloading: rows of all shards as COPY writes them, into a file or a function.
-- Every shard is read as fast as the sink takes what it gives; what is not yet wanted waits on the servers.
-- @module lunashard.router.copy_out

local attempt = require("lunashard.router.attempt")
local copy_sink = require("lunashard.router.copy_sink")
local cursors = require("lunashard.router.cursors")
local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local lease_of_map = require("lunashard.catalog.lease")
local options = require("lunashard.options")
local parallel = require("lunashard.parallel")
local reads = require("lunashard.router.reads")
local reference = require("lunashard.router.reference")
local routing = require("lunashard.router.routing")
local scatter = require("lunashard.router.scatter")
local statement = require("lunashard.router.statement")
local task = require("lunashard.task")

local copy_out = { methods = {} }

local OPTIONS = options.known(routing.OPTIONS, reads.OPTIONS, {
  columns = "table",
  format = "string",
  header = "boolean",
  in_order = "boolean",
  max_parallel_shards = "count",
  overwrite = "boolean",
  timeout = "seconds",
})
local FORMATS = { text = "text", csv = "csv" }
local QUERIES = { SELECT = true, VALUES = true, TABLE = true, WITH = true }

-- ---- the command -----------------------------------------------------------------------

local function is_query(source)
  local kind, word = statement.classify(source)
  return kind == "read" and QUERIES[word] and source:find("[%s(]") ~= nil
end

local function quoted_columns(columns)
  if not options.is_list(columns) or #columns == 0 then
    error("copy_out: option columns: expected a list of at least one name", 4)
  end
  local list = {}
  for i, column in ipairs(columns) do
    if type(column) ~= "string" or column == "" then
      error("copy_out: option columns: expected names, got " .. options.describe(column), 4)
    end
    list[i] = statement.quote_ident(column)
  end
  return (" (%s)"):format(table.concat(list, ", "))
end

-- What stands between COPY and TO.
local function subject(source, columns)
  if type(source) ~= "string" then
    error("copy_out: expected a table's name or a query, got " .. options.describe(source), 3)
  elseif not is_query(source) then
    local quoted = not source:find('^[^"]*%s') and statement.quote_table(source) -- a name with spaces is quoted
    if not quoted then
      error("copy_out: expected a table's name or a query that only reads, got " .. options.describe(source), 3)
    end
    return quoted .. (columns and quoted_columns(columns) or "")
  elseif columns then
    error("copy_out: option columns goes with a table; a query names its own", 3)
  end
  return ("(%s\n)"):format((source:gsub("[%s;]+$", ""))) -- a comment at its end must not hide the bracket
end

local function check_format(format)
  if format ~= nil and not FORMATS[format] then
    local near = errors.nearest(format, FORMATS)
    error(('copy_out: option format: expected "text" or "csv", got %s%s'):format(options.describe(format),
      near and ("; did you mean %q?"):format(near) or ""), 3)
  end
end

local function command(what, opts, header)
  return ("COPY %s TO STDOUT (FORMAT %s%s)"):format(what, opts.format or "text", header and ", HEADER" or "")
end

-- ---- the shards ------------------------------------------------------------------------

-- And true when it is a reference table's.
local function members_for(router, source, opts)
  local manager = router.manager
  if opts.shard_id or opts.routing_key ~= nil then
    local member, err = routing.resolve(manager, opts)
    if not member then
      return nil, err
    end
    return { member }
  elseif routing.is_reference(manager, opts.table or source) then -- the same rows everywhere
    return { reference.any(router) }, true
  end
  return manager.members
end

local Job = {}
Job.__index = Job

-- One at a time, for a function may wait.
function Job:write(bytes, shard_id)
  while self.writing do
    self.changed:wait()
  end
  self.writing = true
  local ok, done, err = pcall(self.sink.write, self.sink, bytes, shard_id)
  self.writing, self.begun = false, true
  self.changed:notify()
  if not ok then
    error(done, 0)
  end
  self.sink_err = self.sink_err or err
  return done, err
end

function Job:read(copy, shard_id)
  while true do
    local bytes, err = copy:read()
    if not bytes then
      return nil, err
    elseif bytes == "" then
      self.rows_by_shard[shard_id] = copy.row_count
      return true
    end
    local ok
    ok, err = self:write(bytes, shard_id)
    if not ok then
      copy:close()
      return nil, err
    end
  end
end

-- The header comes with the first shard's rows: the others wait for it.
function Job:wait_for_header()
  while self.header and not self.begun do
    self.changed:wait()
  end
end

-- A connection with a snapshot for each shard: all of them before a row is read, so that all show the same map.
function Job:prepare(members, under, generation)
  local leases, manager = {}, self.router.manager
  local function pin(member)
    local guard = under(member)
    self.generation = generation
    local lease, endpoint = attempt.lease(self.router, member, self, self.deadline or self.acquire_deadline)
    if not lease then
      return nil, endpoint
    end
    leases[member] = { lease = lease, endpoint = endpoint }
    return cursors.begin(lease, type(guard) == "table" and guard or nil, self.deadline or self.acquire_deadline)
  end
  local err
  for _, member in ipairs(members) do
    local ok
    ok, err = pin(member)
    if not ok then
      break
    end
  end
  if not err and generation > 0 and not lease_of_map.holds(manager, generation) then
    err = select(2, guarding.changed())
  end
  if err then
    for _, one in pairs(leases) do
      one.lease:release()
    end
    return nil, err
  end
  self.leases = leases
  return true
end

function Job:take_lease(member)
  local ready = self.leases and self.leases[member]
  if ready then
    ready.lease:attach()
    return ready.lease, ready.endpoint
  end
  return attempt.lease(self.router, member, self, self.deadline or self.acquire_deadline)
end

function Job:one_shard(member, number)
  local lease, endpoint = self:take_lease(member)
  if not lease then
    return nil, endpoint
  end
  local header = self.header and number == 1
  if not header then
    self:wait_for_header()
  end
  local done
  local copy, err = lease:copy_out(header and self.with_header or self.command,
    { deadline = self.deadline, started = self.started })
  if copy then
    local ok
    ok, done, err = pcall(self.read, self, copy, member.shard_id)
    if not ok then
      copy:close()
      lease:release()
      error(done, 0)
    end
  end
  lease:release()
  if header then
    self.begun = true -- also without a row, and without a header
    self.changed:notify()
  end
  if err then
    err = errors.wrap(err, { shard_id = member.shard_id, endpoint = endpoint.name })
    err.elapsed = task.now() - self.started
  end
  return done, err
end

local function run(job, members, opts)
  local outcome = parallel.each(members, function(member, i)
    return job:one_shard(member, i)
  end, { limit = opts.in_order and 1 or opts.max_parallel_shards, cancel_on_error = true })
  local failed = {}
  for i, member in ipairs(members) do
    local err = outcome.errors[i]
    if err then
      failed[#failed + 1] = { shard_id = member.shard_id, error = err }
    end
  end
  return failed
end

-- What the shards' failure is to the caller; what the sink failed with is an error of its own.
local function failure(job, failed, total)
  local gone = job.sink:abort()
  if job.sink_err then
    return nil, errors.wrap(job.sink_err, { written = not gone and job.sink.bytes or nil })
  end
  return nil, scatter.failure(failed, total, {
    elapsed = task.now() - job.started,
    message = gone and "nothing was written" or ("%d bytes were written"):format(job.sink.bytes),
    written = not gone and job.sink.bytes or nil,
  })
end

-- The members, each with a connection that has its snapshot.
local function pin_all(job, source, opts)
  local router, members = job.router, nil
  local manager = router.manager
  local ok, err = guarding.through(manager, job.deadline or job.acquire_deadline, function(guarded)
    local generation = guarded and guarding.EXEMPT or manager.generation
    local problem
    members, problem = members_for(router, source, opts)
    if not members then
      return nil, problem
    end
    local done
    done, problem = job:prepare(members, guarding.under_all(manager, guarded, members), generation)
    job.wishes = nil -- what a standby has not heard of yet, the primary has
    return done, problem
  end)
  return ok and members, err
end

--- Unload a table or a query from all shards, by COPY. Yields.
-- Memory stays flat. Each shard is read in a snapshot of its own. A file gets its name when all rows are in it; on
-- failure nothing is left of it.
-- @string source a table, which may carry a schema (`app.users`), or a query (SELECT, VALUES, TABLE, WITH) that only
--   reads; COPY takes no parameters
-- @tparam func|file|string sink a function of bytes (whole rows, some 64 KiB of them) and shard_id, which has
--   failed when it raises or returns `nil, err` or false, and may wait; an open file, which stays open; or the name
--   of a new file
-- @tparam[opt] table opts `format`: `text` [default] or `csv`; `header`: the columns' names first, once; `columns`
--   of a table [all]; `shard_id` or `routing_key` (and `table`, whose key it is): one shard alone; `in_order`: one
--   shard after the other, as configured [all at once, their rows mingled]; `max_parallel_shards`; `overwrite`: the
--   file may exist; `read_only`: prefer replicas, with `after` and `max_replica_lag` as for `execute`; `timeout` for
--   everything [none]. A reference table is read from
--   one shard
-- @treturn[1] table `row_count`, `rows_by_shard` (shard_id -> rows), `bytes`, `duration`, `success`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` (with `failed`), `PLUGIN_FAILED` (the function failed), `INVALID` (the
--   file exists or cannot be written), `NO_SHARD`, `NULL_KEY`, `CLOSED`; with `written` when bytes were handed over
--   that cannot be taken back
function copy_out.methods:copy_out(source, sink, opts)
  opts = options.check(opts, OPTIONS, "copy_out")
  check_format(opts.format)
  reads.check(opts, "copy_out")
  local what = subject(source, opts.columns)
  local problem = copy_sink.problem(sink)
  if problem then
    error("copy_out: sink: " .. problem, 2)
  elseif opts.max_parallel_shards == 0 then
    error("copy_out: option max_parallel_shards: expected 1 or more, got 0", 2)
  end
  local ok, err = self.manager:check_open()
  if not ok then
    return nil, err
  end
  local members, is_reference = members_for(self, source, opts)
  if not members then
    return nil, is_reference
  end
  local opened
  opened, err = copy_sink.open(sink, opts.overwrite)
  if not opened then
    return nil, err
  end
  local started = task.now()
  local job = setmetatable({
    sink = opened,
    command = command(what, opts, false),
    with_header = command(what, opts, true),
    header = opts.header,
    wishes = reads.wishes(opts),
    router = self,
    started = started,
    deadline = opts.timeout and started + opts.timeout,
    acquire_deadline = self:deadline({}),
    rows_by_shard = {},
    changed = task.event(),
  }, Job)
  if self.manager.catalog and not is_reference then
    members, err = pin_all(job, source, opts)
    if not members then
      opened:abort()
      return nil, err
    end
  end
  local failed
  ok, failed = pcall(run, job, members, opts)
  if not ok then
    opened:abort()
    error(failed, 0)
  elseif failed[1] then
    return failure(job, failed, #members)
  end
  ok, job.sink_err = opened:finish()
  if not ok then
    return failure(job, failed, #members)
  end
  local total = 0
  for _, n in pairs(job.rows_by_shard) do
    total = total + n
  end
  return { success = true, row_count = total, rows_by_shard = job.rows_by_shard, bytes = opened.bytes,
    duration = task.now() - started }
end

return copy_out
