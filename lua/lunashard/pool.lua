--- The connections to one endpoint.
-- Everything here that talks to the server yields, and returns `nil, err` when it fails; errors
-- carry `shard_id` and `endpoint`.
-- @module lunashard.pool

local answers = require("lunashard.pool.answers")
local core = require("lunashard.core.pool")
local core_task = require("lunashard.core.task")
local checks = require("lunashard.options")
local lease = require("lunashard.pool.lease")
local task = require("lunashard.task")
local texts = require("lunashard.pool.texts")

local pool = {}

local fail, now = answers.fail, task.now
local CANCELED = core_task.CANCELED

-- Options that are libpq's own, passed through as they are.
local PASSED = {
  "user", "password", "passfile", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslcrldir",
  "sslsni", "ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding", "gssencmode",
  "application_name", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
  "tcp_user_timeout", "target_session_attrs",
}

-- A network that has fallen silent is noticed in a minute, also by cancel requests, which take these over: those in
-- the way of others would else wait for hours.
local KEEPALIVES = {
  keepalives_idle = "30", keepalives_interval = "10", keepalives_count = "3", tcp_user_timeout = "30000", -- milliseconds
}

-- Start-up options rather than SET: RESET ALL comes back to these, and no role setting beats them.
local PINNED = "-c DateStyle=ISO -c IntervalStyle=postgres -c bytea_output=hex -c extra_float_digits=1"
  .. " -c standard_conforming_strings=on" -- so that our parsers and the server's see the same statement

local TYPES = {
  shard_id = "string", host = "string", port = "count", database = "string", max_size = "count", min_size = "count",
  max_waiters = "count", connection_timeout = "seconds", idle_timeout = "number", max_lifetime = "number",
  statement_cache = "count", max_result_bytes = "count", slow_statement = "number", pipeline = "boolean",
  read_batches = "boolean", read_only = "boolean",
}
for _, name in ipairs(PASSED) do
  TYPES[name] = "any" -- numbers and strings alike; libpq checks them
end

local DEFAULTS = {
  host = "localhost", port = 5432, max_size = 20, min_size = 0, max_waiters = 10000, connection_timeout = 5,
  idle_timeout = 300, max_lifetime = 3600, statement_cache = 256, max_result_bytes = 256 * 2 ^ 20,
  slow_statement = 0.05, pipeline = true, read_batches = true,
}

local Pool = {}
Pool.__index = Pool

local NONE = {}
local raw_execute, raw_acquire -- methods of the core's userdata, from the first one on

local function check(options, what)
  checks.check(options, TYPES, what)
  local function refuse(name, expected)
    local value = options[name]
    if value ~= nil then
      error(("%s: option %s: expected %s, got %s"):format(what, name, expected, checks.describe(value)), 4)
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

--- What the core wants to know of a pool or a probe. For `lunashard.manager.probe`.
-- @tparam table options as for `new`
-- @treturn table
function pool.settings(options)
  local function option(name)
    local value = options[name]
    if value == nil then
      return DEFAULTS[name]
    end
    return value
  end
  local host, port = option("host"), option("port")
  local conninfo = { port = ("%d"):format(port), client_encoding = "UTF8", options = PINNED }
  if options.read_only then
    conninfo.options = PINNED .. " -c default_transaction_read_only=on"
  end
  conninfo.dbname = options.database or options.user
  conninfo.fallback_application_name = "lunashard"
  for name, value in pairs(KEEPALIVES) do
    conninfo[name] = value
  end
  conninfo.gssencmode = "disable" -- unless it is asked for: libpq alone can speak to such a connection
  for _, name in ipairs(PASSED) do
    local value = options[name]
    if value ~= nil then
      conninfo[name] = tostring(value)
    end
  end
  return {
    host = host,
    endpoint = ("%s:%d"):format(host, port),
    max_size = option("max_size"),
    min_size = option("min_size"),
    max_waiters = option("max_waiters"),
    connection_timeout = option("connection_timeout"),
    idle_timeout = option("idle_timeout"),
    max_lifetime = option("max_lifetime"),
    max_result_bytes = option("max_result_bytes"),
    statement_cache = option("statement_cache"),
    slow_statement = option("slow_statement"),
    pipeline = option("pipeline") and conninfo.gssencmode == "disable",
    read_batches = option("read_batches"),
    conninfo = conninfo,
  }
