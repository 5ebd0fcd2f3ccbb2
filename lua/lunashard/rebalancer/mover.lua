--- A mover of one move: what it works with, and how it becomes the only one.
-- Whoever opens a move ends the sessions of a mover before it and writes its own token on both sides; what the other one
-- still sends is refused. What has been done is then read from the shards themselves: the catalog says what was begun.
-- @module lunashard.rebalancer.mover
-- @local

local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local expression = require("lunashard.catalog.expression")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local shape = require("lunashard.rebalancer.shape")
local task = require("lunashard.task")

local mover = {}

local Mover = {}
Mover.__index = Mover

--- Defaults of a job's options, as far as moves know them.
mover.OPTIONS = { batch_size = 5000, throttle_ms = 0, enable_validation = true, max_cutover = 2, purge_delay = 0,
  strategy = "live_migration" }

local OFFLINE = 3600 -- seconds for a move whose buckets are closed all the while

local ROW = [[
  SELECT m.source, m.destination, m.buckets, m.state, m.cursor::text AS cursor, m.rows_copied, m.bytes, m.pause_seconds,
      m.error_message, m.finished_at IS NOT NULL AS is_finished, j.grp, j.token
    FROM lunashard_catalog.move m JOIN lunashard_catalog.job j ON j.id = m.job WHERE m.job = $1 AND m.seq = $2]]
local TABLES = "SELECT name, shard_key FROM lunashard_catalog.grouped_table WHERE grp = $1 ORDER BY name COLLATE \"C\""

local FIELDS = { "source", "destination", "buckets", "state", "rows_copied", "bytes", "pause_seconds", "error_message" }

local function nothing() end

-- Reads the move anew: what was written last may have been written by another mover, or by a commit whose answer was lost.
local function read_row(self)
  local context, row = self.context, self.row
  local found, err = context.catalog:execute(ROW, { row.job, row.seq }, session.soon())
  if not found then
    return nil, err
  end
  local now = found.rows[1]
  if not now then
    return nil, errors.new("INVALID", { message = ("there is no move %d of job %d"):format(row.seq, row.job) })
  elseif now.token ~= context.token then
    return nil, session.taken_over(row)
  end
  for _, name in ipairs(FIELDS) do
    row[name] = now[name]
  end
  row.cursor, context.group, self.is_finished = cjson.decode(now.cursor), now.grp, now.is_finished
  return true
end

local function bucket_of(bound, one, alias)
  local columns = {}
  for i, column in ipairs(one.shard_key) do
    columns[i] = alias .. "." .. names.each({ column }, "%s")
  end
  return ('((%s) COLLATE "C")'):format(expression.bucket(bound, columns))
end

local function read_tables(self, lenient)
  local context = self.context
  local declared, err = context.catalog:execute(TABLES, { context.group }, session.soon())
  local tables, others
  if declared then
    tables, err = shape.read(self.source.member, declared.rows, session.soon(), lenient)
  end
  if tables then
    others, err = shape.read(self.destination.member, declared.rows, session.soon(), lenient)
  end
  if not others and not (tables and lenient) then
    return nil, err
  end
  self.tables, self.others = tables, {}
  for i, one in ipairs(tables) do -- in the source's order on both sides
    for _, other in ipairs(others or {}) do
      self.others[i] = other.n == one.n and other or self.others[i]
    end
  end
  return true
end

local END_OTHERS = [[
  SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
   WHERE application_name = $1 AND datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()]]
local ADOPT = [[
  INSERT INTO lunashard.move AS m (job, seq, role, token, step) VALUES ($1, $2, $3, $4, 'planned')
    ON CONFLICT (job, seq, role) DO UPDATE SET token = excluded.token WHERE m.token <= excluded.token
    RETURNING step, detail]]

local function adopt(self, side)
  local row = self.row
  local _, err = side:execute(END_OTHERS, { side.name })
  if err then
    return nil, err
  end
  return side:transaction("adopting", function(lease)
    local found, problem = lease:execute(ADOPT, { row.job, row.seq, side.role, self.context.token },
      { deadline = session.soon(), decode_json = true })
    if not found then
      return nil, problem
    elseif not found.rows[1] then
      return nil, session.taken_over(row)
    end
    return found.rows[1]
  end, { unchecked = true })
end

local FORGET = [[
  DELETE FROM lunashard.move WHERE job = $1 AND seq = $2 AND role = $3 AND token = $4 AND step = 'planned']]

