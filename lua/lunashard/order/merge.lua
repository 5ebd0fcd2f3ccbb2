--- Merging sorted streams of rows.
-- A binary heap holds the next row of every source; each step costs one comparison path, and
-- memory is one row a source. Nothing here waits, but a source's `next` may: no sort or
-- metamethod of C lies between.
-- @module lunashard.order.merge

local errors = require("lunashard.errors")
local order = require("lunashard.order")

local merge = {}

-- Equal rows come out in the order of the sources.
local function is_before(items, a, b)
  local by = order.compare(items, a.keys, b.keys)
  return by < 0 or (by == 0 and a.index < b.index)
end

local function sift_down(items, heap, at)
  local moving = heap[at]
  while true do
    local child = at * 2
    if heap[child + 1] and is_before(items, heap[child + 1], heap[child]) then
      child = child + 1
    end
    if not heap[child] or not is_before(items, heap[child], moving) then
      break
    end
    heap[at] = heap[child]
    at = child
  end
  heap[at] = moving
end

--- The error for a row that comes before the one above it.
-- @tparam ?string shard_id
-- @int row_number
-- @treturn lunashard.error `NOT_MERGEABLE`
function merge.out_of_order(shard_id, row_number)
  return errors.new("NOT_MERGEABLE", {
    message = ("row %d of shard %s comes before the row above it in the order asked for: "
      .. "the statement's ORDER BY must say the same"):format(row_number, tostring(shard_id)),
    shard_id = shard_id,
    row_number = row_number,
  })
end

-- Load the next row of a source into its head. false at the end of the source.
local function advance(items, head, first)
  local source = head.source
  local row, err = source.next()
  if row == nil then
    if err ~= nil then
      return nil, err
    end
    return false
  end
  head.row_number = head.row_number + 1
  if head.bound == nil then
    local types = source.types
    head.bound, err = order.bind(items, type(types) == "function" and types() or types, source.shard_id)
    if not head.bound then
      return nil, err
    end
    if first.bound then
      local same
      same, err = order.check_same(first.bound, head.bound)
      if not same then
        return nil, err
      end
    else
      first.bound = head.bound
    end
  end
  local keys
  keys, err = head.bound:keys(row)
  if not keys then
    return nil, err
  end
  if head.keys and order.compare(items, keys, head.keys) < 0 then
    return nil, merge.out_of_order(source.shard_id, head.row_number)
  end
  head.row, head.keys = row, keys
  return true
end

--- Merge sources that are each in the given order.
-- A source whose rows are not is found out, and ends the merge with an error.
-- @tparam table items an order from @{lunashard.order.parse}
-- @tparam {table,...} sources each `{ next =, shard_id =, types = }`: `next()` gives a row, or
--   nil at the end, or nil and an error, and may yield; `types` is a table of column name ->
--   SQL type, or a function that gives one after the first row
-- @treturn function gives a row and its shard_id; nil at the end; nil and a `lunashard.error`
--   (`NOT_MERGEABLE`, `INVALID`, or what `next` gave) on failure. Yields when `next` does.
function merge.rows(items, sources)
  local heap, first, started, failure = {}, {}, false, nil

  local function fail(err)
    heap, failure = {}, err
    return nil, err
  end

  local function start()
    for i, source in ipairs(sources) do
      local head = { index = i, source = source, row_number = 0 }
      local loaded, err = advance(items, head, first)
      if loaded == nil then
        return nil, err
      elseif loaded then
        heap[#heap + 1] = head
      end
    end
    for at = math.floor(#heap / 2), 1, -1 do
      sift_down(items, heap, at)
    end
    return true
  end

  return function()
    if failure then
      return nil, failure
    elseif not started then
      started = true
      local ok, err = start()
      if not ok then
        return fail(err)
      end
    end
    local head = heap[1]
    if head == nil then
      return nil
    end
    local row, shard_id = head.row, head.source.shard_id
    local loaded, err = advance(items, head, first)
    if loaded == nil then
      return fail(err)
    elseif not loaded then
      heap[1] = heap[#heap]
      heap[#heap] = nil
    end
    if heap[1] then
      sift_down(items, heap, 1)
    end
    return row, shard_id
  end
end

return merge
