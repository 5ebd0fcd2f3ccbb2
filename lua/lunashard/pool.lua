--- The connections to one endpoint.
-- Everything here that talks to the server yields, and returns `nil, err` when it fails; errors
-- carry `shard_id` and `endpoint`.
-- @module lunashard.pool

local core = require("lunashard.core.pool")
local core_rows = require("lunashard.core.rows")
local core_task = require("lunashard.core.task")
local checks = require("lunashard.options")
local errors = require("lunashard.errors")
local parsing = require("lunashard.sql")
local task = require("lunashard.task")
local values = require("lunashard.values")

local pool = {}

local now = task.now
local CANCELED = core_task.CANCELED

-- A statement is looked at when it has been run so often: what runs once or twice pays nothing.
local LOOK_AFTER = 3
local LOOK_TIMEOUT = 2 -- seconds
local MAX_TEXTS = 2048

-- Other commands may change what statements do.
local HARMLESS = {}
for _, command in ipairs({ "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT",
  "RELEASE", "START TRANSACTION", "SET", "RESET", "SHOW", "COPY", "EXPLAIN", "FETCH", "LISTEN", "NOTIFY", "LOCK TABLE",
  "TRUNCATE TABLE", "VACUUM", "ANALYZE", "PREPARE", "DEALLOCATE", "DECLARE CURSOR", "CLOSE CURSOR" }) do
  HARMLESS[command] = true
end

-- Options that are libpq's own, passed through as they are.
local PASSED = {
  "user", "password", "passfile", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslcrldir",
  "sslsni", "ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding", "gssencmode",
  "application_name", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
  "tcp_user_timeout", "target_session_attrs",
}

-- Start-up options rather than SET: RESET ALL comes back to these, and no role setting beats them.
local PINNED = "-c DateStyle=ISO -c IntervalStyle=postgres -c bytea_output=hex -c extra_float_digits=1"
  .. " -c standard_conforming_strings=on" -- so that our parsers and the server's see the same statement

local TYPES = {
  shard_id = "string", host = "string", port = "count", database = "string", max_size = "count", min_size = "count",
  max_waiters = "count", connection_timeout = "seconds", idle_timeout = "number", max_lifetime = "number",
  statement_cache = "count", max_result_bytes = "count", slow_statement = "number", pipeline = "boolean",
  read_batches = "boolean",
}
for _, name in ipairs(PASSED) do
  TYPES[name] = "any" -- numbers and strings alike; libpq checks them
end

local DEFAULTS = {
  host = "localhost", port = 5432, max_size = 20, min_size = 0, max_waiters = 10000, connection_timeout = 5,
  idle_timeout = 300, max_lifetime = 3600, statement_cache = 256, max_result_bytes = 256 * 2 ^ 20,
  slow_statement = 0.05, pipeline = true, read_batches = true,
}

-- Filled in at the first use: methods of the core's userdata, made callable.
local raw = {}

local function bind_methods(handle, names)
  for _, name in ipairs(names) do
    raw[name] = task.waits(handle[name])
  end
end

local Pool = {}
Pool.__index = Pool
local Lease = {}
Lease.__index = Lease
local Cursor = {}
Cursor.__index = Cursor
local Copy = {}
Copy.__index = Copy
local CopyOut = {}
CopyOut.__index = CopyOut

local function check(options)
  checks.check(options, TYPES, "pool.new")
  local function refuse(name, expected)
    local value = options[name]
    if value ~= nil then
      error(("pool.new: option %s: expected %s, got %s"):format(name, expected, checks.describe(value)), 4)
    end
  end
  if options.port and (options.port < 1 or options.port > 65535) then
    refuse("port", "an integer from 1 to 65535")
  elseif options.max_size == 0 then
    refuse("max_size", "1 or more")
  elseif (options.min_size or DEFAULTS.min_size) > (options.max_size or DEFAULTS.max_size) then
    refuse("min_size", "at most max_size")
  end
end

