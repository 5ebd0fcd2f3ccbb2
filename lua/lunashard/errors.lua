--- Error values.
-- Every operational failure in the runtime is one of the kinds below; programs decide
-- by `code`, never by text. Misuse is different: it raises a plain string.
--
-- An error is a table with `code`, `message`, `retryable` and, where known, `shard_id`,
-- `endpoint`, `sqlstate`, `detail`, `hint`, `position`, `cause`, `elapsed` (seconds since the call began),
-- `attempts` (how often it was tried).
-- `SHARDS_FAILED` also has `failed`, a list of `{ shard_id = , error = }`, and `total`.
-- @module lunashard.errors

local errors = {}

--- Kinds by code: `retryable` is the default for new errors, `exit` the exit status of a
-- command that ends with it, `message` a default text (optional), `advice` what to do.
-- @table codes
errors.codes = {
  INVALID = {
    retryable = false,
    exit = 2,
    advice = "Correct the value that the message names; nothing was sent to any shard.",
  },
  NO_SHARD = {
    retryable = false,
    exit = 1,
    message = "no shard owns this key",
    advice = "Give the strategy a range, region, default or directory entry that covers the key.",
  },
  NULL_KEY = {
    retryable = false,
    exit = 1,
    message = "the routing key is NULL or NaN",
    advice = "Pass a routing key with a value; NULL and NaN belong to no shard.",
  },
  NO_KEY = {
    retryable = false,
    exit = 1,
    message = "the statement has no routing key",
    advice = "Pass routing_key, or shard_id, or use scatter_gather.",
  },
  KEY_MISMATCH = {
    retryable = false,
    exit = 1,
    message = "the key in the statement is not the routing key",
    advice = "Make the statement, routing_key and the open transaction name one and the same key.",
  },
  NOT_MERGEABLE = {
    retryable = false,
    exit = 1,
    advice = "Ask the shards for something that can be combined exactly; the message says what.",
  },
  SQL = {
    retryable = false,
    exit = 1,
    advice = "Look up sqlstate in PostgreSQL's appendix of error codes; position counts characters from 1.",
  },
  TIMEOUT = {
    retryable = true,
    exit = 1,
    message = "timed out",
    advice = "Raise timeout, or find what the server waits for; the statement was cancelled there.",
  },
  CANCELED = {
    retryable = false,
    exit = 1,
    message = "cancelled",
    advice = "The task was cancelled, by the program or by a signal; run it again when wanted.",
  },
  POOL_EXHAUSTED = {
    retryable = true,
    exit = 1,
    message = "no connection became free in time",
    advice = "Raise connection_pool_size or max_waiters, or hold connections for a shorter time.",
  },
  SHARD_DOWN = {
    retryable = true,
    exit = 1,
    message = "the shard cannot be reached",
    advice = "Check the server, its address and the network; manager:get_cluster_status() shows every shard.",
  },
  AUTH = {
    retryable = false,
    exit = 1,
    message = "the server refused the login",
    advice = "Check user, password or passfile, and the server's pg_hba.conf.",
  },
  UNKNOWN_OUTCOME = {
    retryable = false,
    exit = 1,
    message = "the connection was lost before the server confirmed; the write may have been committed",
    advice = "Look at the data before running the statement again; never retry it blindly.",
  },
  SHARDS_FAILED = {
    retryable = false,
    exit = 4,
    message = "some shards failed",
    advice = "See failed for each shard's own error; on_failure = \"partial\" accepts what is there.",
  },
  RESULT_TOO_LARGE = {
    retryable = false,
    exit = 1,
    message = "the result is larger than max_result_bytes",
    advice = "Use router:stream, select fewer rows or columns, or raise max_result_bytes.",
  },
  READ_ONLY = {
    retryable = true,
    exit = 1,
    message = "the server is read only",
    advice = "The endpoint is a replica or was demoted; writes go to the primary once it is known.",
  },
  PLUGIN_FAILED = {
    retryable = false,
    exit = 1,
    advice = "Mend the function or plug-in; cause and traceback say where it failed.",
  },
  PLACEMENT_CHANGED = {
    retryable = false,
    exit = 1,
    message = "the change would send keys to other shards than those that hold their rows",
    advice = "Move the rows with a rebalance job, or load with allow_placement_change when there are none.",
  },
  STALE_MAP = {
    retryable = true,
    exit = 1,
    message = "the shard map has changed meanwhile",
    advice = "Run it again: the new map is loaded first.",
  },
  JOB_OPEN = {
    retryable = false,
    exit = 1,
    message = "a rebalance job is open",
    advice = "Finish, cancel or roll back the open job first.",
  },
  LOCK_HELD = {
    retryable = true,
    exit = 5,
    message = "the lock is held by another run",
    advice = "Wait for the other run; its lock is freed when it ends, however it ends.",
  },
  CLOSED = {
    retryable = false,
    exit = 1,
    message = "already closed",
    advice = "Do not use a manager, router, pool or lease after it was closed.",
  },
}

