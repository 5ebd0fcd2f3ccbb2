local aggregate = require("lunashard.aggregate")
local errors = require("lunashard.errors")
local results = require("spec.support.shard_results")

local function ids(rows)
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = row.id
  end
  return list
end

local LISTS = { { { id = 1 }, { id = 2 } }, {}, { { id = 3 }, { id = 4 }, { id = 5 } } }

describe("aggregate limit", function()
  it("gives n rows after the offset, in the order of the shards", function()
    local list = results.all({ id = "int8" }, LISTS)
    assert.same({ 1, 2, 3 }, ids(aggregate.limit(3)(list)))
    assert.same({ 2, 3 }, ids(aggregate.limit({ n = 2, offset = 1 })(list)))
    assert.same({ 2, 3 }, ids(results.reduce(aggregate.limit({ n = 2, offset = 1 }), list)))
    assert.same({}, ids(aggregate.limit({ n = 2, offset = 9 })(list)))
    for _, given in ipairs({ 1e308, { n = 1, offset = 2 ^ 53 } }) do
      assert.error_matches(function() aggregate.limit(given) end, "limit: n and offset must not be beyond 2%^53 together")
    end
    assert.equal(5, #aggregate.limit(2 ^ 53)(list))
    assert.same({}, ids(aggregate.limit(0)(list)))
  end)

  it("asks each shard for offset and n together", function()
    assert.same({ limit = 30 }, aggregate.limit({ n = 10, offset = 20 }).push_down)
  end)

  it("holds no more rows than it needs", function()
    local agg = aggregate.limit({ n = 2, offset = 1 })
    local acc = agg:init()
    for i = 1, 100 do
      acc = agg:step(acc, { id = i })
    end
    assert.equal(3, #acc.rows)
  end)

  it("raises on misuse", function()
    for _, bad in ipairs({ -1, 1.5, {}, "10", { n = 1, offset = -1 } }) do
      assert.has_error(function() aggregate.limit(bad) end)
    end
    assert.error_matches(function() aggregate.limit({ n = 1, ofset = 1 }) end, 'did you mean "offset"')
  end)
end)

describe("aggregate having", function()
  it("keeps the rows that the function accepts", function()
    local agg = aggregate.having(function(row) return row.id % 2 == 1 end)
    local list = results.all({ id = "int8" }, LISTS)
    assert.same({ 1, 3, 5 }, ids(agg(list)))
    assert.same({ 1, 3, 5 }, ids(results.reduce(agg, list)))
  end)

  it("raises without a function", function()
    assert.error_matches(function() aggregate.having({ total = 1 }) end, "having: expected a function")
  end)
end)

describe("aggregate top_n", function()
  it("finds the first n rows of unsorted shards", function()
    local list = results.all({ id = "int8" }, { { { id = 4 }, { id = 1 } }, { { id = 3 }, {} }, { { id = 2 } } })
    assert.same({ 1, 2, 3 }, ids(aggregate.top_n({ n = 3, by = "id" })(list)))
    assert.same({ 4, 3 }, ids(aggregate.top_n({ n = 2, by = "id desc nulls last" })(list)))
    assert.same({ 4, 3 }, ids(results.reduce(aggregate.top_n({ n = 2, by = "id desc nulls last" }), list)))
    assert.same({}, aggregate.top_n({ n = 0, by = "id" })(list))
  end)

  it("equals sorting everything, for any split, and holds few rows", function()
    results.seed()
    local types = { id = "int8", v = "float8" }
    for _ = 1, results.rounds(20) do
      local rows, n = {}, math.random(1, 12)
      for i = 1, math.random(0, 300) do
        rows[i] = { id = i, v = math.random(1, 20) / 4 }
      end
      local list = results.split(types, rows, math.random(1, 5))
      local expected = {}
      for i, row in ipairs(rows) do
        expected[i] = row
      end
      table.sort(expected, function(a, b)
        return a.v > b.v or (a.v == b.v and a.id < b.id)
      end)
      for i = #expected, n + 1, -1 do
        expected[i] = nil
      end
      local agg = aggregate.top_n({ n = n, by = "v desc, id" })
      assert.same(ids(expected), ids(assert(agg(list))))
      assert.same(ids(expected), ids(assert(results.reduce(agg, list))))
      local acc = agg:collect(list)
      assert.is_true(#acc.kept <= 2 * n + 16)
    end
  end)

  it("prefers, among equal rows, those that came first", function()
    local rows = {}
    for id = 1, 60 do
      rows[id] = { id = id, v = 1 }
    end
    local list = results.all({ id = "int8", v = "int8" }, { rows, { { id = 61, v = 1 } } })
    assert.same({ 1, 2, 3, 4, 5 }, ids(aggregate.top_n({ n = 5, by = "v" })(list)))
  end)

  it("refuses what cannot be ordered", function()
    local rows, err = aggregate.top_n({ n = 1, by = "id" })(results.all({ id = "text" }, { { { id = "a" } } }))
    assert.is_nil(rows)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    assert.error_matches(function() aggregate.top_n({ n = 1 }) end, "needs n and by")
    assert.error_matches(function() aggregate.top_n({ n = 1, by = "id", limit = 1 }) end, "unknown option")
  end)
end)

describe("aggregate distinct", function()
  it("gives each value once, as the server sees equality", function()
    local list = results.all({ id = "numeric", x = "int8" },
      { { { id = "1.0", x = 1 }, { x = 2 } }, { { id = "1.00", x = 3 }, { id = "2", x = 4 } }, { { x = 5 } } })
    local rows = aggregate.distinct("id")(list)
    assert.same({ { id = "1.0" }, {}, { id = "2" } }, rows)
    assert.same(rows, results.reduce(aggregate.distinct({ "id" }), list))
  end)

  it("compares whole rows without arguments", function()
    local list = results.all({ a = "int8", b = "text" },
      { { { a = 1, b = "x" }, { a = 1 } }, { { a = 1, b = "x" }, { a = 1, b = "X" }, { b = "x" }, { a = 1 } } })
    local expected = { { a = 1, b = "x" }, { a = 1 }, { a = 1, b = "X" }, { b = "x" } }
    assert.same(expected, aggregate.distinct()(list))
    assert.same(expected, results.reduce(aggregate.distinct(), list))
    list = results.all(nil, { { { a = 1, b = "x" }, { a = 1 } }, { { a = 1, b = "x" }, { b = 1 } } })
    assert.same({ { a = 1, b = "x" }, { a = 1 }, { b = 1 } }, aggregate.distinct()(list))
  end)

  it("does not confuse values whose texts run together", function()
    local rows = { { a = "x", b = "yz" }, { a = "xy", b = "z" }, { a = "-" }, { b = "-" } }
    local list = results.all({ a = "text", b = "text" }, { rows })
    assert.equal(4, #aggregate.distinct({ "a", "b" })(list))
  end)

  it("holds int64 values apart that are one double", function()
    local list = results.all({ a = "int8" },
      { { { a = 9007199254740993LL } }, { { a = 9007199254740992 } }, { { a = 9007199254740993LL } } })
    assert.equal(2, #aggregate.distinct("a")(list))
  end)

  it("refuses types whose equality it cannot tell, and columns that are not there", function()
    local rows, err = aggregate.distinct("a")(results.all({ a = "jsonb" }, { { { a = "{}" } } }))
    assert.is_nil(rows)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    rows, err = aggregate.distinct("b")(results.all({ bb = "int8" }, { { { bb = 1 } } }))
    assert.is_nil(rows)
    assert.is_true(errors.is(err, "INVALID"))
    local mixed = { results.of("s1", { a = "int8" }, { { a = 1 } }), results.of("s2", { a = "numeric" }, { { a = "1" } }) }
    rows, err = results.reduce(aggregate.distinct("a"), mixed)
    assert.is_nil(rows)
    assert.matches("cast it to one type", err.message, 1, true)
  end)
end)

describe("aggregate percentile", function()
  local function list_of(...)
    return results.all({ v = "float8" }, { ... })
  end

  it("interpolates between values as percentile_cont", function()
    local list = list_of({ { v = 4 }, { v = 1 } }, { {} }, { { v = 2 }, { v = 3 } })
    local agg = aggregate.percentile({ column = "v", p = 0.5 })
    assert.same({ v = 2.5 }, agg(list))
    assert.same({ v = 2.5 }, results.reduce(agg, list))
    assert.same({ low = 1 }, aggregate.percentile({ column = "v", p = 0, as = "low" })(list))
    assert.same({ v = 4 }, aggregate.percentile({ column = "v", p = 1 })(list))
    assert.same({}, agg(list_of({}, {})))
  end)

  it("picks a value as percentile_disc when asked", function()
    local list = list_of({ { v = 4 }, { v = 1 } }, { { v = 2 }, { v = 3 } })
    assert.same({ v = 2 }, aggregate.percentile({ column = "v", p = 0.5, discrete = true })(list))
    assert.same({ v = 3 }, aggregate.percentile({ column = "v", p = 0.51, discrete = true })(list))
    assert.same({ v = 1 }, aggregate.percentile({ column = "v", p = 0, discrete = true })(list))
    local days = results.all({ day = "date" }, { { { day = "2024-01-02" } }, { { day = "0044-03-15 BC" } } })
    assert.same({ day = "0044-03-15 BC" }, aggregate.percentile({ column = "day", p = 0.3, discrete = true })(days))
  end)

  it("refuses to interpolate what is no number", function()
    local row, err = aggregate.percentile({ column = "d", p = 0.5 })(results.all({ d = "date" }, { { { d = "2024-01-02" } } }))
    assert.is_nil(row)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    assert.matches("discrete = true", err.message, 1, true)
  end)

  it("raises on misuse", function()
    assert.error_matches(function() aggregate.percentile({ column = "v", p = 95 }) end, "p between 0 and 1")
    assert.error_matches(function() aggregate.percentile({ colunm = "v", p = 0.5 }) end, 'did you mean "column"')
    assert.error_matches(function() aggregate.percentile({ column = "v", p = 0 / 0 }) end, "p between 0 and 1")
  end)
end)
