--- Reducers over streams: rows are folded as they arrive, so memory does not grow with them.
-- Each shard folds into an accumulator of its own; they are merged in the shards' order, so
-- that the outcome does not depend on who was faster. Reads that gave few rows so far share connections
-- and are received whole.
-- @module lunashard.router.reducing

local aggregate = require("lunashard.aggregate")
local attempt = require("lunashard.router.attempt")
local cursors = require("lunashard.router.cursors")
local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local order = require("lunashard.order")
local reads = require("lunashard.router.reads")
local texts = require("lunashard.pool.texts")

local reducing = {}

local FETCH_SIZE = 1000
local SMALL = 2 ^ 20 -- bytes of a result that is held whole

--- Does this aggregation take rows one by one?
-- @param value
-- @treturn boolean
function reducing.is_reducer(value)
  if aggregate.is(value) then
    return value.plugin.step ~= nil
  end
  return type(value) == "table" and type(value.init) == "function" and type(value.step) == "function"
    and type(value.merge) == "function" and type(value.finish) == "function"
end

local traced = errors.tracer("the reducer")

local function step_failed(err)
  return nil, errors.is(err) and err or errors.new("PLUGIN_FAILED", {
    message = err ~= nil and "the reducer failed: " .. tostring(err)
      or "the reducer's step returned nothing; it must return the accumulator",
    cause = err,
  })
end

-- Some reducers want the rows as they were received, all of them.
local function keep(source, reducer, shard_id)
  local n, err = source.keep()
  if not n then
    return nil, err
  end
  local kept = {
    rows = source.rows,
    shard_id = shard_id,
    columns = source.columns(),
    column_types = source.column_types(),
    decode_json = source.decode_json,
  }
  return {
    acc = reducer.plugin.keep(reducer:init(), kept),
    row_count = n,
    rows = {},
    columns = kept.columns,
    column_types = kept.column_types,
  }
end

local function fold(source, reducer, shard_id)
  if aggregate.is(reducer) and aggregate.keeps(reducer) then
    return keep(source, reducer, shard_id)
  end
  local acc, n = reducer:init(), 0
  local types = order.types({ columns = source.columns(), column_types = source.column_types() })
  while true do
    local rows, err = source.next_rows()
    if rows == nil then
      if err then
        return nil, err
      end
      return { acc = acc, row_count = n, rows = {}, columns = source.columns(), column_types = source.column_types() }
    end
    for i = 1, #rows do
      acc, err = reducer:step(acc, rows[i], shard_id, types)
      if acc == nil then
        return step_failed(err)
      end
    end
    n = n + #rows
  end
end

-- Fold what a source gives. Yields when it has to wait.
local function run_on(source, endpoint, how)
  local ok, result, err = xpcall(fold, traced, source, how.reducer, endpoint.shard_id)
  source.close()
  if not ok then
    if errors.is(result, "CANCELED") then
      error(result, 0)
    end
    return nil, result
  elseif not result then
    return nil, err
  end
  result.success, result.endpoint, result.duration = true, endpoint.name, source.elapsed()
  return result
end

local function nothing() end

-- A result that was received whole, as a source.
local function source_of(answer)
  local rows = answer.rows
  return {
    columns = function()
      return answer.columns
    end,
    column_types = function()
      return answer.column_types
    end,
    next_rows = function()
      local list = rows
      rows = nil
      return list and list[1] and list
    end,
    elapsed = function()
      return answer.duration
    end,
    close = nothing,
  }
end

-- An answer of a row or two needs no connection of its own.
local function run_small(endpoint, sql, params, how)
  local pool = endpoint.pool
  local answer, err = pool:execute(sql, params, {
    deadline = how.deadline,
    read_only = how.read_only,
    decode_json = how.decode_json,
    max_result_bytes = SMALL,
    generation = how.generation,
    late = how.generation and pool:late(sql, how.read_only),
    guard = how.guard,
  })
  if answer then
    return run_on(source_of(answer), endpoint, how)
  elseif err.code == "RESULT_TOO_LARGE" then
    texts.note_large(pool, sql)
  end
  return nil, err
end

local run_once
function run_once(endpoint, sql, params, how)
  local pool = endpoint.pool
  local is_standby = how.guard and endpoint ~= how.member.primary
  if how.may_share and not is_standby and texts.is_small(pool, sql) then
    local result, err = run_small(endpoint, sql, params, how)
    if result or err.code ~= "RESULT_TOO_LARGE" then
      return result, err
    end
  end
  local source, err = cursors.open(endpoint, sql, params, how)
  if not source and is_standby and guarding.is_stale(err) then -- what it has not heard of yet, the primary has
    return run_once(how.member.primary, sql, params, how)
  elseif not source then
    return nil, err
  end
  local result
  result, err = run_on(source, endpoint, how)
  if result and how.may_share then
    texts.note_size(pool, sql, result.row_count)
  end
  return result, err
end

--- Fold the rows of one shard. Yields.
-- @tparam Router router
-- @tparam table member
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `scatter_gather`
-- @number deadline
-- @tparam table reducer
-- @tparam table|number under what it relies on, see `lunashard.router.guarding`
-- @treturn[1] table shard result with `acc` and without rows
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function reducing.run(router, member, sql, params, opts, deadline, reducer, under)
  local is_guard = type(under) == "table"
  local retries = opts.retries or router.retries
  local result, err = attempt.run(router, member, reads.wishes(opts), retries, deadline, run_once, sql, params, {
    deadline = deadline,
    started = deadline - (opts.timeout or router.query_timeout),
    read_only = opts.read_only,
    decode_json = opts.decode_json,
    fetch_size = FETCH_SIZE,
    reducer = reducer,
    member = member,
    manager = router.manager,
    guard = is_guard and under or nil,
    generation = not is_guard and under or nil,
    may_share = opts.pipeline ~= false and not (aggregate.is(reducer) and aggregate.keeps(reducer)),
  })
  if err then
    err.elapsed = router:elapsed(opts, deadline)
  end
  return result, err
end

--- Merge the shards' accumulators into the answer.
-- @tparam table reducer
-- @tparam {table,...} results
-- @treturn[1] table row or rows
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function reducing.finish(reducer, results)
  local total
  for _, result in ipairs(results) do
    if result.acc ~= nil then
      local err
      if total == nil then
        total = result.acc
      else
        total, err = reducer:merge(total, result.acc)
        if total == nil then
          return nil, err
        end
      end
      result.acc = nil
    end
  end
  if total == nil then
    total = reducer:init()
  end
  return reducer:finish(total)
end

return reducing
