--- What `lunashard new planner` writes: a policy that says what moves where.
-- @module lunashard.cli.new.planner

return {
  plugin = [=[
-- $NAME: what is on shards tagged `retiring` goes to the others, each bucket to whoever has the fewest rows then.
-- lunashard rebalance plan --planner $NAME

return {
  api = 1, kind = "policy", name = "$NAME",

  -- state.shards: those that can get buckets, each with shard_id, weight, region, tags, buckets, rows, bytes, load;
  -- state.buckets: bucket, owner (a shard_id), rows, bytes, load, region. Return a list of moves, { bucket = , to = }, or nil
  -- and why there is none. All of it is checked: one move that makes no sense, and nothing moves.
  plan = function(state, options)
    local rows, retiring, moves = {}, {}, {}
    for _, shard in ipairs(state.shards) do
      retiring[shard.shard_id] = shard.tags.retiring
      rows[shard.shard_id] = not shard.tags.retiring and shard.rows or nil
    end
    for _, item in ipairs(state.buckets) do
      local best
      for _, shard in ipairs(retiring[item.owner] and state.shards or {}) do
        local id = shard.shard_id
        best = rows[id] and (not best or rows[id] < rows[best]) and id or best
      end
      if best then
        moves[#moves + 1] = { bucket = item.bucket, to = best }
        rows[best] = rows[best] + item.rows
      end
    end
    return moves
  end,
}
]=],
  spec = [=[
local testing = require("lunashard.testing")

describe("the policy $NAME", function()
  local plugin

  setup(function()
    plugin = testing.load($PATH)
  end)

  it("empties shards that retire, and leaves the others alone", function()
    local shards = {
      { shard_id = "s1", rows = 50, tags = {} },
      { shard_id = "s2", rows = 40, tags = {} },
      { shard_id = "s3", rows = 30, tags = { retiring = true } },
    }
    local buckets = { { bucket = 1, owner = "s1", rows = 50 }, { bucket = 2, owner = "s3", rows = 20 },
      { bucket = 3, owner = "s3", rows = 10 } }
    assert.same({ { bucket = 2, to = "s2" }, { bucket = 3, to = "s1" } }, plugin.plan({ shards = shards, buckets = buckets }, {}))
  end)
end)
]=],
}
