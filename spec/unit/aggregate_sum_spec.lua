local aggregate = require("lunashard.aggregate")
local decimal = require("lunashard.core.decimal")
local errors = require("lunashard.errors")
local results = require("spec.support.shard_results")

local INT8_MAX, INT8_MIN = 9223372036854775807LL, -9223372036854775807LL - 1

describe("aggregate sum", function()
  it("adds the shards' counts", function()
    local row = aggregate.sum "count"(results.all({ count = "int8" }, { { { count = 3 } }, { { count = 4 } } }))
    assert.same({ count = 7 }, row)
  end)

  it("adds several columns, under other names when asked", function()
    local list = results.all({ a = "int8", b = "numeric" }, { { { a = 1, b = "0.10" } }, { { a = 2, b = "0.2" } } })
    assert.same({ a = 3, b = "0.30" }, aggregate.sum({ "a", "b" })(list))
    assert.same({ total = 3, b = "0.30" }, aggregate.sum({ "b", total = "a" })(list))
  end)

  it("is NULL over no values, and skips NULLs", function()
    local types = { n = "int8" }
    assert.same({}, aggregate.sum "n"(results.all(types, { {}, {} })))
    assert.same({}, aggregate.sum "n"(results.all(types, { { {} }, { {} } })))
    assert.same({ n = 5 }, aggregate.sum "n"(results.all(types, { { {} }, { { n = 5 } }, {} })))
  end)

  it("goes from number to int64 to text without losing a digit", function()
    local types = { n = "int8" }
    local function sum(...)
      local lists = {}
      for i, value in ipairs({ ... }) do
        lists[i] = { { n = value } }
      end
      return aggregate.sum "n"(results.all(types, lists)).n
    end
    assert.equal(9007199254740992, sum(9007199254740991, 1))
    assert.equal("9007199254740993LL", tostring(sum(9007199254740991, 1, 1)))
    assert.equal("9007199254740993LL", tostring(sum(9007199254740992, 1)))
    assert.equal("18446744073709551614", sum(INT8_MAX, INT8_MAX))
    assert.equal("-9223372036854775808LL", tostring(sum(INT8_MIN)))
    assert.equal(-1, sum(INT8_MIN, INT8_MAX))
    assert.equal("-18446744073709551616", sum(INT8_MIN, INT8_MIN))
  end)

  it("adds numerics exactly and keeps the largest scale", function()
    local list = results.all({ n = "numeric" },
      { { { n = "0.1" }, { n = "99999999999999999999999999999999999999.0000000001" } }, { { n = "0.2" } } })
    assert.same({ n = "99999999999999999999999999999999999999.3000000001" }, aggregate.sum "n"(list))
    assert.same({ n = "3" }, aggregate.sum "n"(results.all({ n = "numeric" }, { { { n = "1" } }, { { n = "2" } } })))
    assert.same({ n = "NaN" }, aggregate.sum "n"(results.all({ n = "numeric" }, { { { n = "NaN" } }, { { n = "2" } } })))
  end)

  it("adds floats as doubles", function()
    local list = results.all({ n = "float8" }, { { { n = 0.1 } }, { { n = 0.2 } } })
    assert.equal(0.1 + 0.2, aggregate.sum "n"(list).n)
    list = results.all({ n = "float8" }, { { { n = 2 ^ 53 } }, { { n = 1 } } })
    assert.equal(2 ^ 53, aggregate.sum "n"(list).n)
  end)

  it("goes by the values when results do not tell types", function()
    assert.same({ n = 3 }, aggregate.sum "n"(results.all(nil, { { { n = 1 } }, { { n = 2 } } })))
    assert.same({ n = 3.5 }, aggregate.sum "n"(results.all(nil, { { { n = 1 } }, { { n = 2.5 } } })))
    assert.same({ n = 3.5 }, aggregate.sum "n"(results.all(nil, { { { n = 2.5 } }, { { n = 1 } } })))
    assert.same({ n = "1.50" }, aggregate.sum "n"(results.all(nil, { { { n = "1.25" } }, { { n = "0.25" } } })))
    local mixed = results.all(nil, { { { n = 1 } }, { { n = 2.5 } } })
    assert.same({ n = 3.5 }, results.reduce(aggregate.sum "n", mixed))
  end)

  it("uses the shards that succeeded", function()
    local list = results.all({ n = "int8" }, { { { n = 1 } }, { { n = 2 } } })
    list[3] = { success = false, shard_id = "shard3", rows = {}, error = errors.new("SHARD_DOWN") }
    assert.same({ n = 3 }, aggregate.sum "n"(list))
  end)

  it("returns NOT_MERGEABLE, and does not raise, for values that cannot be added", function()
    local cases = {
      [{ n = "text" }] = "12", [{ n = "money" }] = "$1.00", [{ n = "interval" }] = "1 day", [{ n = "bool" }] = true,
      [{ n = "int8" }] = 1.5, [{ n = "numeric" }] = "1e5", [{ n = "float8" }] = "1.5",
    }
    for types, value in pairs(cases) do
      local row, err = aggregate.sum "n"(results.all(types, { { { n = value } } }))
      assert.is_nil(row)
      assert.is_true(errors.is(err, "NOT_MERGEABLE"), types.n)
      assert.matches('column "n"', err.message, 1, true)
      assert.equal("shard1", err.shard_id)
    end
    local list = { results.of("a", { n = "int8" }, { { n = 1 } }), results.of("b", { n = "float8" }, { { n = 1 } }) }
    for _, run in ipairs({ function(agg) return agg(list) end, function(agg) return results.reduce(agg, list) end }) do
      local row, err = run(aggregate.sum "n")
      assert.is_nil(row)
      assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    end
  end)

  it("names a column that is not there, and the nearest one that is", function()
    local row, err = aggregate.sum "cuont"(results.all({ count = "int8" }, { { { count = 1 } } }))
    assert.is_nil(row)
    assert.is_true(errors.is(err, "INVALID"))
    assert.matches('did you mean "count"', err.message, 1, true)
  end)

  it("raises on misuse", function()
    assert.error_matches(function() aggregate.sum() end, "sum: expected a column name")
    assert.error_matches(function() aggregate.sum({}) end, "sum: expected a column name")
    assert.error_matches(function() aggregate.sum({ total = 5 }) end, "sum: expected a column name")
    assert.error_matches(function() aggregate.sum("n", { colate = "C" }) end, "unknown option")
    assert.error_matches(function() return aggregate.summ end, 'did you mean "sum"')
  end)

  it("gives the same for any split over shards, as a function and as a reducer", function()
    results.seed()
    for _ = 1, results.rounds(40) do
      local rows, oracle_int, oracle_numeric = {}, decimal.new(), decimal.new()
      for i = 1, math.random(0, 60) do
        local row = {}
        if math.random() < 0.8 then
          local edge = { INT8_MAX, INT8_MIN, 2 ^ 53, -2 ^ 53, 0, math.random(-1000, 1000) }
          row.int = edge[math.random(#edge)]
          oracle_int:add(row.int)
        end
        if math.random() < 0.8 then
          row.num = ("%d.%0" .. math.random(1, 20) .. "d"):format(math.random(-10 ^ 9, 10 ^ 9), math.random(0, 9))
          oracle_numeric:add(row.num)
        end
        rows[i] = row
      end
      local list = results.split({ int = "int8", num = "numeric" }, rows, math.random(1, 7))
      local agg = aggregate.sum({ "int", "num" })
      for _, row in ipairs({ agg(list), results.reduce(agg, list) }) do
        assert.equal(tostring(row.int ~= nil and oracle_int:value() or nil), tostring(row.int))
        assert.equal(row.num and tostring(oracle_numeric), row.num)
      end
    end
  end)
end)
