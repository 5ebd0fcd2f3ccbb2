local aggregate = require("lunashard.aggregate")
local errors = require("lunashard.errors")
local merge = require("lunashard.order.merge")
local order = require("lunashard.order")
local results = require("spec.support.shard_results")

local function ids(rows)
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = row.id
  end
  return list
end

describe("aggregate merge_sort", function()
  it("merges sorted shards into one order, several columns deep", function()
    local types = { day = "date", id = "int8" }
    local list = results.all(types, {
      { { day = "2024-01-03", id = 1 }, { day = "2024-01-01", id = 2 } },
      {},
      { { day = "infinity", id = 3 }, { day = "2024-01-03", id = 0 }, { day = "0044-03-15 BC", id = 4 } },
    })
    assert.same({ 3, 0, 1, 2, 4 }, ids(aggregate.merge_sort "day desc, id"(list)))
    assert.same({ 3, 0, 1, 2, 4 }, ids(results.reduce(aggregate.merge_sort({ { "day", desc = true }, "id" }), list)))
  end)

  it("puts NULLs where the server puts them", function()
    local list = results.all({ id = "int8", v = "int8" },
      { { { id = 1, v = 1 }, { id = 2 } }, { { id = 3, v = 2 }, { id = 4 } } })
    assert.same({ 1, 3, 2, 4 }, ids(aggregate.merge_sort "v"(list)))
    list = results.all({ id = "int8", v = "int8" }, { { { id = 2 }, { id = 1, v = 1 } }, { { id = 4 }, { id = 3, v = 2 } } })
    assert.same({ 2, 4, 3, 1 }, ids(aggregate.merge_sort "v desc"(list)))
  end)

  it("keeps equal rows in the order of the shards", function()
    local list = results.all({ id = "int8", v = "int8" },
      { { { id = 1, v = 1 }, { id = 2, v = 1 } }, { { id = 3, v = 1 } }, { { id = 4, v = 1 } } })
    assert.same({ 1, 2, 3, 4 }, ids(aggregate.merge_sort "v"(list)))
  end)

  it("names the shard and the row that are not in the order promised", function()
    local list = results.all({ id = "int8" }, { { { id = 1 }, { id = 5 } }, { { id = 2 }, { id = 4 }, { id = 3 } } })
    local rows, err = aggregate.merge_sort "id"(list)
    assert.is_nil(rows)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    assert.equal("shard2", err.shard_id)
    assert.equal(3, err.row_number)
    assert.matches("row 3 of shard shard2", err.message, 1, true)
  end)

  it("refuses text in a collation that only the server knows, unless told it is bytewise", function()
    local list = results.all({ id = "text" }, { { { id = "B" } }, { { id = "a" } } })
    local rows, err = aggregate.merge_sort "id"(list)
    assert.is_nil(rows)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    assert.same({ "B", "a" }, ids(aggregate.merge_sort("id", { collate = "C" })(list)))
    assert.same({ "B", "a" }, ids(aggregate.merge_sort 'id collate "C"'(list)))
  end)

  it("refuses a column that is of another kind on another shard", function()
    local list = { results.of("a", { id = "int8" }, { { id = 1 } }), results.of("b", { id = "numeric" }, { { id = "2" } }) }
    local rows, err = aggregate.merge_sort "id"(list)
    assert.is_nil(rows)
    assert.matches("integer on a but numeric on b", err.message, 1, true)
  end)

  it("raises on an order that cannot be read", function()
    assert.error_matches(function() aggregate.merge_sort "id dsc" end, "bad order")
    assert.error_matches(function() aggregate.merge_sort() end, "bad order")
    assert.error_matches(function() aggregate.merge_sort("id", { colate = "C" }) end, 'did you mean "collate"')
  end)

  it("equals sorting all rows, for any split", function()
    results.seed()
    local types = { id = "int8", v = "numeric" }
    for _ = 1, results.rounds(40) do
      local rows = {}
      for i = 1, math.random(0, 50) do
        rows[i] = { id = i, v = math.random() < 0.8 and tostring(math.random(-5, 5)) .. "." .. math.random(0, 9) or nil }
      end
      local items = order.parse("v desc nulls last, id")
      local bound = assert(order.bind(items, types))
      local function before(a, b)
        return order.compare(items, bound:keys(a), bound:keys(b)) < 0
      end
      local list = results.split(types, rows, math.random(1, 9))
      for _, result in ipairs(list) do
        table.sort(result.rows, before)
      end
      table.sort(rows, function(a, b)
        local x, y = tonumber(a.v or -99), tonumber(b.v or -99)
        return x > y or (x == y and a.id < b.id)
      end)
      local agg = aggregate.merge_sort "v desc nulls last, id"
      assert.same(ids(rows), ids(assert(agg(list))))
      assert.same(ids(rows), ids(assert(results.reduce(agg, list))))
    end
  end)
end)

describe("merge of streams", function()
  local function source(shard_id, rows, failure)
    local at = 0
    return {
      shard_id = shard_id,
      types = function() return { id = "int8" } end,
      next = function()
        at = at + 1
        if rows[at] == nil then
          return nil, failure
        end
        return { id = rows[at] }
      end,
    }
  end

  it("takes no more than one row ahead of each source", function()
    local taken = 0
    local endless = { shard_id = "a", types = { id = "int8" }, next = function()
      taken = taken + 1
      return { id = taken }
    end }
    local next_row = merge.rows(order.parse("id"), { endless, source("b", { 2 }) })
    for _ = 1, 5 do
      next_row()
    end
    assert.equal(5, taken)
  end)

  it("gives each row with its shard, then nil", function()
    local next_row = merge.rows(order.parse("id"), { source("a", { 1, 3 }), source("b", { 2 }) })
    local seen = {}
    for row, shard_id in next_row do
      seen[#seen + 1] = shard_id .. row.id
    end
    assert.same({ "a1", "b2", "a3" }, seen)
    assert.is_nil((next_row()))
  end)

  it("ends with a source's error, and repeats it", function()
    local failure = errors.new("SHARD_DOWN")
    local next_row = merge.rows(order.parse("id"), { source("a", { 1, 9 }), source("b", { 2 }, failure) })
    assert.equal(1, next_row().id)
    local row, err = next_row()
    assert.is_nil(row)
    assert.equal(failure, err)
    row, err = next_row()
    assert.is_nil(row)
    assert.equal(failure, err)
  end)
end)
