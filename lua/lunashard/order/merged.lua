--- Sorted streams of several shards as one.
-- Rows are compared in C, as they were received; only those that are handed out become tables.
-- @module lunashard.order.merged

local core = require("lunashard.core.rows")
local errors = require("lunashard.errors")
local merge = require("lunashard.order.merge")
local order = require("lunashard.order")
local values = require("lunashard.values")

local merged = {}

-- Families of `lunashard.order.sortkey` as the core knows them; those not named here are the same there.
local FAMILIES = { text = "bytes", uuid = "bytes", bytea = "bytes", time = "bytes", char = "padded" }

local ALL = 2 ^ 31 - 1

-- The column that a row table would show under this name: the last one.
local function column_number(names, wanted)
  for i = #names, 1, -1 do
    if names[i] == wanted then
      return i
    end
  end
end

-- What the order means for each source; nil and an error where it means nothing.
local function bind(items, sources)
  local bound = {}
  for i, source in ipairs(sources) do
    local made, err = order.bind(items, order.types({ columns = source.columns(), column_types = source.column_types() }),
      source.shard_id)
    local ok = made ~= nil
    if ok and i > 1 then
      ok, err = order.check_same(bound[1], made)
    end
    if not ok then
      return nil, err
    end
    bound[i] = made
  end
  return bound
end

local function new_merger(items, sources, bound)
  local core_items, core_sources = {}, {}
  for k, item in ipairs(items) do
    local family = bound[1].family[k]
    core_items[k] = { family = FAMILIES[family] or family, desc = item.desc, nulls_first = item.nulls_first }
  end
  for i, source in ipairs(sources) do
    local columns = {}
    for k, item in ipairs(items) do
      columns[k] = column_number(source.columns(), item.column)
    end
    core_sources[i] = { rows = source.rows, columns = columns, shard_id = source.shard_id }
  end
  return core.merge(core_items, core_sources)
end

-- The error for a merge that stopped.
local function failure(why, bound, number, row_number, item, text)
  if why == "unsorted" then
    return merge.out_of_order(bound[number].shard_id, row_number)
  elseif why == "misfit" then
    return order.misplaced(bound[number], item, text)
  end
  return errors.new("SHARD_DOWN", {
    message = "a row was received that makes no sense",
    shard_id = bound[number].shard_id,
  })
end

--- Merge sources that are each in the given order.
-- A source whose rows are not is found out, and ends the merge with an error after the rows before.
-- @tparam table items an order from @{lunashard.order.parse}
-- @tparam {table,...} sources see `lunashard.router.cursors`, with `shard_id`
-- @int size how many rows to give at a time
-- @tparam ?boolean decode_json
-- @treturn[1] func gives a list of rows and that of their shard_ids; nil at the end; nil and a `lunashard.error`.
--   Yields when a source has to wait for its server.
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` for an unknown column, `NOT_MERGEABLE`
function merged.pull(items, sources, size, decode_json)
  local bound, err = bind(items, sources)
  if not bound then
    return nil, err
  end
  local merger, wanting, ended, problem = new_merger(items, sources, bound), nil, false, nil

  -- Called when a source has run dry: false when it cannot go on.
  local function refill()
    local more, receive_err = sources[wanting].receive()
    if more == nil then
      problem = receive_err
      return false
    elseif not more then
      merger:ended(wanting)
    end
    wanting = nil
    return true
  end

  local function note(why, number, ...)
    if why == "wants" then
      wanting = number
    elseif why == "end" then
      ended = true
    elseif why then
      problem = failure(why, bound, number, ...)
    end
  end

  local function check_time()
    for _, source in ipairs(sources) do
      local ok, late = source.in_time()
      if not ok then
        problem = late
      end
    end
  end

  return function()
    check_time()
    while not ended and not problem do
      if wanting == nil or refill() then
        local list, shard_ids = {}, {}
        local n, why, number, row_number, item, text = merger:take(list, shard_ids, size)
        note(why, number, row_number, item, text)
        if n > 0 and decode_json then
          local ok, decode_err = values.decode_json({
            columns = sources[1].columns(),
            column_types = sources[1].column_types(),
            rows = list,
          })
          if not ok then
            return nil, decode_err
          end
        end
        if n > 0 then
          return list, shard_ids
        end
      end
    end
    return nil, problem
  end
end

local function constant(value)
  return function()
    return value
  end
end

--- Merge rows that have all been received; they are gone afterwards.
-- @tparam table items an order from @{lunashard.order.parse}
-- @tparam {table,...} kept each `{ rows =, columns =, column_types =, shard_id =, decode_json = }`
-- @treturn[1] {table,...} rows
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function merged.all(items, kept)
  local sources = {}
  for i, one in ipairs(kept) do
    sources[i] = {
      rows = one.rows,
      shard_id = one.shard_id,
      columns = constant(one.columns),
      column_types = constant(one.column_types),
      receive = constant(false),
      in_time = constant(true),
    }
  end
  local pull, err = merged.pull(items, sources, ALL, kept[1].decode_json)
  local rows = {}
  while pull do
    local list, problem = pull()
    if list == nil then
      err = problem
      break
    end
    table.move(list, 1, #list, #rows + 1, rows)
  end
  for _, one in ipairs(kept) do
    one.rows:close()
  end
  if err ~= nil then
    return nil, err
  end
  return rows
end

return merged
