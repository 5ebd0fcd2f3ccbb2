local strategy = require("lunashard.strategy")

local SHARDS = { { shard_id = "shard1" }, { shard_id = "shard2" }, { shard_id = "shard3" } }

local function bind(options)
  return strategy.bind(strategy.range(options), SHARDS)
end

local function raises(text, options)
  local ok, message = pcall(bind, options)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(text, 1, true), tostring(message))
end

local GUIDE = { shard1 = { 0, 1000000 }, shard2 = { 1000001, 2000000 }, shard3 = { 2000001, nil } }

describe("strategy.range", function()
  it("has the guide's inclusive bounds, nil for open", function()
    local bound = bind({ shard_key = "user_id", ranges = GUIDE })
    for key, shard_id in pairs({
      [0] = "shard1",
      [1000000] = "shard1",
      [1000001] = "shard2",
      [2000000] = "shard2",
      [2000001] = "shard3",
      [2 ^ 53] = "shard3",
    }) do
      assert.equal(shard_id, (bound:route(key)))
    end
    assert.equal("shard3", (bound:route("9223372036854775807")))
    local shard_id, err = bound:route(-1)
    assert.is_nil(shard_id)
    assert.equal("NO_SHARD: no range holds routing key -1", tostring(err))
  end)

  it("names buckets after the ranges", function()
    local bound = bind({ ranges = GUIDE })
    assert.same({ "shard2", "1000001..2000000" }, { bound:route(1500000) })
    assert.equal("2000001..", bound:bucket(5000000))
    assert.equal("shard3", bound:place("2000001.."))
    assert.equal("INVALID", select(2, bound:place("5..6")).code)
  end)

  it("takes an open lower bound and several ranges of one shard", function()
    local bound = bind({
      ranges = { shard1 = { { nil, 10 }, { 21, 30 } }, shard2 = { 11, 20 }, shard3 = { 31 } },
    })
    assert.equal("shard1", (bound:route(-2 ^ 53)))
    assert.equal("shard1", (bound:route("-9223372036854775808")))
    assert.same({ "shard1", "shard1", "shard2", "shard1", "shard3" }, bound:route_many({ -5, 10, 11, 25, 31 }))
  end)

  it("compares texts by bytes, with an exclusive upper bound where they meet", function()
    local bound = bind({ ranges = { shard1 = { nil, below = "n" }, shard2 = { "n" } } })
    assert.same({ "shard1", "shard1", "shard2", "shard2", "shard1" },
      bound:route_many({ "adam", "mzzz", "n", "zoe", "Zoe" }))
    assert.equal("..<n", bound:bucket("adam"))
  end)

  it("takes dates", function()
    local bound = bind({
      key_type = "date",
      ranges = { shard1 = { nil, "2023-12-31" }, shard2 = { "2024-01-01", below = "2025-01-01" }, shard3 = { "2025-01-01" } },
    })
    assert.same({ "shard1", "shard2", "shard2", "shard3" },
      bound:route_many({ "1999-05-05", "2024-02-29", "2024-12-31", "2025-01-01" }))
    assert.equal("INVALID", select(2, bound:route("2023-02-29")).code)
  end)

  it("prunes to the shards whose ranges meet an interval", function()
    local bound = bind({ ranges = GUIDE })
    assert.same({ "shard1" }, bound:shards_for_range(5, 10))
    assert.same({ "shard1", "shard2" }, bound:shards_for_range(1000000, 1000001))
    assert.same({ "shard2", "shard3" }, bound:shards_for_range(1500000, nil))
    assert.same({ "shard1" }, bound:shards_for_range(nil, 0))
    assert.same({ "shard1", "shard2", "shard3" }, bound:shards_for_range(nil, nil))
    assert.same({}, bound:shards_for_range(nil, -1))
    assert.same({}, bound:shards_for_range(10, 5))
    assert.equal("INVALID", select(2, bound:shards_for_range("x", nil)).code)
  end)

  it("names both ranges of an overlap", function()
    raises("ranges of shard1 (0..10) and shard2 (10..20) overlap", { ranges = { shard1 = { 0, 10 }, shard2 = { 10, 20 } } })
    raises("ranges of shard1 (0..) and shard2 (10..20) overlap", { ranges = { shard1 = { 0 }, shard2 = { 10, 20 } } })
    raises("overlap", { ranges = { shard1 = { { 0, 5 }, { 5, 9 } } } })
  end)

  it("refuses gaps and says how text ranges meet, unless gaps are allowed", function()
    local gap = { shard1 = { 0, 10 }, shard2 = { 12, 20 } }
    raises("between the ranges of shard1 (0..10) and shard2 (12..20) have no shard; close the gap or set allow_gaps = true",
      { ranges = gap })
    raises('text ranges meet with an exclusive bound, { "a", below = "n" }',
      { ranges = { shard1 = { "a", "m" }, shard2 = { "n", "z" } } })
    local bound = bind({ ranges = gap, allow_gaps = true })
    assert.equal("NO_SHARD", select(2, bound:route(11)).code)
    local _, err = bound:route_many({ 1, 11 })
    assert.equal(2, err.index)
    assert.equal("NO_SHARD", err.code)
  end)

  it("refuses unknown shards, bounds of the wrong type, empty and malformed ranges", function()
    raises('there is no shard "shrad1"; did you mean "shard1"?', { ranges = { shrad1 = { 0, 1 } } })
    raises('range of shard1: bound "x" is not an int8', { key_type = "int8", ranges = { shard1 = { "x", "y" } } })
    raises("range of shard1: bound 1.5 is not an int8", { ranges = { shard1 = { 1.5 } } })
    raises("range of shard1 (10..5) is empty", { ranges = { shard1 = { 10, 5 } } })
    raises("range of shard1 (a..<a) is empty", { ranges = { shard1 = { "a", below = "a" } } })
    raises("two upper bounds", { ranges = { shard1 = { 1, 5, below = 6 } } })
    raises('unknown option "bellow" of a range; did you mean "below"?', { ranges = { shard1 = { 1, bellow = 6 } } })
    raises("must be a table such as", { ranges = { shard1 = 5 } })
    raises("ranges is missing", {})
    raises("one column of type int8, text or date", { key_type = "uuid", ranges = { shard1 = { "a" } } })
    raises('unknown option "range" of strategy range; did you mean "ranges"?', { range = {} })
  end)
end)
