--- COPY on a lease, in both directions.
-- @module lunashard.pool.copy

local answers = require("lunashard.pool.answers")
local task = require("lunashard.task")

local copy = {}

local ANY_TEXT, answer, fail, now, settled = answers.ANY_TEXT, answers.result, answers.fail, task.now, answers.settled

local Copy = {}
Copy.__index = Copy
local CopyOut = {}
CopyOut.__index = CopyOut

local raw = {}

local function start(self, name, query)
  local lease = self.lease
  if not raw.copy_in then
    for _, method in ipairs({ "copy_in", "copy_write", "copy_end", "copy_out", "copy_read" }) do
      raw[method] = lease.handle[method]
    end
  end
  local request, err = settled(lease, self.started, raw[name](lease.handle, query, self.deadline))
  local ok
  if request then
    ok, err = request:take()
  end
  if not ok then
    return fail(lease, err, self.started)
  end
  return self
end

--- Start `COPY ... FROM STDIN`. Yields.
-- @tparam Lease lease
-- @string query the COPY command
-- @tparam table opts `deadline`, `columns`, `started` (when the call began, on the clock of `lunashard.now`)
-- @treturn[1] Copy
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function copy.into(lease, query, opts)
  return start(setmetatable({
    lease = lease, deadline = opts.deadline, columns = opts.columns, started = opts.started or now(),
  }, Copy), "copy_in", query)
end

--- Start `COPY ... TO STDOUT`. Yields.
-- @tparam Lease lease
-- @string query the COPY command
-- @tparam table opts `deadline`, `started`
-- @treturn[1] CopyOut
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function copy.out(lease, query, opts)
  return start(setmetatable({
    lease = lease, deadline = opts.deadline, started = opts.started or now(),
  }, CopyOut), "copy_out", query)
end

local function copy_write(self, data, n_columns)
  local request, err = settled(self.lease, self.started,
    raw.copy_write(self.lease.handle, data, n_columns, self.deadline))
  local ok
  if request then
    ok, err = request:take()
  end
  if not ok then
    return fail(self.lease, err, self.started)
  end
  return true
end

--- Send rows; returns when they have left this process. Yields.
-- @tparam {table,...} rows each a list of values, as long as the COPY command has columns
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Copy:write_rows(rows)
  return copy_write(self, rows, self.columns or #(rows[1] or {}))
end

--- Send bytes in the format that the COPY command names. Yields.
-- @string bytes
function Copy:write(bytes)
  return copy_write(self, bytes)
end

local function copy_end(self, reason, deadline)
  local lease, started = self.lease, self.started
  local request, err = settled(lease, started, raw.copy_end(lease.handle, reason, deadline))
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
  return copy_end(self, nil, self.deadline)
end

--- Abort COPY: nothing of it stays. Yields.
-- It is given a second, even after the deadline.
-- @string[opt] reason the server logs it
function Copy:abort(reason)
  local deadline = self.deadline and math.max(self.deadline, now() + 1)
  return copy_end(self, reason or "aborted by the client", deadline)
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
  local request, err = settled(self.lease, self.started, raw.copy_read(self.lease.handle, self.deadline))
  local bytes, more
  if request then
    bytes, more = request:take()
  end
  if bytes == nil then
    return fail(self.lease, request and more or err, self.started)
  elseif not more then
    local result
    result, err = answer(self.lease, request, ANY_TEXT, self.started)
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

return copy
