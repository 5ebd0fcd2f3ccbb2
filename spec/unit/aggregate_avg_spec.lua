local aggregate = require("lunashard.aggregate")
local errors = require("lunashard.errors")
local results = require("spec.support.shard_results")

local PARTS = { sum = "s", count = "c" }

describe("aggregate avg", function()
  it("weighs every shard by its count", function()
    local list = results.all({ s = "numeric", c = "int8" }, { { { s = "10", c = 1 } }, { { s = "90", c = 9 } } })
    assert.same({ price = "10.0000000000000000" }, aggregate.avg({ price = PARTS })(list))
    assert.same({ price = "10.0000000000000000" }, aggregate.avg("price", PARTS)(list))
    assert.same({ price = "10.0000000000000000" }, results.reduce(aggregate.avg({ price = PARTS }), list))
  end)

  it("shows the server's digits for sums of integers too", function()
    local list = results.all({ s = "int8", c = "int8" }, { { { s = 1, c = 2 } }, { { s = 1, c = 1 } } })
    assert.same({ price = "0.66666666666666666667" }, aggregate.avg("price", PARTS)(list))
  end)

  it("divides floats as floats", function()
    local list = results.all({ s = "float8", c = "int8" }, { { { s = 1.5, c = 1 } }, { { s = 1, c = 2 } } })
    assert.same({ price = 2.5 / 3 }, aggregate.avg("price", PARTS)(list))
  end)

  it("is NULL over no values", function()
    local types = { s = "numeric", c = "int8" }
    assert.same({}, aggregate.avg("price", PARTS)(results.all(types, { { { c = 0 } }, { { c = 0 } } })))
    assert.same({}, aggregate.avg("price", PARTS)(results.all(types, { {}, {} })))
    assert.same({ price = "2.0000000000000000" },
      aggregate.avg("price", PARTS)(results.all(types, { { { c = 0 } }, { { s = "4", c = 2 } } })))
  end)

  it("refuses a mean of means and says what to write", function()
    local list = results.all({ price = "numeric" }, { { { price = "1" } }, { { price = "2" } } })
    for _, agg in ipairs({ aggregate.avg "price", aggregate.avg({ "price" }) }) do
      local row, err = agg(list)
      assert.is_nil(row)
      assert.is_true(errors.is(err, "NOT_MERGEABLE"))
      assert.matches('avg { price = { sum = "price_sum", count = "price_count" } }', err.message, 1, true)
      row, err = results.reduce(agg, list)
      assert.is_nil(row)
      assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    end
  end)

  it("raises on misuse, naming the nearest part", function()
    assert.error_matches(function() aggregate.avg({ price = { sum = "s", cuont = "c" } }) end, 'did you mean "count"')
    assert.error_matches(function() aggregate.avg("price", { sum = "s" }) end, "needs both sum and count")
    assert.error_matches(function() aggregate.avg({ price = "s" }) end, "needs { sum")
    assert.has_error(function() aggregate.avg() end)
  end)
end)