end

--- Make a pool. Connects when it is used, or at once for `min_size`.
-- @tparam table options `shard_id host port database user password passfile`, libpq's `ssl...` and
--   `keepalives...` options (a silent network is noticed in a minute unless these say otherwise),
--   `max_size` [20] `min_size` [0] `max_waiters` [10000]
--   `connection_timeout` [5] `idle_timeout` [300] `max_lifetime` [3600] (seconds, 0 is for ever)
--   `statement_cache` [256] prepared statements a connection, `max_result_bytes` [256 MiB]; `pipeline` [true]
--   lets statements of different tasks share connections (never with a `gssencmode` other than `disable`, which is
--   libpq's alone), `read_batches` [true] lets reads share their Sync,
--   `slow_statement` [0.05 s]: what takes longer gets a connection of its own; `read_only`: sessions in which the server
--   refuses to write
-- @tparam[opt] userdata term on which statements and leases with a `generation` rely, see `lunashard.catalog.lease`
-- @treturn Pool
function pool.new(options, term)
  check(options, "pool.new")
  local given = pool.settings(options)
  local handle = assert(core.new(given))
  if term then
    handle:rely(term)
  end
  raw_execute, raw_acquire = raw_execute or handle.execute, raw_acquire or handle.acquire
  local self = setmetatable({
    handle = handle,
    shard_id = options.shard_id,
    endpoint = given.endpoint,
    max_result_bytes = given.max_result_bytes,
    wary_until = 0,
  }, Pool)
  texts.open(self, given.pipeline)
  return self
end

--- Use other options from now on. Does not yield.
-- Nothing that runs is disturbed: connections beyond a smaller `max_size` are closed when they come free, and
-- those that were made with another user, password or the like are replaced within the next half minute.
-- Raises as `new` does, and for another host or port.
-- @tparam table options all of them, as for `new`
function Pool:reconfigure(options)
  check(options, "pool:reconfigure")
  local given = pool.settings(options)
  if given.endpoint ~= self.endpoint then
    error(("pool:reconfigure: this is a pool of %s, not of %s"):format(self.endpoint, given.endpoint), 2)
  end
  self.max_result_bytes, self.pipeline = given.max_result_bytes, given.pipeline
  self.handle:reconfigure(given)
end

--- Fail what waits for a connection with a `SHARD_DOWN` that may be retried, for it was never sent. What runs goes on.
-- @string why
function Pool:refuse_waiting(why)
  self.handle:refuse_waiting(why)
end

--- No new work will come: close every connection as soon as it is free.
-- Work that comes all the same is done.
function Pool:drain()
  self.handle:drain()
end

--- How much there is to do: statements and leases that run or wait. Cheap.
-- @treturn number 0 when closed
function Pool:load()
  return self.handle:load()
end

local function run(self, text_or_sql, text, params, opts, started, guard)
  local request, err = raw_execute(self.handle, answers.request(), text_or_sql, params, started, opts.deadline,
    opts.read_only, opts.max_result_bytes or self.max_result_bytes, opts.pipeline == false, opts.generation,
    opts.late, guard and guard.text or nil, guard and guard.params or nil)
  if request == CANCELED then
    answers.cancelled(self, started)
  elseif not request then
    return fail(self, err, started)
  end
  return answers.result(self, request, text, started, opts.decode_json)
end

-- Everything but a text that has been looked at. Apart, so that what is compiled for those has no branch for it.
local function run_and_learn(self, query, params, opts, started)
  local text = not opts.simple and self.texts[query] or nil
  local known = not text and not opts.simple and texts.meet(self, query) or nil
  text = text or known and known.text
  local result, err = run(self, text or query, text or answers.ANY_TEXT, params, opts, started, opts.guard)
  if not result then
    return nil, err
  elseif known then
    texts.learn(self, query, known, result.command)
  elseif not text then
    texts.note(self, "several statements")
  else
    texts.refresh(self)
  end
  return result
end

local WARY = 0.1 -- seconds: a shard that changes what it owns does so for a while

-- The reads of a batch need one guard between them when it is that of the whole shard. While the shard changes what it owns
-- each needs its own.
local function run_guarded(self, query, text, params, opts, started)
  local guard = opts.guard
  if guard.whole and self.pure[query] and started >= self.wary_until then
    local result, err = run(self, text, text, params, opts, started, guard.whole)
    if result or err.sqlstate ~= "LS001" then
      return result, err
    end
    self.wary_until = now() + WARY
    guard.whole.refused()
  end
  return run(self, text, text, params, opts, started, guard)
end

--- Run a statement on any connection, in autocommit. Yields.
-- @string query SQL
-- @tparam ?table params
-- @tparam ?table opts `deadline` on the clock of `lunashard.now`, `read_only` (losing it midway
--   leaves no doubt), `simple` protocol, `decode_json`, `max_result_bytes`, `pipeline = false` (not on a
--   connection that others share); `guard`: `{ text, params }` of a statement that goes before this one in the same
--   transaction, and with whose error this one has failed and done nothing, maybe with `whole`, another one that reads may share
--   instead, whose function `refused` is told when it fails; `generation` of the map by which it was
--   routed: it relies on the pool's term; `late`: what becomes of an answer that comes
--   after the term: 0 it is kept, 1 it is dropped (`STALE_MAP`), 2 nobody knows (`UNKNOWN_OUTCOME`)
-- @treturn[1] table `{ rows, columns, column_types, row_count, command, duration, endpoint,
--   shard_id, success = true }`; results of one statement share `columns` and `column_types`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SQL TIMEOUT POOL_EXHAUSTED SHARD_DOWN AUTH UNKNOWN_OUTCOME
--   RESULT_TOO_LARGE INVALID CLOSED`; `STALE_MAP`: the term is over, or the generation, and nothing was sent, or of a
--   read the answer dropped
function Pool:execute(query, params, opts)
  opts = opts or NONE
  local started = now()
  local text = self.texts[query]
  if not text or started >= self.catalog.expires or opts.simple then
    return run_and_learn(self, query, params, opts, started)
  end
  if opts.guard then
    return run_guarded(self, query, text, params, opts, started)
  end
  return run(self, text, text, params, opts, started)
end

--- Wait for a connection of one's own. Yields. It is given back when the task ends, at the latest.
-- @tparam ?number deadline
-- @tparam ?number generation as for `execute`
-- @treturn[1] Lease
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Pool:acquire(deadline, generation)
  local started = now()
  local handle, err = answers.settled(self, started, raw_acquire(self.handle, deadline, generation))
  if not handle then
    return fail(self, err, started)
  end
  local opened
  opened, err = handle:opened()
  if not opened then
    return fail(self, err, started)
  end
  return lease.new(self, handle)
end

--- Has the pool found out that a statement only reads and calls nothing volatile? Not before its third run.
-- @string query
-- @treturn boolean
function Pool:is_read(query)
  return self.pure[query] or false
end

--- What becomes of a SELECT's answer that comes after the term, see `execute`. Does not yield.
-- @string query
-- @tparam ?boolean read_only it is promised to change nothing
-- @treturn number
function Pool:late(query, read_only)
  return (read_only or self.pure[query]) and 1 or 2
end

--- What the pool is doing.
-- @treturn table `size used idle connecting waiting max_size min_size queries errors connects
--   connect_failures wait_time last_error`; `lanes` (connections that are shared now), `shared` (statements that
--   ran on these), `batched` (reads that ran in batches), `batches`, `reruns` (statements run again for
--   the sake of others on a shared connection); `refused` (for `max_waiters`); `cancels` (asked of the server),
--   `cancelling` (connections where it has not answered to that yet);
--   `waits` (how often work waited for a connection up to 2^-13, 2^-11, ... 2^5 seconds, and longer); all zero once closed
function Pool:stats()
  return self.handle:stats() or {
    size = 0, used = 0, idle = 0, connecting = 0, waiting = 0, max_size = 0, min_size = 0, queries = 0, errors = 0,
    connects = 0, connect_failures = 0, wait_time = 0, lanes = 0, shared = 0, batched = 0, batches = 0, reruns = 0,
    refused = 0, cancels = 0, cancelling = 0,
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

return pool
