local moving = require("spec.support.moving")

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

  it("is read with the others", function()
    local result = assert(router:execute("SELECT count(*) AS n FROM users", nil, { timeout = 10 }))
    assert.equal(10, result.rows[1].n)
  end)
end)
