--- What became of every write of a drill, as its callers were told, and whether the servers agree.
-- An entry is `done` (acknowledged), `undone` (an error that says that nothing was done) or `unknown`
-- (`UNKNOWN_OUTCOME`).
-- @module spec.support.faults.ledger

local pool = require("lunashard.pool")
local task = require("lunashard.task")

local ledger = {}

local Ledger = {}
Ledger.__index = Ledger

local STATES = { "done", "undone", "unknown" }

--- The tables of a drill; the first has no key, so that what is written twice is seen twice.
ledger.SCHEMA = [[
  DROP TABLE IF EXISTS fault_writes, fault_pairs, fault_counters;
  CREATE TABLE fault_writes (user_id bigint NOT NULL);
  CREATE INDEX ON fault_writes (user_id);
  CREATE TABLE fault_pairs (user_id bigint NOT NULL);
  CREATE TABLE fault_counters (user_id bigint PRIMARY KEY, n bigint NOT NULL)]]

--- A ledger without entries.
function ledger.new()
  return setmetatable({ shards = {} }, Ledger)
end

function Ledger:of(shard_id)
  local shard = self.shards[shard_id]
  if not shard then
    shard = { writes = {}, pairs = {}, counters = {}, unknown = {}, count = { done = 0, undone = 0, unknown = 0 } }
    shard.codes = {}
    self.shards[shard_id] = shard
  end
  return shard
end

local function state_of(err)
  return not err and "done" or err.code == "UNKNOWN_OUTCOME" and "unknown" or "undone"
end

--- Note how one write ended.
-- @string shard_id
-- @string kind `insert`, `transaction` or `counter`
-- @number id
-- @tparam ?lunashard.error err
-- @number started when it was asked for
function Ledger:note(shard_id, kind, id, err, started)
  local shard, state = self:of(shard_id), state_of(err)
  shard.count[state] = shard.count[state] + 1
  if err then
    shard.codes[err.code] = (shard.codes[err.code] or 0) + 1
  end
  if state == "unknown" then
    table.insert(shard.unknown, { id = id, kind = kind, started = started, err = err })
  end
  if kind == "counter" then
    local counter = shard.counters[id] or { done = 0, undone = 0, unknown = 0 }
    shard.counters[id] = counter
    counter[state] = counter[state] + 1
  else
    shard.writes[id] = state
    shard.pairs[id] = kind == "transaction" and state or nil
  end
end

--- How many writes of a shard, or of all, ended so.
-- @string state `done`, `undone` or `unknown`
-- @string[opt] shard_id
function Ledger:count(state, shard_id)
  local n = 0
  for id, shard in pairs(self.shards) do
    n = n + ((shard_id or id) == id and shard.count[state] or 0)
  end
  return n
end

--- One line for messages: how many of each.
function Ledger:summary(shard_id)
  local parts = {}
  for _, state in ipairs(STATES) do
    parts[#parts + 1] = ("%s %d"):format(state, self:count(state, shard_id))
  end
  local codes = {}
  for id, shard in pairs(self.shards) do
    for code, n in pairs((shard_id or id) == id and shard.codes or {}) do
      codes[#codes + 1] = ("%s %s %d"):format(id, code, n)
    end
  end
  table.sort(codes)
  return table.concat(parts, ", ") .. (#codes > 0 and ": " .. table.concat(codes, ", ") or "")
end

-- ---- what the servers say -------------------------------------------------

local BUSY = [[
  SELECT count(*) AS n FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle']]

-- Transactions whose client the server waits for in vain, for what lay between them is silent.
local END_FORSAKEN = [[
  SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'
    AND state_change < now() - interval '3 seconds']]

-- What was given up may still run there: it is over before anything is counted.
local function wait_until_quiet(connection)
  local deadline = task.now() + 15
  while assert(connection:execute(BUSY)).rows[1].n > 0 do
    assert(task.now() < deadline, "statements of the drill still run on the server")
    task.sleep(0.05)
    assert(connection:execute(END_FORSAKEN))
  end
end

local function counts(connection, name)
  local found = {}
  for _, row in ipairs(assert(connection:execute("SELECT user_id, count(*) AS n FROM " .. name .. " GROUP BY 1")).rows) do
    found[row.user_id] = row.n
  end
  return found
end

local function compare(complaints, where, told, found)
  for id, state in pairs(told) do
    local n = found[id] or 0
    if state == "done" and n ~= 1 then
      table.insert(complaints, ("%s: %d was acknowledged and is there %d times"):format(where, id, n))
    elseif state == "undone" and n ~= 0 then
      table.insert(complaints, ("%s: %d is there %d times, and its error said that nothing was done"):format(where, id, n))
    elseif n > 1 then
      table.insert(complaints, ("%s: %d, of unknown outcome, is there %d times"):format(where, id, n))
    end
  end
  for id in pairs(found) do
    if not told[id] then
      table.insert(complaints, ("%s: %d is there, and nobody wrote it"):format(where, id))
    end
  end
end

local function compare_counters(complaints, where, told, connection)
  for _, row in ipairs(assert(connection:execute("SELECT user_id, n FROM fault_counters")).rows) do
    local counter = told[row.user_id] or { done = 0, unknown = 0 }
    if row.n < counter.done or row.n > counter.done + counter.unknown then
      table.insert(complaints, ("%s: counter %d is %d after %d acknowledged and %d unknown steps"):format(where, row.user_id,
        row.n, counter.done, counter.unknown))
    end
  end
end

--- Compare a shard's entries with a server, past everything that is under test. Yields.
-- @string shard_id
-- @tparam table server as spec.support.sandbox describes it: the one that holds the shard's truth now
-- @treturn {string,...} complaints, none when all is right
function Ledger:compare(shard_id, server)
  local connection = pool.new({
    host = server.host, port = server.port, database = server.database, user = server.superuser,
    password = server.superuser_password, max_size = 1, application_name = "ledger", pipeline = false,
  })
  local complaints, shard = {}, self:of(shard_id)
  local ok, err = pcall(function()
    wait_until_quiet(connection)
    compare(complaints, shard_id .. " rows", shard.writes, counts(connection, "fault_writes"))
    compare(complaints, shard_id .. " pairs", shard.pairs, counts(connection, "fault_pairs"))
    compare_counters(complaints, shard_id, shard.counters, connection)
  end)
  connection:close()
  assert(ok, err)
  return complaints
end

return ledger
