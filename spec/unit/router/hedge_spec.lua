local config = require("lunashard.config")
local hedge = require("lunashard.router.hedge")

describe("the option hedge", function()
  it("is a percentile, a table with one, or false", function()
    for _, given in ipairs({ 0.5, 0.95, false, { percentile = 0.9 }, { percentile = 0.99, at_least = 0.005, share = 0.05 } }) do
      assert.is_nil(hedge.problem(given))
    end
  end)

  for what, given in pairs({
    ["expected a percentile above 0 and below 1, such as 0.95, got 95"] = 95,
    ["expected a percentile above 0 and below 1, such as 0.95, got nil"] = { at_least = 1 },
    ["expected a percentile such as 0.95, a table"] = true,
    ["did you mean \"percentile\""] = { percentil = 0.9 },
    ["at_least: expected a number of seconds above 0, got 0"] = { percentile = 0.9, at_least = 0 },
    ["share: expected a number above 0 and below 1, got 2"] = { percentile = 0.9, share = 2 },
  }) do
    it("is refused where it is wrong: " .. what, function()
      assert.is_truthy(hedge.problem(given):find(what, 1, true), hedge.problem(given))
    end)
  end

  it("is checked in the cluster file", function()
    local shard = { shard_id = "shard1", host = "db1", database = "app" }
    local cfg, message = config.manager({ shards = { shard }, hedge = 1 })
    assert.is_nil(cfg)
    assert.matches("^hedge: expected a percentile", message)
    assert.equal(0.9, assert(config.manager({ shards = { shard }, hedge = { percentile = 0.9 } })).hedge.percentile)
  end)
end)