-- What was concluded may be wrong: nothing is shared before it has been looked at anew.
local function doubt(self)
  for query, text in pairs(self.texts) do
    text:share("alone")
    self.met[query] = { text = text, uses = LOOK_AFTER - 1 }
  end
  self.texts = {}
end

--- Make a pool. Connects when it is used, or at once for `min_size`.
-- @tparam table options `shard_id host port database user password passfile`, libpq's `ssl...` and
--   `keepalives...` options, `max_size` [20] `min_size` [0] `max_waiters` [10000]
--   `connection_timeout` [5] `idle_timeout` [300] `max_lifetime` [3600] (seconds, 0 is for ever)
--   `statement_cache` [256] prepared statements a connection, `max_result_bytes` [256 MiB]; `pipeline` [true]
--   lets statements of different tasks share connections, `read_batches` [true] lets reads share their Sync,
--   `slow_statement` [0.05 s]: what takes longer gets a connection of its own
-- @treturn Pool
function pool.new(options)
  check(options)
  local function option(name)
    local value = options[name]
    if value == nil then
      return DEFAULTS[name]
    end
    return value
  end
  local host, port = option("host"), option("port")
  local conninfo = { port = ("%d"):format(port), client_encoding = "UTF8", options = PINNED }
  conninfo.dbname = options.database or options.user
  conninfo.fallback_application_name = "lunashard"
  for _, name in ipairs(PASSED) do
    local value = options[name]
    if value ~= nil then
      conninfo[name] = tostring(value)
    end
  end
  local endpoint = ("%s:%d"):format(host, port)
  local handle = assert(core.new({
    host = host,
    endpoint = endpoint,
    max_size = option("max_size"),
    min_size = option("min_size"),
    max_waiters = option("max_waiters"),
    connection_timeout = option("connection_timeout"),
    idle_timeout = option("idle_timeout"),
    max_lifetime = option("max_lifetime"),
    statement_cache = option("statement_cache"),
    slow_statement = option("slow_statement"),
    pipeline = option("pipeline"),
    read_batches = option("read_batches"),
    conninfo = conninfo,
  }))
  if not raw.pool_execute then
    raw.pool_execute, raw.pool_acquire = handle.execute, task.waits(handle.acquire)
  end
  local self = setmetatable({
    handle = handle,
    shard_id = options.shard_id,
    endpoint = endpoint,
    max_result_bytes = option("max_result_bytes"),
    pipeline = option("pipeline"),
    texts = {}, -- by SQL: those that have been looked at
    met = {}, -- by SQL: `{ text, uses }` of those that have not
    n_texts = 0,
    looking = 0, -- tasks that find out about statements
  }, Pool)
  self.catalog = parsing.catalog(function(query, params)
    local result, err = self:execute(query, params, { deadline = now() + LOOK_TIMEOUT, read_only = true,
      pipeline = false })
    return result and result.rows, err
  end, { changed = function()
    doubt(self)
  end })
  return self
end

local function fail(owner, err, started)
  err.shard_id = owner.shard_id
  err.endpoint = owner.endpoint
  err.elapsed = started and now() - started
  return nil, err
end

-- Requests are used again and again. One whose task was cancelled does not come back, and is collected.
local free, n_free, MAX_FREE = {}, 0, 1024

local function take_request()
  if n_free == 0 then
    return core.request()
  end
  local request = free[n_free]
  free[n_free], n_free = nil, n_free - 1
  return request
end

local ANY_TEXT = core.text("") -- for statements without a text of their own

local request_answer

-- What a request received, as the public result.
local function answer(owner, request, text, started, decode_json)
  request_answer = request_answer or request.answer
  local rows, columns, column_types, row_count, command, duration = request_answer(request, text)
  if n_free < MAX_FREE then
    n_free = n_free + 1
    free[n_free] = request
  end
  if not rows then
    return fail(owner, columns, started)
  end
  local result = {
    rows = rows,
    columns = columns,
    column_types = column_types,
    row_count = row_count,
    command = command,
    duration = duration,
    success = true,
    shard_id = owner.shard_id,
    endpoint = owner.endpoint,
  }
  if decode_json then
    local err
    result, err = values.decode_json(result)
    if not result then
      return fail(owner, err, started)
    end
  end
  return result
