--- The rows of one statement on a lease, received piece by piece.
-- @classmod lunashard.pool.cursor

local answers = require("lunashard.pool.answers")
local core_rows = require("lunashard.core.rows")
local task = require("lunashard.task")
local values = require("lunashard.values")

local cursor = {}

local fail, now, settled = answers.fail, task.now, answers.settled

local Cursor = {}
Cursor.__index = Cursor

local raw = {}

-- Did the server say that more rows may come? Called with what the binding gave.
local function more_rows(self, ...)
  local more
  local request, err = settled(self.lease, self.started, ...)
  if request then
    more, err = request:take()
  end
  if more == nil then
    return fail(self.lease, err, self.started)
  end
  self.done = not more
  return true
end

--- Start a statement. Yields.
-- @tparam Lease lease
-- @string query SQL
-- @tparam ?table params
-- @tparam table opts `deadline`, `decode_json`, `started` (when the call began, on the clock of `lunashard.now`)
-- @treturn[1] Cursor
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function cursor.open(lease, query, params, opts)
  if not raw.stream then
    raw.stream, raw.fetch = lease.handle.stream, lease.handle.fetch
  end
  local rows = core_rows.new()
  local self = setmetatable({
    lease = lease, rows = rows, deadline = opts.deadline, decode = opts.decode_json, started = opts.started or now(),
  }, Cursor)
  local ok, err = more_rows(self, raw.stream(lease.handle, rows, query, params, opts.deadline))
  if not ok then
    return nil, err
  end
  self.columns, self.column_types = rows:columns()
  self.columns, self.column_types = self.columns or {}, self.column_types or {}
  return self
end

--- Wait for rows after those that were received. Yields.
-- @treturn[1] boolean false when there are none
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Cursor:receive()
  if self.done then
    return false
  end
  return more_rows(self, raw.fetch(self.lease.handle, self.rows, self.deadline))
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
    return fail(self.lease, err, self.started)
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
    if not self.kept then
      self.rows:close()
    end
  end
end

--- Receive all rows that are left, and let them outlive the cursor: `rows` is the caller's then. Yields.
-- @treturn[1] int how many rows there are that nobody has taken
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Cursor:keep()
  local more, err
  repeat
    more, err = self:in_time()
    if more then
      more, err = self:receive()
    end
    if more == nil then
      return nil, err
    end
  until not more
  self.kept = true
  return self.rows:count()
end

return cursor
