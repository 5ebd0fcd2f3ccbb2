local aggregate = require("lunashard.aggregate")
local decimal = require("lunashard.core.decimal")
local errors = require("lunashard.errors")
local results = require("spec.support.shard_results")

local TYPES = { country = "text", n = "int8", total = "numeric", first = "date", s = "numeric", c = "int8" }

describe("aggregate group_by", function()
  it("puts groups that span shards together", function()
    local list = results.all(TYPES, {
      { { country = "at", n = 2, total = "1.5", first = "2024-02-01", s = "10", c = 2 },
        { country = "de", n = 1, total = "7", first = "2024-01-01", s = "1", c = 1 } },
      { { country = "at", n = 3, total = "0.50", first = "2024-01-15", s = "5", c = 1 }, { n = 1, c = 0 } },
    })
    local agg = aggregate.group_by({
      keys = { "country" }, n = "count", sum = { sum = "total" }, first = "min", last = { max = "first" },
      price = { avg = { sum = "s", count = "c" } },
    })
    local expected = {
      { country = "at", n = 5, sum = "2.00", first = "2024-01-15", last = "2024-02-01", price = "5.0000000000000000" },
      { country = "de", n = 1, sum = "7", first = "2024-01-01", last = "2024-01-01", price = "1.00000000000000000000" },
      { n = 1 },
    }
    assert.same(expected, agg(list))
    assert.same(expected, results.reduce(agg, list))
  end)

  it("filters finished groups with having", function()
    local list = results.all(TYPES, { { { country = "at", n = 2 }, { country = "de", n = 1 } }, { { country = "at", n = 1 } } })
    local rows = aggregate.group_by({ keys = "country", n = "sum", having = function(row) return row.n > 2 end })(list)
    assert.same({ { country = "at", n = 3 } }, rows)
  end)

  it("gives no row over no rows", function()
    assert.same({}, aggregate.group_by({ keys = { "country" }, n = "sum" })(results.all(TYPES, { {}, {} })))
  end)

  it("groups by several keys without confusing them", function()
    local types = { a = "text", b = "int8", n = "int8" }
    local list = results.all(types, {
      { { a = "x", b = 1, n = 1 }, { a = "x", n = 1 } },
      { { a = "x", b = 1, n = 1 }, { b = 1, n = 1 } },
    })
    assert.equal(3, #aggregate.group_by({ keys = { "a", "b" }, n = "sum" })(list))
  end)

  it("raises on misuse, naming the nearest aggregate", function()
    assert.error_matches(function() aggregate.group_by({ n = "sum" }) end, "needs keys")
    assert.error_matches(function() aggregate.group_by({ keys = {}, n = "sum" }) end, "list of column names")
    assert.error_matches(function() aggregate.group_by({ keys = "a", n = "summ" }) end, 'did you mean "sum"')
    assert.error_matches(function() aggregate.group_by({ keys = "a", n = { avg = "b" } }) end, "group_by: n")
    assert.error_matches(function() aggregate.group_by({ keys = "a", n = { sum = "b", min = "c" } }) end, "group_by: n")
    assert.error_matches(function() aggregate.group_by({ keys = "a", having = "n > 1" }) end, "having is a function")
    assert.error_matches(function() aggregate.group_by({ "a", keys = "b" }) end, "keys go into keys")
  end)

  it("returns an error for data that cannot be combined", function()
    local rows, err = aggregate.group_by({ keys = "country", n = "min" })(
      results.all({ country = "text", n = "text" }, { { { country = "at", n = "x" } } }))
    assert.is_nil(rows)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    rows, err = aggregate.group_by({ keys = "cuontry", n = "sum" })(results.all(TYPES, { { { n = 1 } } }))
    assert.is_nil(rows)
    assert.matches('did you mean "country"', err.message, 1, true)
  end)

  it("equals grouping all rows, for any split", function()
    results.seed()
    for _ = 1, results.rounds(20) do
      local rows, sums = {}, {}
      for i = 1, math.random(0, 100) do
        local key = math.random(1, 6)
        rows[i] = { k = key, v = math.random(-100, 100) .. "." .. math.random(0, 999) }
        sums[key] = sums[key] or decimal.new()
        sums[key]:add(rows[i].v)
      end
      local list = results.split({ k = "int4", v = "numeric" }, rows, math.random(1, 6))
      local agg = aggregate.group_by({ keys = "k", v = "sum" })
      for _, groups in ipairs({ agg(list), results.reduce(agg, list) }) do
        local seen = 0
        for _, group in ipairs(groups) do
          assert.equal(tostring(sums[group.k]), group.v)
          seen = seen + 1
        end
        for _ in pairs(sums) do
          seen = seen - 1
        end
        assert.equal(0, seen)
      end
    end
  end)
end)
