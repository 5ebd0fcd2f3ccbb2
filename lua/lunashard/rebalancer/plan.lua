--- Plans of rebalancing: which buckets go where, packed into moves that are captured, fenced and flipped as one.
-- Pure: what it knows of a cluster is a `state`, a table of
--
-- - `group`: name of the group; `strategy`: its strategy's name
-- - `shards`: a list of `shard_id`, `weight`, `region`, `tags`, `buckets` (how many), `rows`, `bytes`, `load`, in the cluster's
--   order; only these can get buckets
-- - `buckets`: a list of `bucket`, `owner` (a shard_id), `rows`, `bytes`, `load`, `region` (where one is known), `is_giant`
-- - `place`: function(bucket) -> shard_id where the strategy would put it, or nil and why not; nil for a strategy that
--   says nothing of its own accord (`hash`)
-- - `residency`: rows of a region may live on that region's shards only
--
-- A policy says what moves where; `lunashard.rebalancer.proposal` checks that and makes assignments of it, a list of `bucket`
-- (an item of `state.buckets`) and `destination`.
-- @module lunashard.rebalancer.plan

local plan = {}

--- How much one move may carry. A bucket that has more is a move of its own.
-- @table LIMITS
plan.LIMITS = { rows = 10000, buckets = 250, bytes = 64 * 2 ^ 20 }

-- What a job was measured to take, for estimates: rows a second of one move, and what each move takes besides.
local ROWS_PER_SECOND, SECONDS_PER_MOVE = 60000, 0.2

local function new_move(source, destination)
  return { source = source, destination = destination, buckets = {}, rows = 0, bytes = 0 }
end

local function is_full(move, item, limits)
  return #move.buckets > 0 and (move.rows + item.rows > limits.rows or move.bytes + item.bytes > limits.bytes
    or #move.buckets >= limits.buckets)
end

