-- scripts/add_shard.lua and scripts/drain_shard.lua, one after the other on the same cluster.
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")
local scripts = require("spec.support.scripts")

local KEYS = 400

describe("scripts/add_shard.lua and drain_shard.lua", function()
  local cluster, four

  setup(function()
    cluster = moving.new({ shards = 4, strategy = "hash" })
    cluster:fill(3, 1, KEYS)
    cluster:on(4, "DROP TABLE orders")
    cluster:on(4, "DROP TABLE users, countries")
    four = cluster:file(4)
  end)

  teardown(function()
    cluster:destroy()
    scripts.release()
    sandbox.release()
  end)

  local function on_fourth()
    return cluster:on(4, "SELECT count(*) AS n FROM users").rows[1].n
  end

  it("want a catalog, and a shard that there is", function()
    local result = scripts.run("add_shard", { "s4" }, { cluster = four })
    assert.equal(2, result.code)
    assert.truthy(result.stderr:find("the cluster has no catalog: run `lunashard cluster init`", 1, true), result.stderr)
    cluster:init(3)
    result = scripts.run("add_shard", { "s5" }, { cluster = four })
    assert.truthy(result.stderr:find("there is no shard s5", 1, true), result.stderr)
    result = scripts.run("add_shard", { "s4" }, { cluster = four })
    assert.truthy(result.stderr:find("s4: countries the reference table is not there; create it as it is on the other shards "
      .. "(and 2 more)", 1, true), result.stderr)
  end)

  it("give a new shard its tables and its share of the rows", function()
    local result = scripts.run("add_shard", { "s4", "--create-tables", "--json" }, { cluster = four })
    assert.equal(0, result.code, result.stderr)
    local moved = on_fourth()
    assert.is_true(moved > 60 and moved < 140, tostring(moved))
    assert.equal(moved, result.json.result.jobs[1].rows)
    assert.matches("^lunashard cluster verify %-c ", result.json.next)
  end)

  it("take all of it away again, when the cluster's name is given", function()
    local result = scripts.run("drain_shard", { "s4" }, { cluster = four })
    assert.equal(2, result.code)
    assert.truthy(result.stderr:find("say so with --yes " .. cluster.prefix, 1, true), result.stderr)
    result = scripts.run("drain_shard", { "s4", "--dry-run" }, { cluster = four })
    assert.equal(0, result.code, result.stderr)
    assert.is_true(on_fourth() > 0)
    result = scripts.run("drain_shard", { "s4", "--yes", cluster.prefix }, { cluster = four })
    assert.equal(0, result.code, result.stderr)
    assert.equal(0, on_fourth())
    assert.truthy(result.stderr:find("s4 owns nothing any more: take it out of the cluster file", 1, true), result.stderr)
  end)
end)
