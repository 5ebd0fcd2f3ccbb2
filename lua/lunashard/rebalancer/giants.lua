--- Buckets that are too large to change hands in the time that there is.
-- Between fence and merge all rows of a move are compared on both sides and taken into the destination's tables; that takes
-- as long as there are rows, and statements for the bucket wait all the while. A bucket cannot be divided, so one that is
-- too large for `max_cutover` is refused before anything begins, rather than given up after hours of copying.
-- @module lunashard.rebalancer.giants

local errors = require("lunashard.errors")

local giants = {}

-- What a cutover was measured to take on one slow core, besides what it takes with no rows at all.
local ROWS_PER_SECOND, BYTES_PER_SECOND, EMPTY = 50000, 32 * 2 ^ 20, 0.1

local NAMED = 5 -- in a message

--- How long a bucket's statements would wait.
-- @tparam table item of a state's `buckets`
-- @treturn number seconds
function giants.seconds(item)
  return EMPTY + item.rows / ROWS_PER_SECOND + item.bytes / BYTES_PER_SECOND
end

--- Find them: they get `is_giant`.
-- @tparam table state
-- @number max_cutover seconds
function giants.mark(state, max_cutover)
  for _, item in ipairs(state.buckets) do
    item.is_giant = giants.seconds(item) > max_cutover or nil
  end
end

--- A giant in words.
-- @tparam table item
-- @number max_cutover seconds
-- @treturn string
function giants.describe(item, max_cutover)
  return ("bucket %s on %s has %.0f rows (%.0f MiB): when it changes hands its statements would wait for about %.1f s, and "
    .. "max_cutover is %g s"):format(tostring(item.bucket), item.owner, item.rows, item.bytes / 2 ^ 20, giants.seconds(item),
    max_cutover)
end

--- The refusal of a plan that would move some.
-- @tparam {table,...} items
-- @number max_cutover seconds
-- @treturn lunashard.error `INVALID` with `problems`
function giants.refusal(items, max_cutover)
  local problems, longest = {}, 0
  for i, item in ipairs(items) do
    longest = math.max(longest, giants.seconds(item))
    problems[i] = { shard_id = item.owner, message = i <= NAMED and giants.describe(item, max_cutover)
      or ("and %d more"):format(#items - NAMED) }
    if i > NAMED then
      break
    end
  end
  return errors.new("INVALID", {
    message = problems[1].message .. (#items > 1 and ("; and %d more such buckets"):format(#items - 1) or ""),
    problems = problems,
    hint = ("let them wait (--max-cutover %d), close the bucket while it is copied (--offline), leave it where it is (--even "
      .. "and others do), or give its largest keys buckets of their own"):format(math.ceil(longest * 1.5)),
  })
end

return giants
