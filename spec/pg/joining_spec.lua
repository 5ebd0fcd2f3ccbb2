local lease = require("lunashard.catalog.lease")
local moving = require("spec.support.moving")
local task = require("lunashard.task")

-- It is in the cluster file, and no job has begun yet.
describe("a shard that is about to join a cluster with a catalog", function()
  local cluster, router

  setup(function()
    cluster = moving.new({ shards = 3 })
    cluster:init(2)
    router = cluster:connect(3)
    for user = 1, 10 do
      assert(router:execute("INSERT INTO users (user_id, name) VALUES ($1, 'a')", { user }, { routing_key = user }))
    end
  end)

  teardown(function()
    cluster:destroy()
  end)

  it("has no part in what is written on all shards, and holds nobody up", function()
    local result = assert(router:execute("UPDATE users SET n = n + 1", nil, { all_shards = true, timeout = 10 }))
    assert.equal(10, result.row_count)
  end)

  local function count()
    return assert(router:execute("SELECT count(*) AS n FROM users", nil, { timeout = 10 })).rows[1].n
  end

  it("is read with the others", function()
    assert.equal(10, count())
  end)

  it("is read without a guard while the others have theirs", function()
    local catalog = router.manager.catalog
    assert(lease.open_guards(catalog, task.now() + 10))
    assert.is_true(router.manager.guarding)
    assert.equal(10, count())
    assert(router:execute_on_all_shards("SELECT count(*) FROM users"))
    local n = 0
    for _ in router:stream("SELECT user_id FROM users") do
      n = n + 1
    end
    assert(router:copy_out("users", function() end))
    assert(router:copy_in("users", { "user_id", "name" }, { { 11, "b" } }))
    assert.same({ 10, 11 }, { n, count() })
    assert(router:execute("SELECT 1", nil, { shard_id = router.manager.members[3].shard_id }))
    assert(lease.close_guards(catalog))
  end)
end)
