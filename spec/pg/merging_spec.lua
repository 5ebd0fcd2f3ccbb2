local errors = require("lunashard.errors")
local merging = require("spec.support.merging")
local shard_results = require("spec.support.shard_results")
local statements = require("spec.support.merging_statements")

-- MERGING_STATEMENTS=1000 is the full form.
local STATEMENTS = tonumber(os.getenv("MERGING_STATEMENTS")) or shard_results.rounds(100)

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

  local function sqlstate(err)
    return (err.failed and err.failed[1].error or err).sqlstate
  end

  -- False when it was refused, which only some may be.
  local function check(router, statement, expected, err)
    local result, problem = router:scatter_gather(statement.sql, statement.params)
    if not result and statement.may_refuse and errors.is(problem, "NOT_MERGEABLE") then
      return false
    elseif expected and not result then
      error(statement.sql .. "\n" .. tostring(problem))
    elseif not expected then
      assert.is_nil(result, statement.sql)
      assert.equal(sqlstate(err), sqlstate(problem), statement.sql)
    else
      assert.equal(merging.text(expected, statement.in_order), merging.text(result, statement.in_order),
        statement.sql .. " -- " .. table.concat(statement.params, ", "))
    end
    return true
  end

  -- How many the servers could not run, and how many were refused.
  local function compare(n, make)
    local failed, refused = 0, 0
    for _ = 1, n do
      local statement = make()
      local expected, err = one:scatter_gather(statement.sql, statement.params)
      failed = failed + (expected and 0 or 1)
      local merged = check(three, statement, expected, err)
      assert.equal(merged, check(seven, statement, expected, err), statement.sql)
      refused = refused + (merged and 0 or 1)
    end
    return failed, refused
  end

  it("gives the same rows, in the same order, as on one database that has them all", function()
    local failed = compare(STATEMENTS, statements.next)
    assert.is_true(failed <= math.max(2, STATEMENTS / 10), failed .. " statements make no sense")
  end)

  it("gives the same rows or none, however its tables are joined", function()
    local n = math.max(STATEMENTS, 30) -- about six in ten may be refused
    local failed, refused = compare(n, statements.tangled)
    assert.is_true(failed <= n / 10, failed .. " statements make no sense")
    assert.is_true(refused < n * 0.9, refused .. " statements were refused")
  end)
end)
