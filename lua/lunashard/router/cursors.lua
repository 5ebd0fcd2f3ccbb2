--- Rows of one statement on one shard, as they come.
-- A source holds a connection until it is closed or its task ends.
-- @module lunashard.router.cursors

local guarding = require("lunashard.router.guarding")
local lease_of_map = require("lunashard.catalog.lease")
local task = require("lunashard.task")

local cursors = {}

--- How many rows become tables at a time.
cursors.FETCH_SIZE = 500

--- Start a statement on a lease. Yields.
-- @tparam table lease
-- @string sql
-- @tparam ?table params
-- @tparam table how `deadline`, `started`, `read_only`, `decode_json`, `fetch_size`
-- @treturn[1] table source: `next_rows()` gives a list of rows, nil at the end, or nil and an error; `rows`, those
--   that nobody has taken yet (see `lunashard.core.rows`), and `receive()`, which waits for more (false at the end, or
--   nil and an error), `in_time()` (true, or nil and an error), `keep()` (receives all, which then outlive
--   the source, and gives their number, or nil and an error); `columns()`, `column_types()`, `elapsed()` seconds,
--   `close()`; the lease stays the caller's
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function cursors.on_lease(lease, sql, params, how)
  local started = task.now()
  local cursor, err = lease:stream(sql, params, {
    started = how.started,
    deadline = how.deadline,
    read_only = how.read_only,
    decode_json = how.decode_json,
  })
  if not cursor then
    return nil, err
  end
  local size = how.fetch_size or cursors.FETCH_SIZE
  local source = { rows = cursor.rows, decode_json = how.decode_json }

  function source.next_rows()
    local rows, problem = cursor:next_rows(size)
    if not rows or rows[1] == nil then
      return nil, problem
    end
    return rows
  end

  function source.receive()
    return cursor:receive()
  end

  function source.in_time()
    return cursor:in_time()
  end

  function source.keep()
    return cursor:keep()
  end

  function source.columns()
    return cursor.columns
  end

  function source.column_types()
    return cursor.column_types
  end

  function source.elapsed()
    return task.now() - started
  end

  function source.close()
    cursor:close()
  end

  return source
end

--- Begin to read behind a guard: in a transaction whose one snapshot is as the guard wants it. Yields.
-- No lock is needed for that, which a long read would keep from those who move rows.
-- @tparam table lease
-- @tparam ?table guard see `lunashard.router.guards`; nil: the snapshot alone
-- @tparam ?number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function cursors.begin(lease, guard, deadline)
  local ok, err = lease:execute("BEGIN ISOLATION LEVEL REPEATABLE READ", nil, { deadline = deadline })
  if ok then
    ok, err = lease:execute(guard and guard.replica or "SELECT", guard and guard.params, { deadline = deadline })
  end
  return ok, err
end

--- Start a statement on a lease, behind a guard. Yields.
-- @tparam table lease
-- @string sql
-- @tparam ?table params
-- @tparam table how as for @{on_lease}, with `guard`
-- @treturn[1] table source
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function cursors.guarded(lease, sql, params, how)
  local ok, err = cursors.begin(lease, how.guard, how.deadline)
  if not ok then
    return nil, err
  end
  return cursors.on_lease(lease, sql, params, how)
end

--- Take a connection and start a statement on it. Yields.
-- @tparam table endpoint
-- @string sql
-- @tparam ?table params
-- @tparam table how as for @{on_lease}; `guard`, or `generation` and `manager`, that it relies on
-- @treturn[1] table source, whose `close` gives the connection back
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function cursors.open(endpoint, sql, params, how)
  local lease, err = endpoint.pool:acquire(how.deadline, how.generation)
  if not lease then
    return nil, err
  end
  local ok, source
  ok, source, err = pcall(how.guard and cursors.guarded or cursors.on_lease, lease, sql, params, how)
  if ok and source and (how.generation or 0) > 0 and not lease_of_map.holds(how.manager, how.generation) then
    source.close()
    source, err = guarding.changed()
  end
  if not ok or not source then
    lease:release()
    if not ok then
      error(source, 0)
    end
    return nil, err
  end
  local close = source.close
  function source.close()
    close()
    lease:release()
  end
  return source
end

return cursors
