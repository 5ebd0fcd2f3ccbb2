--- From requests to results. For the parts of `lunashard.pool`.
-- @module lunashard.pool.answers

local core = require("lunashard.core.pool")
local core_task = require("lunashard.core.task")
local task = require("lunashard.task")
local values = require("lunashard.values")

local answers = {}

local now = task.now
local CANCELED = core_task.CANCELED

--- Put on an error where it came from.
-- @tparam table owner with `shard_id` and `endpoint`
-- @tparam lunashard.error err
-- @tparam ?number started on the clock of `lunashard.now`
-- @treturn nil
-- @treturn lunashard.error
function answers.fail(owner, err, started)
  err.shard_id = owner.shard_id
  err.endpoint = owner.endpoint
  err.elapsed = started and now() - started
  return nil, err
end

-- Requests are used again and again. One whose task was cancelled does not come back, and is collected.
local free, n_free, MAX_FREE = {}, 0, 1024

--- A request for a statement.
-- @treturn userdata
function answers.request()
  if n_free == 0 then
    return core.request()
  end
  local request = free[n_free]
  free[n_free], n_free = nil, n_free - 1
  return request
end

--- For statements without a text of their own.
answers.ANY_TEXT = core.text("")

local request_answer

--- What a request received, as the public result. The request may be used again from then on.
-- @tparam table owner with `shard_id` and `endpoint`
-- @tparam userdata request
-- @tparam userdata text the statement's
-- @tparam ?number started
-- @tparam ?boolean decode_json
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function answers.result(owner, request, text, started, decode_json)
  request_answer = request_answer or request.answer
  local rows, columns, column_types, row_count, command, duration = request_answer(request, text)
  if n_free < MAX_FREE then
    n_free = n_free + 1
    free[n_free] = request
  end
  if not rows then
    return answers.fail(owner, columns, started)
  end
  -- Constants first: bytecode keeps a table's keys only where their values are constants, and without
  -- them the table would grow five times.
  local result = {
    rows = false,
    columns = false,
    column_types = false,
    row_count = false,
    command = false,
    duration = false,
    success = true,
    attempts = 1, -- here, so that who counts them adds no field
    shard_id = false,
    endpoint = false,
  }
  result.rows, result.columns, result.column_types, result.row_count = rows, columns, column_types, row_count
  result.command, result.duration, result.shard_id, result.endpoint = command, duration, owner.shard_id, owner.endpoint
  if decode_json then
    local err
    result, err = values.decode_json(result)
    if not result then
      return answers.fail(owner, err, started)
    end
  end
  return result
end

--- Raise that the task was cancelled while it waited for a server.
-- @tparam table owner with `shard_id` and `endpoint`
-- @number started
function answers.cancelled(owner, started)
  task.raise_cancelled({ shard_id = owner.shard_id, endpoint = owner.endpoint, elapsed = now() - started })
end

--- What a binding that waits left: a request or lease, which says itself how it went, or nil and an error.
-- Raises in a cancelled task.
-- @tparam table owner with `shard_id` and `endpoint`
-- @number started
-- @tparam ?userdata handle
-- @param ok_or_err
-- @treturn[1] userdata
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function answers.settled(owner, started, handle, ok_or_err)
  if handle == CANCELED then
    answers.cancelled(owner, started)
  end
  return handle, handle == nil and ok_or_err or nil
end

return answers
