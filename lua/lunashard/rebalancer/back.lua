--- The way back: moves that undo what a job has done.
-- @module lunashard.rebalancer.back

local errors = require("lunashard.errors")
local plan = require("lunashard.rebalancer.plan")

local back = {}

-- What became of every bucket by the moves that are done: bucket -> `origin`, `now`.
local function net(moves)
  local buckets, last = {}, 0
  for _, move in ipairs(moves) do
    last = math.max(last, move.seq)
    if move.state == "done" then
      for _, bucket in ipairs(move.buckets) do
        buckets[bucket] = { origin = buckets[bucket] and buckets[bucket].origin or move.source, now = move.destination }
      end
    end
  end
  return buckets, last
end

--- Moves that lead back. Pure.
-- @tparam {table,...} moves of the job, by `seq`
-- @treturn {table,...} as from `plan.pack`
function back.moves(moves)
  local buckets, last = net(moves)
  local away = {}
  for _, move in ipairs(moves) do
    if move.state == "done" then
      local left = {}
      for _, bucket in ipairs(move.buckets) do
        local one = buckets[bucket]
        if one and one.now == move.destination and one.origin == move.source and one.now ~= one.origin then
          left[#left + 1] = bucket
          buckets[bucket] = nil
        end
      end
      if #left > 0 then
        local share = #left / #move.buckets
        away[#away + 1] = { source = move.source, destination = move.destination, buckets = left,
          rows = move.rows_copied * share, bytes = move.bytes * share }
      end
    end
  end
  return plan.reverse(away, last)
end

local OWNERS = "SELECT bucket, shard_id FROM lunashard_catalog.bucket WHERE grp = $1"

--- The same, unless a bucket has gone elsewhere since. Yields.
-- @tparam table catalog
-- @tparam table row the job, from `job.read`
-- @tparam ?number deadline
-- @treturn[1] {table,...}
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function back.plan(catalog, row, deadline)
  local moves = back.moves(row.moves)
  local result, err = catalog:execute(OWNERS, { row.grp }, deadline)
  if not result then
    return nil, err
  end
  local owners = {}
  for _, one in ipairs(result.rows) do
    owners[one.bucket] = one.shard_id
  end
  for _, move in ipairs(moves) do
    for _, bucket in ipairs(move.buckets) do
      if owners[bucket] ~= move.source then
        return nil, errors.new("INVALID", {
          message = ("bucket %s has been moved again since job %d, to %s: roll back the later job first"):format(bucket, row.id,
            tostring(owners[bucket])),
        })
      end
    end
  end
  return moves
end

return back
