--- What `lunashard new aggregate` writes.
-- @module lunashard.cli.new.aggregate

return {
  plugin = [=[
-- $NAME: of all rows the one with the greatest number in a column.
-- router:scatter_gather(sql, params, { aggregation_func = lunashard.aggregate.$NAME("amount") })

return {
  api = 1, kind = "aggregate", name = "$NAME",
  returns = "row", -- or "rows", when `finish` gives a list of them

  -- What `lunashard.aggregate.$NAME(...)` was given, as options.
  new = function(column)
    return { column = column or "amount" }
  end,

  -- An empty accumulator. Each shard may get one of its own.
  init = function(options)
    return { column = options.column }
  end,

  -- Take in a row; a NULL is an absent field.
  step = function(acc, row, shard_id)
    local value = row[acc.column]
    if value and (acc.value == nil or value > acc.value) then
      acc.value, acc.row = value, row
    end
    return acc
  end,

  -- Combine two accumulators: in any order, with the same result.
  merge = function(a, b)
    return (b.value and (a.value == nil or b.value > a.value)) and b or a
  end,

  finish = function(acc)
    return acc.row or {}
  end,
}
]=],
  spec = [=[
local lunashard = require("lunashard")
local testing = require("lunashard.testing")

describe("the aggregate $NAME", function()
  setup(function()
    testing.load($PATH)
  end)

  -- What a scatter hands to it: a result of each shard.
  local function of(...)
    local results = {}
    for i, rows in ipairs({ ... }) do
      results[i] = { success = true, shard_id = "shard" .. i, rows = rows }
    end
    return results
  end

  it("finds the row on whichever shard it is", function()
    local greatest = lunashard.aggregate.$NAME("amount")
    local row = assert(greatest(of({ { id = 1, amount = 10 } }, { { id = 2, amount = 30 }, { id = 3, amount = 20 } })))
    assert.same({ id = 2, amount = 30 }, row)
  end)

  it("passes over NULLs and shards without rows", function()
    local greatest = lunashard.aggregate.$NAME("amount")
    assert.same({ id = 1, amount = 10 }, greatest(of({}, { { id = 1, amount = 10 }, { id = 2 } })))
    assert.same({}, greatest(of({}, {})))
  end)

  it("gives the same when accumulators are merged", function()
    local greatest = lunashard.aggregate.$NAME("amount")
    local a = greatest:step(greatest:init(), { amount = 1 })
    local b = greatest:step(greatest:init(), { amount = 2 })
    assert.same({ amount = 2 }, greatest:finish(greatest:merge(a, b)))
  end)
end)
]=],
}
