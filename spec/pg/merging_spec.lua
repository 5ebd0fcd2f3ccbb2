local merging = require("spec.support.merging")
local shard_results = require("spec.support.shard_results")
local statements = require("spec.support.merging_statements")

-- MERGING_STATEMENTS=1000 is the full form.
local STATEMENTS = tonumber(os.getenv("MERGING_STATEMENTS")) or shard_results.rounds(120)

describe("a statement over several shards", function()
  local place, one, three, seven

  setup(function()
    shard_results.seed()
    local rows = merging.rows(90)
    place = merging.open()
    one, three, seven = place:cluster(1, rows), place:cluster(3, rows), place:cluster(7, rows)
  end)

  teardown(function()
    place:close()
  end)

  local function check(router, statement, expected, err)
    local result, problem = router:scatter_gather(statement.sql, statement.params)
    if expected and not result then
      error(statement.sql .. "\n" .. tostring(problem))
    elseif not expected then
      assert.is_nil(result, statement.sql)
      local cause = err.failed and err.failed[1].error or err
      assert.equal(cause.sqlstate, (problem.failed and problem.failed[1].error or problem).sqlstate, statement.sql)
    else
      assert.equal(merging.text(expected, statement.in_order), merging.text(result, statement.in_order),
        statement.sql .. " -- " .. table.concat(statement.params, ", "))
    end
  end

  it("gives the same rows, in the same order, as on one database that has them all", function()
    for _ = 1, STATEMENTS do
      local statement = statements.next()
      local expected, err = one:scatter_gather(statement.sql, statement.params)
      check(three, statement, expected, err)
      check(seven, statement, expected, err)
    end
  end)
end)