-- SQL errors that a second run may not meet: serialization, deadlock, lock not
-- available, too many connections, and the server's own comings and goings.
local RETRYABLE_SQLSTATES = {
  ["40001"] = true,
  ["40P01"] = true,
  ["55P03"] = true,
  ["53300"] = true,
  ["57P01"] = true,
  ["57P02"] = true,
  ["57P03"] = true,
}

local MAX_CAUSES = 8 -- a chain deeper than this says nothing more to a reader

local Error = { __name = "lunashard.error" }

--- Hide passwords in a text: `password=...` of a connection string, `//user:...@` of a URI.
-- @local
-- @string text
-- @treturn string
function errors.redact(text)
  text = text:gsub("([pP][aA][sS][sS][wW][oO][rR][dD]%s*=%s*)'[^']*'", "%1***")
  text = text:gsub("([pP][aA][sS][sS][wW][oO][rR][dD]%s*=%s*)[^'%s*]%S*", "%1***")
  return (text:gsub("(://[^%s:/@]*:)[^%s@/]*@", "%1***@"))
end

local function one_line(text)
  return (errors.redact(text):gsub("%s*[\r\n]+%s*", " "):gsub("%s+$", ""))
end

local function failures_text(failed)
  local parts = {}
  for i, failure in ipairs(failed) do
    local err = failure.error
    -- The shard is named once, in front: not again by the error itself.
    local text = errors.is(err) and err.code .. ": " .. one_line(err.message) or one_line(tostring(err))
    parts[i] = tostring(failure.shard_id) .. ": " .. text
  end
  return table.concat(parts, "; ")
end

function Error.__tostring(err)
  local text = tostring(err.code) .. ": " .. one_line(tostring(err.message))
  if type(err.failed) == "table" and #err.failed > 0 then
    text = text .. ": " .. failures_text(err.failed)
  end
  local where = err.shard_id
  if err.endpoint then
    where = where and where .. " " .. err.endpoint or err.endpoint
  end
  local state = err.sqlstate and "SQLSTATE " .. err.sqlstate
  local context = where and state and where .. ", " .. state or where or state
  return context and text .. " (" .. context .. ")" or text
end

--- Build an error.
-- Raises on an unknown code or a missing message: both are bugs of the caller.
-- @string code a key of `codes`
-- @tparam[opt] table fields `message` and any of the fields named at the top
-- @treturn lunashard.error
function errors.new(code, fields)
  local kind = errors.codes[code] or error("unknown error code " .. tostring(code), 2)
  local err = {}
  for name, value in pairs(fields or {}) do
    err[name] = value
  end
  err.code = code
  err.message = err.message or kind.message or error("an error of kind " .. code .. " needs a message", 2)
  if err.retryable == nil then
    err.retryable = kind.retryable or (code == "SQL" and RETRYABLE_SQLSTATES[err.sqlstate] or false)
  end
  return setmetatable(err, Error)
end

local NO_META = {} -- a protected metatable may be given as false

--- Is this value an error of ours, and, when `code` is given, of that kind?
-- @param value anything
-- @string[opt] code
-- @treturn bool
function errors.is(value, code)
  local meta = getmetatable(value)
  return (meta == Error or (meta or NO_META).stands_for_error == true) and (code == nil or value.code == code)
end

--- Add context to an error.
-- Gives a copy, for an error may be shared by several waiters. What the error knows
-- already wins over `fields`. With a `code` of another kind in `fields` the result is a
-- new error of that kind, and the given one becomes its `cause`. A value that is no error
-- of ours (a raised string) becomes the cause of a new one, by default `PLUGIN_FAILED`.
-- @param err an error, or anything that was raised
-- @tparam table fields
-- @treturn lunashard.error
function errors.wrap(err, fields)
  fields = fields or {}
  local outer = {}
  local code = errors.is(err) and err.code -- this look also fills one that nobody had looked at
  if code and (fields.code == nil or fields.code == code) then
    for name, value in pairs(fields) do
      outer[name] = value
    end
    for name, value in pairs(err) do
      outer[name] = value
    end
    return setmetatable(outer, Error)
  end
  for name, value in pairs(fields) do
    outer[name] = value
  end
  outer.code = nil
  outer.cause = err
  outer.message = outer.message or tostring(errors.is(err) and err.message or err)
  if errors.is(err) then
    for _, name in ipairs({ "shard_id", "endpoint", "sqlstate", "elapsed" }) do
      outer[name] = outer[name] or err[name]
    end
  end
  return errors.new(fields.code or "PLUGIN_FAILED", outer)
end