end

local NONE = {}

-- `task.waits` gives (request, ok) or (nil, err): the request says itself how it went.
local function settled(request, ok_or_err)
  return request, request == nil and ok_or_err or nil
end

-- What is known of SQL that has not been looked at.
local function meet(self, query)
  local known = self.met[query]
  if not known then
    if self.n_texts >= MAX_TEXTS then -- programs that write values into their SQL
      self.texts, self.met, self.n_texts = {}, {}, 0
    end
    known = { text = core.text(query), uses = 0 }
    self.met[query], self.n_texts = known, self.n_texts + 1
  end
  return known
end

local function judge(self, query, known)
  local class = parsing.sharing(query, self.catalog)
  if class and self.met[query] == known then
    known.text:share(class)
    self.met[query], self.texts[query] = nil, known.text
  end
end

local function refresh(self)
  self.catalog:refresh()
end

-- The look asks the server: in a task of its own, so that nobody's statement waits for it.
local function look(self, fn, ...)
  self.looking = self.looking + 1
  task.spawn(function(...)
    local ok, err = pcall(fn, self, ...)
    self.looking = self.looking - 1
    if not ok then
      error(err, 0)
    end
  end, ...)
end

-- After a success: is there something to look at?
local function consider(self, query, known, started)
  if known then
    known.uses = known.uses + 1
    if known.uses >= LOOK_AFTER and self.pipeline then
      known.uses = 0 -- should the look fail, so many more come before the next one
      look(self, judge, query, known)
    end
  elseif started >= self.catalog.expires and not self.catalog.busy then
    look(self, refresh)
  end
end

local function note_command(self, command)
  if not HARMLESS[command] then
    self.catalog:forget()
  end
end

