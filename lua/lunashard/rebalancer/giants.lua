--- Buckets that are too large to move.
-- A bucket cannot be divided: all its rows are taken into the destination's tables and compared in one transaction. Where SQL
-- can tell the bucket of a row that is done before the bucket is closed, but it has to come to an end; for a strategy that only
-- Lua knows it is done while the bucket is closed, for `max_cutover` at the most. What would not end in time is refused
-- before anything begins, rather than given up after hours of copying.
-- @module lunashard.rebalancer.giants

local errors = require("lunashard.errors")

local giants = {}

-- What taking rows into a table and comparing them takes on one slow core: a careful guess.
local ROWS_PER_SECOND, BYTES_PER_SECOND, EMPTY = 50000, 32 * 2 ^ 20, 0.1

local NAMED = 5 -- in a message

--- Seconds that the transaction has which takes in the rows of a bucket that is still open: a mover waits for 30 s.
-- @table MERGE
giants.MERGE = { seconds = 25 }

--- How long a bucket's rows may take.
-- @tparam table how `in_sql`: SQL can tell the bucket of a row; `strategy` of the job; `max_cutover`
-- @treturn table `seconds`, `is_open`: its statements go on meanwhile
function giants.limit(how)
  if how.strategy == "offline" then
    return { seconds = math.huge }
  elseif how.in_sql then
    return { seconds = giants.MERGE.seconds, is_open = true }
  end
  return { seconds = how.max_cutover }
end

--- How long a bucket's rows take.
-- @tparam table item of a state's `buckets`
-- @treturn number seconds
function giants.seconds(item)
  return EMPTY + item.rows / ROWS_PER_SECOND + item.bytes / BYTES_PER_SECOND
end

--- Find them: they get `is_giant`.
-- @tparam table state
-- @tparam table limit from `limit`
function giants.mark(state, limit)
  for _, item in ipairs(state.buckets) do
    item.is_giant = giants.seconds(item) > limit.seconds or nil
  end
end

--- A giant in words.
-- @tparam table item
-- @tparam table limit
-- @treturn string
function giants.describe(item, limit)
  local what = limit.is_open
    and "taking them in and comparing them in one transaction would take about %.1f s, and there are %g s"
    or "when it changes hands its statements would wait for about %.1f s, and max_cutover is %g s"
  return ("bucket %s on %s has %.0f rows (%.0f MiB): " .. what):format(tostring(item.bucket), item.owner, item.rows,
    item.bytes / 2 ^ 20, giants.seconds(item), limit.seconds)
end

--- The refusal of a plan that would move some.
-- @tparam {table,...} items
-- @tparam table limit
-- @treturn lunashard.error `INVALID` with `problems`
function giants.refusal(items, limit)
  local problems, longest = {}, 0
  for i, item in ipairs(items) do
    longest = math.max(longest, giants.seconds(item))
    problems[i] = { shard_id = item.owner, message = i <= NAMED and giants.describe(item, limit)
      or ("and %d more"):format(#items - NAMED) }
    if i > NAMED then
      break
    end
  end
  return errors.new("INVALID", {
    message = problems[1].message .. (#items > 1 and ("; and %d more such buckets"):format(#items - 1) or ""),
    problems = problems,
    hint = (limit.is_open and "" or ("let them wait (--max-cutover %d), "):format(math.ceil(longest * 1.5)))
      .. "close the bucket while it is copied (--offline), leave it where it is (--even and others do), or give its largest keys "
      .. "buckets of their own",
  })
end

return giants
