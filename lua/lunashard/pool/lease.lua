--- A connection of one's own.
-- @classmod lunashard.pool.lease

local answers = require("lunashard.pool.answers")
local copy = require("lunashard.pool.copy")
local core = require("lunashard.core.pool")
local cursor = require("lunashard.pool.cursor")
local errors = require("lunashard.errors")
local task = require("lunashard.task")
local texts = require("lunashard.pool.texts")
local values = require("lunashard.values")

local lease = {}

local fail, now, settled = answers.fail, task.now, answers.settled

local Lease = {}
Lease.__index = Lease

local NONE = {}
local raw = {}

--- Wrap what `acquire` gave.
-- @tparam Pool pool
-- @tparam userdata handle
-- @treturn Lease `shard_id`, `endpoint`, `backend_pid`; who sets `keeps_schema`, here or in options, says that nothing done
--   changes what statements of others do
function lease.new(pool, handle)
  if not raw.execute then
    raw.execute, raw.execute_many = handle.execute, handle.execute_many
  end
  local _, pid = handle:transaction_status()
  return setmetatable({
    handle = handle,
    pool = pool,
    shard_id = pool.shard_id,
    endpoint = pool.endpoint,
    max_result_bytes = pool.max_result_bytes,
    backend_pid = pid,
  }, Lease)
end

-- What a transaction has changed, others see from its COMMIT on.
local function note(self, opts, command)
  if self.keeps_schema or opts.keeps_schema then
    return
  elseif texts.note(self.pool, command) then
    self.changed = true
  elseif command == "COMMIT" and self.changed then
    self.changed = nil
    self.pool.catalog:forget()
  end
end

--- Run a statement on this connection. Yields. As `Pool:execute`.
function Lease:execute(query, params, opts)
  opts = opts or NONE
  local text = not opts.simple and (self.pool.texts[query] or texts.meet(self.pool, query).text) or nil
  local started = now()
  local request, err = settled(self, started, raw.execute(self.handle, answers.request(), text or query, params,
    started, opts.deadline, opts.read_only, opts.max_result_bytes or self.max_result_bytes, false, opts.generation,
    opts.late))
  if not request then
    return fail(self, err, started)
  end
  local result
  result, err = answers.result(self, request, text or answers.ANY_TEXT, started, opts.decode_json)
  if result then
    note(self, opts, opts.simple and "several" or result.command)
  end
  return result, err
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
-- @tparam ?table opts `deadline`, `decode_json`, `max_result_bytes` (of one result), `generation`
-- @treturn[1] {table,...} results, as from `execute`; `duration` is that of the exchange
-- @treturn[2] nil
-- @treturn[2] lunashard.error
-- @treturn[2] int the number of the set that failed
function Lease:execute_many(query, sets, opts)
  opts = opts or NONE
  local text = self.pool.texts[query] or texts.meet(self.pool, query).text
  local results, done = {}, 0
  while done < #sets do
    local started, request = now(), core.request()
    local last, err, at = add_sets(request, sets, done + 1)
    if not last then
      fail(self, err, started)
      return nil, err, at
    end
    local sent
    sent, err = settled(self, started, raw.execute_many(self.handle, request, text, started, opts.deadline,
      opts.max_result_bytes or self.max_result_bytes, opts.generation))
    local received = {}
    if sent then
      received, err = request:answers(text)
    end
    local duration = now() - started
    for i, result in ipairs(received) do
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
    if received[1] then
      note(self, opts, received[1].command)
    end
    done = done + #received
    if not sent or err then
      fail(self, err, started)
      return nil, err, done + 1
    end
  end
  return results
end

--- Start a query whose rows are fetched piece by piece; memory stays flat. Yields.
-- @string query SQL
-- @tparam ?table params
-- @tparam ?table opts `deadline`, `decode_json`
-- @treturn[1] Cursor with `columns`, `column_types`, `rows` (those received, see `lunashard.core.rows`)
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Lease:stream(query, params, opts)
  return cursor.open(self, query, params, opts or NONE)
end

--- Start `COPY ... FROM STDIN`. Yields.
-- @string query the COPY command
-- @tparam ?table opts `deadline`, `columns` (how many values a row has, for `write_rows`)
-- @treturn[1] Copy
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Lease:copy_in(query, opts)
  return copy.into(self, query, opts or NONE)
end

--- Start `COPY ... TO STDOUT`. Yields.
-- @string query the COPY command
-- @tparam ?table opts `deadline`
-- @treturn[1] CopyOut
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Lease:copy_out(query, opts)
  return copy.out(self, query, opts or NONE)
end

--- Wait until a notification has come for the session, which LISTENs. Yields, without end. Whoever is cancelled here
-- loses the connection.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error the connection is lost
function Lease:notified()
  local started = now()
  local request, err = settled(self, started, self.handle:notified())
  if request then
    request, err = request:take()
  end
  if not request then
    return fail(self, err, started)
  end
  return true
end

--- The form in which a server keeps a password (SCRAM-SHA-256), for ALTER ROLE: the password itself would reach its logs.
-- @string password
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Lease:encrypt_password(password)
  return self.handle:encrypt_password(password)
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

return lease
