local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local sockets = require("spec.support.sockets")

local failure = cluster.failure

describe("a reference table", function()
  local router
  local TABLES = { countries = { reference = true }, users = { shard_key = "user_id", type = "int8" } }

  setup(function()
    router = cluster.connect({ tables = TABLES })
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_reference CASCADE; CREATE SCHEMA e_reference;
      CREATE TABLE e_reference.countries (code text PRIMARY KEY, name text)]]))
  end)

  before_each(function()
    assert(router:execute_on_all_shards("TRUNCATE e_reference.countries"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_reference CASCADE"))
    cluster.release()
  end)

  local INSERT = "INSERT INTO e_reference.countries VALUES ($1, $2)"

  local function counts()
    local found = assert(router:scatter_gather("SELECT count(*) AS n FROM e_reference.countries", nil,
      { aggregation_func = lunashard.aggregate.concat() }))
    return { found.rows[1].n, found.rows[2].n, found.rows[3].n }
  end

  it("is not written on one shard alone by execute_many", function()
    failure("INVALID", router:execute_many(INSERT, { { "at", "Austria" } }, { table = "countries", shard_id = "shard2" }))
    assert.same({ 0, 0, 0 }, counts())
  end)

  it("is written on every shard", function()
    local result = assert(router:execute(INSERT, { "at", "Austria" }, { table = "countries" }))
    assert.equal(1, result.row_count)
    assert.is_true(result.shard_results.shard3.success)
    assert.same({ 1, 1, 1 }, counts())
  end)

  it("is read on any one shard, each in its turn", function()
    local seen = {}
    for _ = 1, 6 do
      local result = assert(router:execute("SELECT 1", nil, { table = "countries" }))
      seen[result.shard_id] = (seen[result.shard_id] or 0) + 1
    end
    assert.same({ shard1 = 2, shard2 = 2, shard3 = 2 }, seen)
  end)

  it("names the shards where a write failed and those where it was done", function()
    local unasking = lunashard.router({ shard_manager = router.manager, extractor = false })
    assert(unasking:execute(INSERT, { "ch", "x" }, { shard_id = "shard2" }))
    local err = failure("SHARDS_FAILED", router:execute(INSERT, { "ch", "Switzerland" }, { table = "countries" }))
    assert.equal("shard2", err.failed[1].shard_id)
    assert.equal("23505", err.failed[1].error.sqlstate)
    assert.same({ "shard1", "shard3" }, err.done)
    assert.is_truthy(err.message:find("differs between shards", 1, true), err.message)
  end)

  it("is not written on one shard alone", function()
    failure("INVALID", router:execute(INSERT, { "x", "y" }, { table = "countries", shard_id = "shard1" }))
    assert.equal("shard2", assert(router:execute("SELECT 1", nil, { table = "countries", shard_id = "shard2" })).shard_id)
  end)

  it("has no routing key", function()
    local err = failure("INVALID", router:transaction({ table = "countries", routing_key = "at" }, function() end))
    assert.is_truthy(err.message:find("reference table", 1, true), err.message)
  end)

  it("is read from the shards that are there when one is down", function()
    local options = cluster.options({ tables = TABLES, retries = 0 })
    options.shards[1].port = sockets.closed_port()
    local limping
    cluster.warnings(function()
      local manager = lunashard.manager(options)
      assert(manager:initialize())
      limping = lunashard.router(manager)
    end)
    for _ = 1, 6 do
      assert.is_not.equal("shard1", assert(limping:execute("SELECT 1", nil, { table = "countries" })).shard_id)
    end
    local err = failure("SHARDS_FAILED", limping:execute(INSERT, { "de", "Germany" }, { table = "countries" }))
    assert.equal("shard1", err.failed[1].shard_id)
    limping.manager:shutdown()
  end)
end)