--- A message handler for `xpcall` around a function of the user's.
-- Errors of ours pass as they are; anything else becomes `PLUGIN_FAILED` with `cause` and `traceback`.
-- @local
-- @string what such as "the reducer"
-- @treturn func
function errors.tracer(what)
  return function(err)
    if errors.is(err) then
      return err
    end
    return errors.new("PLUGIN_FAILED", {
      message = ("%s failed: %s"):format(what, tostring(err)),
      cause = err,
      traceback = debug.traceback(tostring(err), 2),
    })
  end
end

local PLAIN_FIELDS = {
  "code",
  "retryable",
  "shard_id",
  "endpoint",
  "sqlstate",
  "position",
  "elapsed",
  "attempts",
  "index",
  "total",
}

local function to_table(err, with_detail, depth)
  if not errors.is(err) then
    return { message = one_line(tostring(err)) }
  end
  local plain = { message = one_line(tostring(err.message)) }
  for _, name in ipairs(PLAIN_FIELDS) do
    plain[name] = err[name]
  end
  plain.hint = err.hint and one_line(err.hint)
  if with_detail and err.detail then
    plain.detail = one_line(err.detail)
  end
  if depth < MAX_CAUSES then
    plain.cause = err.cause ~= nil and to_table(err.cause, with_detail, depth + 1) or nil
    if type(err.failed) == "table" then
      plain.failed = {}
      for i, failure in ipairs(err.failed) do
        plain.failed[i] = {
          shard_id = failure.shard_id,
          error = to_table(failure.error, with_detail, depth + 1),
        }
      end
    end
  end
  return plain
end

--- A plain tree of an error for JSON: without cycles, metatables or passwords.
-- The server's `detail` quotes values of rows ("Key (email)=(...) already exists"), so it
-- is left out unless asked for.
-- @param err an error, or anything that was raised
-- @tparam[opt] table options `detail = true` to include it
-- @treturn table
function errors.to_table(err, options)
  return to_table(err, options ~= nil and options.detail == true, 0)
end

--- Exit status for a command that ends with this error.
-- `SHARDS_FAILED` means "partial" only when some shard did succeed.
-- @param err an error, or anything that was raised
-- @treturn number
function errors.exit_code(err)
  if not errors.is(err) then
    return 1
  end
  if err.code == "SHARDS_FAILED" and err.total and err.failed and #err.failed >= err.total then
    return 1
  end
  local kind = errors.codes[err.code]
  return kind and kind.exit or 1
end

-- Edit distance with transposition of neighbours (optimal string alignment), or nil when
-- it is more than `bound`. Three rows are enough.
local function distance(a, b, bound)
  if math.abs(#a - #b) > bound then
    return nil
  end
  local before, previous, current = {}, {}, {}
  for j = 0, #b do
    previous[j] = j
  end
  for i = 1, #a do
    current[0] = i
    local least = i
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local cost = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        cost = math.min(cost, before[j - 2] + 1)
      end
      current[j] = cost
      least = math.min(least, cost)
    end
    if least > bound then
      return nil
    end
    before, previous, current = previous, current, before
  end
  return previous[#b] <= bound and previous[#b] or nil
end

-- Candidates may be a list of names or a table keyed by name.
local function names_of(candidates)
  local names = {}
  for key, value in pairs(candidates) do
    names[#names + 1] = type(key) == "string" and key or type(value) == "string" and value or nil
  end
  table.sort(names)
  return names
end

--- The valid name closest to a mistyped one.
-- Up to one edit in three letters counts as close, a swap of neighbours as one edit.
-- @string name
-- @tparam table candidates a list of names, or a table keyed by name
-- @treturn ?string nil when nothing is close
function errors.nearest(name, candidates)
  if type(name) ~= "string" then
    return nil
  end
  local wanted = name:lower():gsub("-", "_")
  local best, best_distance
  for _, candidate in ipairs(names_of(candidates)) do
    local bound = math.floor(math.max(#wanted, #candidate) / 3)
    local d = distance(wanted, candidate:lower(), bound)
    if d and (best_distance == nil or d < best_distance) then
      best, best_distance = candidate, d
    end
  end
  return best
end

--- The text for an option that does not exist.
-- @local
-- @string what whose option it would be, such as "manager"
-- @param name the unknown name
-- @tparam table candidates a list of valid names, or a table keyed by name
-- @treturn string
function errors.unknown_option(what, name, candidates)
  local text = ("unknown option %q of %s"):format(tostring(name), what)
  local near = errors.nearest(name, candidates)
  if near then
    return ("%s; did you mean %q?"):format(text, near)
  end
  local names = names_of(candidates)
  return #names > 0 and text .. "; valid options: " .. table.concat(names, ", ") or text
end

-- Errors that C makes carry the same metatable. Outside our binary there is no core.
local has_core, core_task = pcall(require, "lunashard.core.task")
if has_core then
  core_task.set_error_metatable(Error)
end

return errors
