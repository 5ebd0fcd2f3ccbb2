local plan = require("lunashard.rebalancer.plan")

local function state_of(sizes, limits)
  local state = { group = "int8", shards = { { shard_id = "a" }, { shard_id = "b" }, { shard_id = "c" } }, buckets = {} }
  for i, size in ipairs(sizes) do
    state.buckets[i] = { bucket = i - 1, owner = size[1], rows = size[2], bytes = size[2] * 100 }
  end
  return state, limits
end

local function all_to(state, destination)
  local list = {}
  for i, item in ipairs(state.buckets) do
    list[i] = { bucket = item, destination = destination }
  end
  return list
end

describe("a plan", function()
  it("packs buckets into moves until these have as many rows, buckets or bytes as one may", function()
    local state = state_of({ { "a", 4 }, { "a", 5 }, { "a", 2 }, { "a", 0 }, { "a", 0 }, { "a", 9 } })
    local limits = { rows = 10, buckets = 3, bytes = 1e9 }
    local moves = plan.pack(all_to(state, "c"), limits)
    assert.same({ { 0, 1 }, { 2, 3, 4 }, { 5 } }, { moves[1].buckets, moves[2].buckets, moves[3].buckets })
    assert.same({ 9, 2, 9 }, { moves[1].rows, moves[2].rows, moves[3].rows })
    limits.bytes = 450
    assert.same({ 0 }, plan.pack(all_to(state, "c"), limits)[1].buckets)
  end)

  it("gives a bucket that is larger than a move a move of its own, and says so", function()
    local state = state_of({ { "a", 4 }, { "a", 50000 }, { "a", 4 } })
    local made = plan.make(state, all_to(state, "c"))
    assert.equal(3, #made.moves)
    assert.same({ 1 }, made.moves[2].buckets)
    assert.equal(1, #made.warnings)
    assert.truthy(made.warnings[1]:find("bucket 1 has 50000 rows", 1, true))
  end)

  it("lets moves of different shards alternate and numbers them in their order", function()
    local state = state_of({ { "a", 9 }, { "a", 9 }, { "a", 9 }, { "b", 9 } })
    local moves = plan.pack(all_to(state, "c"), { rows = 10, buckets = 9, bytes = 1e9 })
    local order = {}
    for i, move in ipairs(moves) do
      assert.equal(i, move.seq)
      order[i] = move.source
    end
    assert.same({ "a", "b", "a", "a" }, order)
  end)

  it("counts what moves, its share, and what every shard has before and after", function()
    local state = state_of({ { "a", 30 }, { "b", 50 }, { "b", 20 } })
    local made = plan.make(state, { { bucket = state.buckets[3], destination = "c" } }, { planner = "list" })
    assert.same({ 1, 20, 2000, 100, 0.2 }, { made.buckets, made.rows, made.bytes, made.total_rows, made.share })
    assert.same({ ["b->c"] = 20 }, made.by)
    local after = {}
    for _, one in ipairs(made.shards) do
      after[one.shard_id] = { one.rows, one.rows_after, one.buckets, one.buckets_after, one.receives }
    end
    assert.same({ a = { 30, 30, 1, 1, 0 }, b = { 70, 50, 2, 1, 0 }, c = { 0, 20, 0, 1, 2000 } }, after)
    assert.is_true(made.estimated_seconds > 0)
  end)

  it("of empty tables gives the share of the buckets", function()
    local state = state_of({ { "a", 0 }, { "b", 0 }, { "b", 0 }, { "b", 0 } })
    assert.equal(0.25, plan.make(state, { { bucket = state.buckets[1], destination = "c" } }).share)
  end)

  it("of nothing is empty and takes no time", function()
    local made = plan.make(state_of({ { "a", 5 } }), {})
    assert.same({ 0, 0, 0, 0 }, { #made.moves, made.rows, made.share, made.estimated_seconds })
  end)

  it("can be turned round, the last move first", function()
    local back = plan.reverse({
      { seq = 1, source = "a", destination = "b", buckets = { 1 }, rows = 3, bytes = 30 },
      { seq = 2, source = "c", destination = "b", buckets = { 2 }, rows = 4, bytes = 40 },
    }, 2)
    assert.same({
      { seq = 3, source = "b", destination = "c", buckets = { 2 }, rows = 4, bytes = 40 },
      { seq = 4, source = "b", destination = "a", buckets = { 1 }, rows = 3, bytes = 30 },
    }, back)
  end)
end)
