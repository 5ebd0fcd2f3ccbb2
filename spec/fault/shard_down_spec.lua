local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")

describe("a shard that fails", function()
  local servers, router, manager

  setup(function()
    servers = sandbox.start({ shards = 3 })
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers:start()
    router, manager = cluster.connect({ cluster_file = servers.cluster_file })
    assert(router:execute_on_all_shards([[
      DROP TABLE IF EXISTS fault_writes;
      CREATE TABLE fault_writes (user_id bigint PRIMARY KEY, written int NOT NULL DEFAULT 1)]]))
  end)

  after_each(function()
    cluster.close_all()
  end)

  it("is named when a scatter fails for it, and when a partial answer is asked for", function()
    servers:kill("shard2")
    local err = cluster.failure("SHARDS_FAILED", router:scatter_gather("SELECT count(*) AS count FROM fault_writes", nil,
      { timeout = 2 }))
    assert.equal("shard2", err.failed[1].shard_id)
    local partial = assert(router:scatter_gather("SELECT count(*) AS count FROM fault_writes", nil,
      { timeout = 2, on_failure = "partial" }))
    assert.is_false(partial.complete)
    assert.equal(1, #partial.failed)
    assert.equal(1, #partial.rows) -- of the two that answered
    assert.is_true(partial.shard_results.shard1.success and partial.shard_results.shard3.success)
  end)

  it("does not keep initialize from going on, is said to be down, and recovers without a restart", function()
    servers:kill("shard3")
    local late = cluster.manager({ cluster_file = servers.cluster_file })
    local warnings = cluster.warnings(function()
      assert(late:initialize())
    end)
    assert.equal(1, #warnings)
    assert.is_truthy(warnings[1]:find("shard3", 1, true), warnings[1])
    assert.equal(2, late:get_cluster_status().healthy_shards)
    assert.is_false(late.shard_health.shard3.is_healthy)

    servers:start()
    local late_router = lunashard.router({ shard_manager = late })
    cluster.wait_until("shard3 is healthy again", function()
      late_router:execute("SELECT 1", nil, { shard_id = "shard3", timeout = 1 })
      return late.shard_health.shard3.is_healthy
    end, 10)
    assert.equal(3, late:get_cluster_status().healthy_shards)
  end)

  it("fails initialize when require_all asks for it", function()
    servers:kill("shard1")
    local strict = cluster.manager({ cluster_file = servers.cluster_file, require_all = true })
    local result, err
    cluster.warnings(function()
      result, err = strict:initialize()
    end)
    assert.equal("shard1", cluster.failure("SHARDS_FAILED", result, err).failed[1].shard_id)
  end)

  it("by a restart is used again at once, and reads in the pool do not see it", function()
    local shard = servers.shards[1]
    assert(router:execute("SELECT 1", nil, { shard_id = shard.shard_id, read_only = true }))
    servers:stop()
    servers:start()
    for _ = 1, 20 do
      assert(router:execute("SELECT 1", nil, { shard_id = shard.shard_id, read_only = true }))
    end
    assert.is_true(manager:get_pool_stats(shard.shard_id).used <= 1)
  end)
end)