-- Moves of each pair of shards, by the order in which the pairs first come.
local function by_pair(assignments, limits)
  local lists, order = {}, {}
  for _, one in ipairs(assignments) do
    local item = one.bucket
    local pair = item.owner .. "\0" .. one.destination
    local list = lists[pair]
    if not list then
      list = { new_move(item.owner, one.destination) }
      lists[pair], order[#order + 1] = list, list
    end
    local move = list[#list]
    if is_full(move, item, limits) then
      move = new_move(item.owner, one.destination)
      list[#list + 1] = move
    end
    move.buckets[#move.buckets + 1] = item.bucket
    move.rows, move.bytes = move.rows + item.rows, move.bytes + item.bytes
  end
  return order
end

--- Pack assignments into moves. Those of different shards alternate, so that several can be under way.
-- @tparam {table,...} assignments
-- @tparam ?table limits as `LIMITS`
-- @tparam ?{table,...} moves that come before, to which these are added
-- @treturn {table,...} each with `seq`, `source`, `destination`, `buckets` (a list), `rows`, `bytes`
function plan.pack(assignments, limits, moves)
  local lists, round = by_pair(assignments, limits or plan.LIMITS), 1
  moves = moves or {}
  repeat
    local before = #moves
    for _, list in ipairs(lists) do
      if list[round] then
        moves[#moves + 1] = list[round]
        list[round].seq = #moves
      end
    end
    round = round + 1
  until #moves == before
  return moves
end

-- What each shard has before and after.
local function balance(state, assignments)
  local shards, by_id = {}, {}
  local function entry(shard_id)
    if not by_id[shard_id] then
      by_id[shard_id] = { shard_id = shard_id, buckets = 0, rows = 0, bytes = 0, buckets_after = 0, rows_after = 0,
        bytes_after = 0, receives = 0 }
      shards[#shards + 1] = by_id[shard_id]
    end
    return by_id[shard_id]
  end
  for _, shard in ipairs(state.shards) do
    entry(shard.shard_id)
  end
  for _, item in ipairs(state.buckets) do
    local one = entry(item.owner)
    one.buckets, one.rows, one.bytes = one.buckets + 1, one.rows + item.rows, one.bytes + item.bytes
  end
  for _, one in ipairs(shards) do
    one.buckets_after, one.rows_after, one.bytes_after = one.buckets, one.rows, one.bytes
  end
  for _, one in ipairs(assignments) do
    local item, from, to = one.bucket, entry(one.bucket.owner), entry(one.destination)
    for name, by in pairs({ buckets_after = 1, rows_after = item.rows, bytes_after = item.bytes }) do
      from[name], to[name] = from[name] - by, to[name] + by
    end
    to.receives = to.receives + item.bytes
  end
  return shards
end

--- What moves are likely to take.
-- @tparam {table,...} moves
-- @number rows that they have
-- @int parallel moves at a time
-- @treturn number seconds
function plan.seconds(moves, rows, parallel)
  return #moves == 0 and 0 or rows / ROWS_PER_SECOND + #moves * SECONDS_PER_MOVE / math.max(1, parallel)
end

local function warnings_of(assignments, limits)
  local list = {}
  for _, one in ipairs(assignments) do
    local item = one.bucket
    if not item.is_giant and (item.rows > limits.rows or item.bytes > limits.bytes) then
      list[#list + 1] = ("bucket %s has %d rows (%d bytes), more than a move of %d: statements for it wait longer when it "
        .. "changes hands"):format(tostring(item.bucket), item.rows, item.bytes, limits.rows)
    end
  end
  return list
end

--- Make a plan of assignments.
-- @tparam table state
-- @tparam {table,...} assignments
-- @tparam[opt] table opts `limits`, `parallel` (moves at a time, for the estimate), `planner` (its name), `waves`: the
--   assignments in the lists of its waves
-- @treturn table `group`, `planner`, `moves`, `buckets`, `rows`, `bytes` (what moves), `total_rows`, `share` (of the rows, or
--   of the buckets when there are no rows; 0 to 1), `estimated_seconds`, `shards` (a list: `shard_id`, `buckets`, `rows`,
--   `bytes` and the same with `_after`, `receives`: bytes that arrive), `by` (`shard1->shard4` -> rows), `warnings`
function plan.make(state, assignments, opts)
  opts = opts or {}
  local limits = opts.limits or plan.LIMITS
  local moves, ends = {}, opts.waves and {} or nil
  for i, wave in ipairs(opts.waves or { assignments }) do
    plan.pack(wave, limits, moves)
    if ends then
      ends[i] = #moves
    end
  end
  local result = { group = state.group, planner = opts.planner, moves = moves, buckets = #assignments, rows = 0, bytes = 0,
    total_rows = 0, total_buckets = #state.buckets, by = {}, wave_ends = ends, giants = {},
    warnings = warnings_of(assignments, limits) }
  for _, item in ipairs(state.buckets) do
    result.total_rows = result.total_rows + item.rows
  end
  for _, one in ipairs(assignments) do
    result.giants[#result.giants + 1] = one.bucket.is_giant and one.bucket or nil
  end
  for _, move in ipairs(moves) do
    local way = move.source .. "->" .. move.destination
    result.by[way] = (result.by[way] or 0) + move.rows
    result.rows, result.bytes = result.rows + move.rows, result.bytes + move.bytes
  end
  if result.total_rows > 0 then
    result.share = result.rows / result.total_rows
  else
    result.share = #state.buckets > 0 and #assignments / #state.buckets or 0
  end
  result.estimated_seconds = plan.seconds(moves, result.rows, opts.parallel or 1)
  result.shards = balance(state, assignments)
  return result
end

--- Moves that undo others: the same buckets, the other way, the last first.
-- @tparam {table,...} moves `source`, `destination`, `buckets`, `rows`, `bytes`
-- @int after the number after which theirs begin
-- @treturn {table,...} as from `pack`
function plan.reverse(moves, after)
  local list = {}
  for i = #moves, 1, -1 do
    local move = moves[i]
    list[#list + 1] = { seq = after + #list + 1, source = move.destination, destination = move.source,
      buckets = move.buckets, rows = move.rows, bytes = move.bytes }
  end
  return list
end

return plan
