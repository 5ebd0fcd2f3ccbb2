--- Rows of one statement on one shard, one at a time.
-- A source holds a connection until it is closed or its task ends.
-- @module lunashard.router.cursors

local task = require("lunashard.task")

local cursors = {}

local FETCH_SIZE = 500

--- Start a statement on a lease. Yields.
-- @tparam table lease
-- @string sql
-- @tparam ?table params
-- @tparam table how `deadline`, `read_only`, `decode_json`, `fetch_size`
-- @treturn[1] table source: `next()` gives a row, nil at the end, or nil and an error; `columns()`,
--   `column_types()`, `elapsed()` seconds, `close()`; the lease stays the caller's
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function cursors.on_lease(lease, sql, params, how)
  local started = task.now()
  local cursor, err = lease:stream(sql, params, {
    deadline = how.deadline,
    read_only = how.read_only,
    decode_json = how.decode_json,
  })
  if not cursor then
    return nil, err
  end
  local rows, at, size, ended = {}, 0, how.fetch_size or FETCH_SIZE, false
  local source = {}

  function source.next()
    at = at + 1
    local row = rows[at]
    if row ~= nil or ended then
      return row
    end
    local problem
    rows, problem = cursor:fetch(size)
    at = 1
    if not rows or rows[1] == nil then
      rows, ended = {}, true
      return nil, problem
    end
    return rows[1]
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
    ended, rows = true, {}
    cursor:close()
  end

  return source
end

--- Take a connection and start a statement on it. Yields.
-- @tparam table endpoint
-- @string sql
-- @tparam ?table params
-- @tparam table how as for @{on_lease}
-- @treturn[1] table source, whose `close` gives the connection back
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function cursors.open(endpoint, sql, params, how)
  local lease, err = endpoint.pool:acquire(how.deadline)
  if not lease then
    return nil, err
  end
  local ok, source
  ok, source, err = pcall(cursors.on_lease, lease, sql, params, how)
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