--- Run a statement on any connection, in autocommit. Yields.
-- @string query SQL
-- @tparam ?table params
-- @tparam ?table opts `deadline` on the clock of `lunashard.now`, `read_only` (losing it midway
--   leaves no doubt), `simple` protocol, `decode_json`, `max_result_bytes`, `pipeline = false` (not on a
--   connection that others share)
-- @treturn[1] table `{ rows, columns, column_types, row_count, command, duration, endpoint,
--   shard_id, success = true }`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SQL TIMEOUT POOL_EXHAUSTED SHARD_DOWN AUTH UNKNOWN_OUTCOME
--   RESULT_TOO_LARGE INVALID CLOSED`
function Pool:execute(query, params, opts)
  opts = opts or NONE
  local started = now()
  local text, known = self.texts[query], nil
  if not text and not opts.simple then
    known = meet(self, query)
    text = known.text
  end
  local request, err = raw.pool_execute(self.handle, take_request(), text or query, params, started, opts.deadline,
    opts.read_only, opts.max_result_bytes or self.max_result_bytes, opts.pipeline == false)
  if request == CANCELED then
    task.raise_cancelled()
  elseif not request then
    return fail(self, err, started)
  end
  local result
  result, err = answer(self, request, text or ANY_TEXT, started, opts.decode_json)
  if not result then
    return nil, err
  end
  note_command(self, opts.simple and "several" or result.command)
  consider(self, query, known, started)
  return result
end

--- Wait for a connection of one's own. Yields. It is given back when the task ends, at the latest.
-- @tparam ?number deadline
-- @treturn[1] Lease
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Pool:acquire(deadline)
  local started = now()
  local handle, err = raw.pool_acquire(self.handle, deadline)
  if not handle then
    return fail(self, err, started)
  end
  local opened
  opened, err = handle:opened()
  if not opened then
    return fail(self, err, started)
  end
  if not raw.stream then
    bind_methods(handle, { "execute", "stream", "fetch", "copy_in", "copy_write", "copy_end", "copy_out",
      "copy_read", "execute_many" })
  end
  local _, pid = handle:transaction_status()
  return setmetatable({
    handle = handle,
    pool = self,
    shard_id = self.shard_id,
    endpoint = self.endpoint,
    max_result_bytes = self.max_result_bytes,
    backend_pid = pid,
  }, Lease)
end

--- What the pool is doing.
-- @treturn table `size used idle connecting waiting max_size min_size queries errors connects
--   connect_failures wait_time last_error`; `lanes` (connections that are shared now), `shared` (statements that
--   ran on these), `batched` (reads that ran in batches), `batches`, `reruns` (statements run again for
--   the sake of others on a shared connection); all zero once closed
function Pool:stats()
  return self.handle:stats() or {
    size = 0, used = 0, idle = 0, connecting = 0, waiting = 0, max_size = 0, min_size = 0, queries = 0, errors = 0,
    connects = 0, connect_failures = 0, wait_time = 0, lanes = 0, shared = 0, batched = 0, batches = 0, reruns = 0,
  }
end

--- Close every connection; what runs or waits ends with `CLOSED`.
function Pool:close()
  self.handle:close()
end

--- Ask the server who it is. Yields.
-- @tparam ?number deadline
-- @treturn[1] table `latency` in seconds, `in_recovery`, `server_version`, `server_encoding`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Pool:ping(deadline)
  local result, err = self:execute(
    "SELECT pg_is_in_recovery() AS in_recovery, current_setting('server_version') AS server_version, "
      .. "current_setting('server_encoding') AS server_encoding",
    nil, { deadline = deadline, read_only = true })
  if not result then
    return nil, err
  end
  local row = result.rows[1]
  row.latency = result.duration
  return row
end

--- Run a statement on this connection. Yields. As `Pool:execute`.
function Lease:execute(query, params, opts)
  opts = opts or NONE
  local text = not opts.simple and (self.pool.texts[query] or meet(self.pool, query).text) or nil
  local started = now()
  local request, err = raw.execute(self.handle, take_request(), text or query, params, started, opts.deadline,
    opts.read_only, opts.max_result_bytes or self.max_result_bytes)
  if not request then
    return fail(self, err, started)
  end
  local result
  result, err = answer(self, request, text or ANY_TEXT, started, opts.decode_json)
  if result then
    note_command(self.pool, opts.simple and "several" or result.command)
  end
  return result, err
end

-- Did the server say that more rows may come? Called with what `task.waits` gave.
local function more_rows(cursor, request, err)
  local more
  if request then
    more, err = request:take()
  end
  if more == nil then
    return fail(cursor.lease, err)
  end
  cursor.done = not more
  return true
end

-- What is sent together: little enough for the buffers on the way, enough to make round trips cheap.
local MANY_SETS, MANY_BYTES = 256, 131072

-- Put sets of parameters from number `from` on into a request; the number of the last one.
local function add_sets(request, sets, from)
  local to = math.min(from + MANY_SETS - 1, #sets)
  for i = from, to do
    local ok, bytes, err = pcall(request.add, request, sets[i])
    if not ok or not bytes then
      return nil, ok and err or errors.new("INVALID", { message = bytes }), i
    elseif bytes >= MANY_BYTES then
      return i
    end
  end
  return to
end

--- Run a statement once for each set of parameters, in order, many in one exchange. Yields.
-- For an open transaction: the first set that fails ends it, those behind it are passed over.
-- @string query SQL
-- @tparam {table,...} sets
-- @tparam ?table opts `deadline`, `decode_json`, `max_result_bytes` (of one result)
-- @treturn[1] {table,...} results, as from `execute`; `duration` is that of the exchange
-- @treturn[2] nil
-- @treturn[2] lunashard.error
-- @treturn[2] int the number of the set that failed
function Lease:execute_many(query, sets, opts)
  opts = opts or NONE
  local text = self.pool.texts[query] or meet(self.pool, query).text
  local results, done = {}, 0
  while done < #sets do
    local started, request = now(), core.request()
    local last, err, at = add_sets(request, sets, done + 1)
    if not last then
      fail(self, err, started)
      return nil, err, at
    end
    local sent
    sent, err = raw.execute_many(self.handle, request, text, started, opts.deadline,
      opts.max_result_bytes or self.max_result_bytes)
    local answers = {}
    if sent then
      answers, err = request:answers(text)
    end
    local duration = now() - started
    for i, result in ipairs(answers) do
      result.success, result.duration = true, duration
      result.shard_id, result.endpoint = self.shard_id, self.endpoint
      local ok, problem = true, nil
      if opts.decode_json then
        ok, problem = values.decode_json(result)
      end
      if not ok then
        fail(self, problem, started)
        return nil, problem, done + i
      end
      results[done + i] = result
    end
    if answers[1] then
      note_command(self.pool, answers[1].command)
    end
    done = done + #answers
    if not sent or err then
      fail(self, err, started)
      return nil, err, done + 1
    end
  end
  return results
end

--- Start a query whose rows are fetched piece by piece; memory stays flat. Yields.
-- @string sql
-- @tparam ?table params
-- @tparam ?table opts `deadline`, `decode_json`
-- @treturn[1] Cursor with `columns`, `column_types`, `rows` (those received, see `lunashard.core.rows`)
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Lease:stream(sql, params, opts)
  opts = opts or NONE
  local rows = core_rows.new()
  local cursor = setmetatable({ lease = self, rows = rows, deadline = opts.deadline, decode = opts.decode_json }, Cursor)
  local ok, err = more_rows(cursor, settled(raw.stream(self.handle, rows, sql, params, opts.deadline)))
  if not ok then
    return nil, err
  end
  cursor.columns, cursor.column_types = rows:columns()
  cursor.columns, cursor.column_types = cursor.columns or {}, cursor.column_types or {}
  return cursor
end

--- Wait for rows after those that were received. Yields.
-- @treturn[1] boolean false when there are none
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Cursor:receive()
  if self.done then
    return false
  end
  return more_rows(self, settled(raw.fetch(self.lease.handle, self.rows, self.deadline)))
end

--- Is there time left? Rows that have arrived may outlast their deadline.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `TIMEOUT`
function Cursor:in_time()
  if self.done or not self.deadline or now() < self.deadline then
    return true
  end
  return self:receive()
end

-- Up to `max_rows` in all into `list`, which has `n`; waits only when there are none. The new number.
local function take(self, list, n, max_rows)
  local in_time, late = self:in_time()
  if not in_time then
    return nil, late
  end
  while not self.closed do
    local now_n, err = self.rows:take(list, n, max_rows - n)
    if not now_n or now_n > n then
      return now_n, err
    end
    local ok
    ok, err = self:receive()
    if not ok then
      return ok == false and n or nil, err
    end
  end
  return n
end

local function decoded(self, list)
  local ok, err = true, nil
  if self.decode then
    ok, err = values.decode_json({ columns = self.columns, column_types = self.column_types, rows = list })
  end
  if not ok then
    self:close()
    return fail(self.lease, err)
  end
  return list
end

--- The next rows, as many as have arrived. Yields when there are none.
-- @int max_rows at least 1
-- @treturn[1] {table,...} rows; an empty list is the end
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Cursor:next_rows(max_rows)
  local list = {}
  local n, err = take(self, list, 0, max_rows)
  if not n then
    self:close()
    return nil, err
  end
  return decoded(self, list)
end

--- The next rows, fewer only before the end. Yields.
-- @int max_rows at least 1
-- @treturn[1] {table,...} rows; an empty list is the end
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Cursor:fetch(max_rows)
  local list, n = {}, 0
  repeat
    local more, err = take(self, list, n, max_rows)
    if not more then
      self:close()
      return nil, err
    end
    local is_end = more == n
    n = more
  until is_end or n == max_rows
  return decoded(self, list)
end

--- End, and drop the rows that were not taken: what still runs is cancelled on the server.
function Cursor:close()
  if not self.done then
    self.done = true
    self.lease.handle:abandon()
  end
  if not self.closed then
    self.closed = true
    self.rows:close()
  end
end

--- Start `COPY ... FROM STDIN`. Yields.
-- @string sql the COPY command
-- @tparam ?table opts `deadline`, `columns` (how many values a row has, for `write_rows`)
-- @treturn[1] Copy
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Lease:copy_in(sql, opts)
  opts = opts or NONE
  local request, err = settled(raw.copy_in(self.handle, sql, opts.deadline))
  local started
  if request then
    started, err = request:take()
  end
  if not started then
    return fail(self, err)
  end
  return setmetatable({ lease = self, deadline = opts.deadline, columns = opts.columns }, Copy)
end

local function copy_write(self, data, n_columns)
  local request, err = settled(raw.copy_write(self.lease.handle, data, n_columns, self.deadline))
  local ok
  if request then
    ok, err = request:take()
  end
  if not ok then
    return fail(self.lease, err)
  end
  return true
end

--- Send rows; returns when they have left this process. Yields.
-- @tparam {table,...} rows each a list of values, as long as the COPY command has columns
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Copy:write_rows(rows)
  return copy_write(self, rows, self.columns or #(rows[1] or NONE))
end

--- Send bytes in the format that the COPY command names. Yields.
-- @string bytes
function Copy:write(bytes)
  return copy_write(self, bytes)
end

local function copy_end(lease, reason, deadline)
  local started = now()
  local request, err = settled(raw.copy_end(lease.handle, reason, deadline))
  if not request then
    return fail(lease, err, started)
  end
  return answer(lease, request, ANY_TEXT, started)
end

--- End COPY. Yields.
-- @treturn[1] table result with `row_count`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Copy:finish()
  return copy_end(self.lease, nil, self.deadline)
end

--- Abort COPY: nothing of it stays. Yields.
-- It is given a second, even after the deadline.
-- @string[opt] reason the server logs it
function Copy:abort(reason)
  local deadline = self.deadline and math.max(self.deadline, now() + 1)
  return copy_end(self.lease, reason or "aborted by the client", deadline)
end

--- Start `COPY ... TO STDOUT`. Yields.
-- @string sql the COPY command
-- @tparam ?table opts `deadline`
-- @treturn[1] CopyOut
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Lease:copy_out(sql, opts)
  opts = opts or NONE
  local request, err = settled(raw.copy_out(self.handle, sql, opts.deadline))
  local started
  if request then
    started, err = request:take()
  end
  if not started then
    return fail(self, err)
  end
  return setmetatable({ lease = self, deadline = opts.deadline }, CopyOut)
end

--- The next rows. Yields.
-- @treturn[1] string whole rows in the format that the COPY command names, 64 KiB and a row at the most;
--   empty at the end, when `row_count` is set
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function CopyOut:read()
  if self.row_count then
    return ""
  end
  local request, err = settled(raw.copy_read(self.lease.handle, self.deadline))
  local bytes, more
  if request then
    bytes, more = request:take()
  end
  if bytes == nil then
    return fail(self.lease, request and more or err)
  elseif not more then
    local result
    result, err = answer(self.lease, request, ANY_TEXT)
    if not result then
      return nil, err
    end
    self.row_count = result.row_count
  end
  return bytes
end

--- End before the last row: what still runs is cancelled on the server.
function CopyOut:close()
  if not self.row_count then
    self.row_count = 0
    self.lease.handle:abandon()
  end
end

--- Where the session stands.
-- @treturn string `idle`, `active`, `intransaction`, `inerror` or `unknown`
function Lease:transaction_status()
  return (self.handle:transaction_status())
end

--- Give the connection back; an open transaction is rolled back, session state reset.
function Lease:release()
  self.handle:release()
end

--- Close the connection instead.
-- @string[opt] reason
function Lease:discard(reason)
  self.handle:discard(reason)
end

--- Make the running task the one whose end gives the connection back.
function Lease:attach()
  self.handle:attach()
end

return pool
