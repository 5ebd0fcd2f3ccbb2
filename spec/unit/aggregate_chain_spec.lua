local aggregate = require("lunashard.aggregate")
local errors = require("lunashard.errors")
local results = require("spec.support.shard_results")

describe("aggregate chain", function()
  local list = results.all({ k = "text", v = "numeric" }, {
    { { k = "a", v = "9" }, { k = "b", v = "20" } },
    { { k = "a", v = "100" }, { k = "c", v = "3" } },
  })

  it("feeds the groups of one into the order of the next, by value and not as text", function()
    local agg = aggregate.chain({
      aggregate.group_by({ keys = "k", v = "sum" }),
      aggregate.top_n({ n = 2, by = "v desc" }),
    })
    local expected = { { k = "a", v = "109" }, { k = "b", v = "20" } }
    assert.same(expected, agg(list))
    assert.same(expected, results.reduce(agg, list))
    assert.equal("rows", agg.returns)
  end)

  it("ends in one row when its last part does", function()
    local agg = aggregate.chain(aggregate.distinct("k"), aggregate.count())
    assert.same({ count = 3 }, agg(list))
    assert.equal("row", agg.returns)
    assert.same({ { count = 3 } }, aggregate.rows(agg, agg(list)))
  end)

  it("counts a first part's row of NULLs as a row", function()
    local agg = aggregate.chain(aggregate.sum "v", aggregate.count())
    assert.same({ count = 1 }, agg(results.all({ v = "numeric" }, { {}, {} })))
  end)

  it("pushes a limit down through merge_sort only", function()
    local limit = aggregate.limit({ n = 5, offset = 5 })
    assert.same({ limit = 10 }, aggregate.chain(aggregate.merge_sort "v", limit).push_down)
    assert.is_nil(aggregate.chain(aggregate.group_by({ keys = "k", v = "sum" }), limit).push_down)
    assert.is_nil(aggregate.chain(aggregate.having(function() return true end), limit).push_down)
  end)

  it("passes on the error of any part", function()
    local rows, err = aggregate.chain(aggregate.merge_sort "k", aggregate.limit(1))(list)
    assert.is_nil(rows)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    rows, err = aggregate.chain(aggregate.limit(1), aggregate.sum "w")(list)
    assert.is_nil(rows)
    assert.is_true(errors.is(err, "INVALID"))
    rows, err = aggregate.chain(aggregate.group_by({ keys = "k", v = "sum" }), aggregate.top_n({ n = 1, by = "k" }))(list)
    assert.is_nil(rows)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
  end)

  it("raises without aggregates", function()
    assert.error_matches(function() aggregate.chain() end, "chain: expected aggregates")
    assert.error_matches(function() aggregate.chain({}) end, "chain: expected aggregates")
    assert.error_matches(function() aggregate.chain(aggregate.count(), function() end) end, "expected aggregates, got a function")
  end)
end)

describe("aggregate plug-ins", function()
  it("are registered under their name and take part in everything", function()
    assert(aggregate.register({
      api = 1, kind = "aggregate", name = "longest",
      new = function(column) return { column = column } end,
      init = function(options) return { column = options.column } end,
      step = function(acc, row)
        local value = row[acc.column]
        if value and #value > #(acc.value or "") then
          acc.value = value
        end
        return acc
      end,
      merge = function(a, b) return #(a.value or "") >= #(b.value or "") and a or b end,
      finish = function(acc) return { longest = acc.value } end,
    }))
    local list = results.all({ k = "text" }, { { { k = "aa" } }, { { k = "bbb" } } })
    assert.same({ longest = "bbb" }, aggregate.longest("k")(list))
    assert.same({ longest = "bbb" }, results.reduce(aggregate.longest("k"), list))
  end)

  it("may work on whole results, also at the end of a chain", function()
    assert(aggregate.register({
      api = 1, kind = "aggregate", name = "shard_count",
      aggregate = function(_, shard_results) return { shards = #shard_results } end,
    }))
    local list = results.all({ k = "text" }, { { { k = "aa" } }, { { k = "bbb" } } })
    assert.same({ shards = 2 }, aggregate.shard_count()(list))
    assert.same({ shards = 1 }, aggregate.chain(aggregate.limit(1), aggregate.shard_count())(list))
    assert.error_matches(function() aggregate.chain(aggregate.shard_count(), aggregate.limit(1)) end, "cannot come first")
  end)

  it("are refused with what their contract misses", function()
    local cases = {
      ["return a table"] = 5,
      ["api = 1"] = { api = 2, kind = "aggregate", name = "x" },
      ['kind: expected "aggregate"'] = { api = 1, kind = "strategy", name = "x" },
      ["name: expected an identifier"] = { api = 1, kind = "aggregate", name = "not a name" },
      ['"sum" is a shipped one'] = { api = 1, kind = "aggregate", name = "sum", aggregate = print },
      ["aggregate x: step: expected a function"] = {
        api = 1, kind = "aggregate", name = "x", init = print, merge = print, finish = print,
      },
    }
    for text, plugin in pairs(cases) do
      local ok, err = aggregate.register(plugin)
      assert.is_nil(ok)
      assert.is_true(errors.is(err, "INVALID"))
      assert.matches(text, err.message, 1, true)
    end
  end)

  it("tell a row from a list of rows where a function cannot", function()
    assert.same({ {} }, aggregate.rows(aggregate.sum "n", {}))
    assert.same({}, aggregate.rows(aggregate.limit(1), {}))
    local plain = function() end
    assert.same({ { n = 1 } }, aggregate.rows(plain, { n = 1 }))
    assert.same({ { n = 1 }, { n = 2 } }, aggregate.rows(plain, { { n = 1 }, { n = 2 } }))
  end)
end)
