local aggregate = require("lunashard.aggregate")
local errors = require("lunashard.errors")
local results = require("spec.support.shard_results")

local function both(types, lists, how)
  local list = results.all(types, lists)
  local column = next(types)
  local min, max = aggregate.min(column, how), aggregate.max(column, how)
  local lowest, highest = assert(min(list))[column], assert(max(list))[column]
  assert.equal(tostring(lowest), tostring(results.reduce(min, list)[column]))
  assert.equal(tostring(highest), tostring(results.reduce(max, list)[column]))
  return lowest, highest
end

describe("aggregates min and max", function()
  it("compare numerics by value, not as text", function()
    local low, high = both({ n = "numeric" }, { { { n = "9" }, { n = "-10" } }, { { n = "10.5" } }, { { n = "-9" } } })
    assert.equal("-10", low)
    assert.equal("10.5", high)
  end)

  it("compare int64 with numbers", function()
    local low, high = both({ n = "int8" },
      { { { n = -9223372036854775807LL } }, { { n = 5 } }, { { n = 9223372036854775807LL } } })
    assert.equal("-9223372036854775807LL", tostring(low))
    assert.equal("9223372036854775807LL", tostring(high))
  end)

  it("compare instants whatever offset a session prints", function()
    local low, high = both({ t = "timestamptz" },
      { { { t = "2024-06-01 12:00:00+02" } }, { { t = "2024-06-01 10:30:00+00" } }, { { t = "2024-06-01 05:00:00-04:30" } } })
    assert.equal("2024-06-01 05:00:00-04:30", low)
    assert.equal("2024-06-01 10:30:00+00", high)
  end)

  it("hold NaN for the largest float", function()
    local low, high = both({ f = "float8" }, { { { f = 0 / 0 } }, { { f = -1 } }, { { f = math.huge } } })
    assert.equal(-1, low)
    assert.is_true(high ~= high)
  end)

  it("skip NULLs, and are NULL over nothing", function()
    local low, high = both({ n = "int8" }, { { {} }, { { n = 3 } }, { {} }, {} })
    assert.same({ 3, 3 }, { low, high })
    assert.same({}, aggregate.min "n"(results.all({ n = "int8" }, { { {} }, {} })))
    assert.same({}, aggregate.max "n"(results.all({ n = "int8" }, {})))
  end)

  it("find false below true", function()
    local low, high = both({ b = "bool" }, { { { b = true } }, { { b = false } } })
    assert.is_false(low)
    assert.is_true(high)
  end)

  it("compare text only bytewise and only when told so", function()
    local lists = { { { name = "b" } }, { { name = "B" } } }
    local row, err = aggregate.min "name"(results.all({ name = "text" }, lists))
    assert.is_nil(row)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    assert.matches('collate = "C"', err.message, 1, true)
    local low, high = both({ name = "text" }, lists, { collate = "C" })
    assert.same({ "B", "b" }, { low, high })
  end)

  it("refuse columns of different kinds, also when accumulators are merged", function()
    local list = { results.of("a", { n = "int8" }, { { n = 1 } }), results.of("b", { n = "numeric" }, { { n = "2" } }) }
    for _, run in ipairs({ function(agg) return agg(list) end, function(agg) return results.reduce(agg, list) end }) do
      local row, err = run(aggregate.max "n")
      assert.is_nil(row)
      assert.is_true(errors.is(err, "NOT_MERGEABLE"))
      assert.matches("cast it to one type", err.message, 1, true)
    end
  end)

  it("take the type from the caller when results do not tell", function()
    local list = results.all(nil, { { { n = "9" } }, { { n = "10" } } })
    assert.same({ n = "10" }, aggregate.max("n", { type = "numeric" })(list))
    local row, err = aggregate.max "n"(list)
    assert.is_nil(row)
    assert.matches("type is not known", err.message, 1, true)
  end)
end)