-- Whoever took over while this process stood still may have come to the end, and forgotten the move: what was noted after
-- that is nobody's.
local function still_ours(self)
  local ok, err = read_row(self)
  if not ok and err.code == "LOCK_HELD" then
    for _, side in ipairs({ self.source, self.destination }) do
      side:execute(FORGET, { self.row.job, self.row.seq, side.role, self.context.token })
    end
  end
  return ok, err
end

--- Read everything anew, from the catalog and from both sides. Yields.
-- @tparam ?boolean lenient do without a destination that is not to be reached, and without tables that are gone
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` when another mover has taken over
function Mover:refresh(lenient)
  local ok, err = read_row(self)
  if not ok then
    return nil, err
  end
  self.at_source, err = adopt(self, self.source)
  if not self.at_source then
    return nil, err
  end
  self.at_destination, err = adopt(self, self.destination)
  if not self.at_destination then
    if not lenient or err.code == "LOCK_HELD" then
      return nil, err
    end
    self.at_destination = { step = "unknown", detail = {} }
  end
  ok, err = still_ours(self)
  if not ok then
    return nil, err
  end
  return read_tables(self, lenient)
end

--- Give the connections back, and the turn.
function Mover:close()
  self.source:close()
  self.destination:close()
  self:end_turn()
end

--- Have connections to both sides, which tasks of the mover's can share then. Yields.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Mover:connect()
  local ok, err = self.source:connect()
  if ok then
    ok, err = self.destination:connect()
  end
  return ok and true, err
end

--- Let others have their cutover.
-- @tparam ?string shard_id on this shard [on both]
function Mover:end_turn(shard_id)
  if self.release_turn then
    self.release_turn(shard_id)
  end
end

--- Are the buckets closed before their rows are copied?
-- @treturn boolean
function Mover:is_offline()
  return self.context.options.strategy == "offline"
end

--- Until when a move that is fenced must be merged, or given up. One that another mover fenced gets as long again.
-- @treturn number
function Mover:cutover_deadline()
  self.fenced_at = self.fenced_at or task.now()
  return self.fenced_at + (self:is_offline() and OFFLINE or self.context.options.max_cutover)
end

--- Why the mover shall stop, as an error; nil when it shall not.
-- @treturn ?lunashard.error `CANCELED`
function Mover:stopped()
  local reason = self.context.stopping()
  return reason and errors.new("CANCELED", { message = reason }) or nil
end

--- Become the mover of a move. Yields.
-- @tparam table given see `lunashard.rebalancer.move.run`
-- @tparam table row the move: `job`, `seq`; the rest is read
-- @tparam ?boolean lenient as for `refresh`
-- @treturn[1] Mover `context`, `row`, `source` and `destination` (sessions), `at_source` and `at_destination` (their `step`
--   and `detail`), `tables` and `others` (those of the destination)
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function mover.open(given, row, lenient)
  local context = {
    manager = given.manager, catalog = given.catalog, token = given.token, options = {},
    at = given.at or nothing, progress = given.progress or nothing, stopping = given.stopping or nothing,
  }
  -- Read through, for some of them may change while the move runs.
  setmetatable(context.options, { __index = function(_, name)
    local value = given.options and given.options[name]
    if value == nil then
      return mover.OPTIONS[name]
    end
    return value
  end })
  local self = setmetatable({ context = context, row = row }, Mover)
  local ok, err = read_row(self)
  if not ok then
    return nil, err
  end
  local source, destination
  source, err = context.manager:member(row.source)
  if source then
    destination, err = context.manager:member(row.destination)
  end
  if not destination then
    return nil, err
  end
  context.bound = context.catalog.groups[context.group].bound
  local key_type, columns = context.bound.key_type, {}
  for i = 1, type(key_type) == "table" and #key_type or 1 do
    columns[i] = "k" .. i
  end
  context.in_sql = expression.bucket(context.bound, columns) ~= nil -- else only Lua can tell buckets
  function context.bucket_of(one, alias)
    return bucket_of(context.bound, one, alias)
  end
  self.source = session.new(source, row, "source", context.token, context.at)
  self.destination = session.new(destination, row, "destination", context.token, context.at)
  self.sides = { source = self.source, destination = self.destination }
  if self.is_finished then
    return self
  end
  ok, err = self:refresh(lenient)
  if not ok then
    self:close()
    return nil, err
  end
  return self
end

return mover
