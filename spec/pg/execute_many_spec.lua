local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local task = require("lunashard.task")

local failure = cluster.failure

describe("router:execute_many", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect()
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_many CASCADE; CREATE SCHEMA e_many;
      CREATE TABLE e_many.users (user_id int8 PRIMARY KEY, name text)]]))
  end)

  before_each(function()
    assert(router:execute_on_all_shards("TRUNCATE e_many.users"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_many CASCADE"))
    cluster.release()
  end)

  local INSERT = "INSERT INTO e_many.users VALUES ($1, $2)"

  local function items(from, to)
    local list = {}
    for key = from, to do
      list[#list + 1] = { key, "user " .. key }
    end
    return list
  end

  local function ids_on(shard_id)
    local ids = {}
    for _, row in ipairs(assert(router:execute("SELECT user_id FROM e_many.users ORDER BY user_id", nil,
      { shard_id = shard_id })).rows) do
      ids[#ids + 1] = row.user_id
    end
    return ids
  end

  it("runs each item on the shard that owns its key", function()
    local result = assert(router:execute_many(INSERT, items(1, 90), { key = 1 }))
    assert.equal(90, result.row_count)
    assert.is_true(result.success)
    local seen = 0
    for _, info in ipairs(manager.shards) do
      for _, id in ipairs(ids_on(info.shard_id)) do
        assert.equal(info.shard_id, manager:get_shard_for_write(id).shard_id)
        seen = seen + 1
      end
    end
    assert.equal(90, seen)
  end)

  it("keeps the results in the order of the items, whichever shard they came from", function()
    assert(router:execute_many(INSERT, items(1, 50), { key = 1 }))
    local list = {}
    for i = 1, 50 do
      list[i] = { (i * 37) % 50 + 1 }
    end
    local result = assert(router:execute_many("SELECT user_id FROM e_many.users WHERE user_id = $1", list, { key = 1 }))
    for i = 1, 50 do
      assert.equal(list[i][1], result.results[i].rows[1].user_id)
    end
  end)

  it("does all or nothing on each shard, and says which item failed where", function()
    local duplicate = 1000
    local home = manager:get_shard_for_write(duplicate).shard_id
    assert(router:execute(INSERT, { duplicate, "first" }, { routing_key = duplicate }))
    local list = items(1, 30)
    list[31] = { duplicate, "again" }
    local err = failure("SHARDS_FAILED", router:execute_many(INSERT, list, { key = 1 }))
    assert.equal(1, #err.failed)
    assert.equal(home, err.failed[1].shard_id)
    assert.equal(31, err.failed[1].index)
    assert.equal("23505", err.failed[1].error.sqlstate)
    assert.equal(2, #err.committed)
    assert.same({ duplicate }, ids_on(home))
    for i, item in ipairs(list) do
      local owner = manager:get_shard_for_write(item[1]).shard_id
      assert.equal(owner ~= home, err.results[i] ~= nil)
      assert.equal(owner == home, err.item_errors[i] ~= nil)
    end
    for _, shard_id in ipairs(err.committed) do
      assert.is_true(#ids_on(shard_id) > 0)
    end
  end)

  it("runs every item on its own when told, past those that fail", function()
    assert(router:execute(INSERT, { 5, "first" }, { routing_key = 5 }))
    local err = failure("SHARDS_FAILED", router:execute_many(INSERT, items(1, 20), { key = 1, transaction = false }))
    assert.equal("23505", err.item_errors[5].sqlstate)
    assert.equal(5, err.item_errors[5].index)
    local n = 0
    for _ in pairs(err.results) do
      n = n + 1
    end
    assert.equal(19, n)
    local stored = assert(router:scatter_gather("SELECT count(*) AS n FROM e_many.users", nil,
      { aggregation_func = lunashard.aggregate.sum("n") }))
    assert.equal(20, stored.rows[1].n)
  end)

  local function count()
    return assert(router:scatter_gather("SELECT count(*) AS n FROM e_many.users", nil,
      { aggregation_func = lunashard.aggregate.sum("n") })).rows[1].n
  end

  it("names the item that failed among thousands, and runs none behind it", function()
    local home = manager:get_shard_for_write(3000).shard_id
    local err = failure("SHARDS_FAILED", router:execute_many(
      "INSERT INTO e_many.users VALUES (1 / ($1::int8 - 3000) * 0 + $1, $2)", items(1, 4000), { key = 1 }))
    assert.equal(1, #err.failed)
    assert.equal(home, err.failed[1].shard_id)
    assert.equal(3000, err.failed[1].index)
    assert.equal("22012", err.failed[1].error.sqlstate)
    assert.same({}, ids_on(home))
    assert.is_true(count() > 2000)
  end)

  it("names the item whose value has no SQL form, and stores nothing of its shard", function()
    local list = items(1, 1000)
    list[700] = { 700, print }
    local err = failure("SHARDS_FAILED", router:execute_many(INSERT, list, { key = 1 }))
    assert.equal(700, err.failed[1].index)
    assert.is_truthy(err.failed[1].error.message:find("a function has no SQL form", 1, true))
    assert.same({}, ids_on(manager:get_shard_for_write(700).shard_id))
  end)

  it("carries more than any buffer on the way holds, in both directions at once", function()
    local list = {}
    for i = 1, 120 do
      list[i] = { i, (string.char(96 + i % 26)):rep(200000) }
    end
    local result = assert(router:execute_many("SELECT $1::int8 AS id, $2::text || $2::text AS v", list, { key = 1 }))
    for i = 1, 120 do
      assert.equal(i, result.results[i].rows[1].id)
      assert.equal(list[i][2] .. list[i][2], result.results[i].rows[1].v)
    end
  end)

  it("ends at its timeout with nothing stored, and with nothing left running", function()
    local err = failure("SHARDS_FAILED", router:execute_many(
      "INSERT INTO e_many.users SELECT $1, $2 FROM pg_sleep(0.05)", items(1, 300), { key = 1, timeout = 0.5 }))
    assert.equal("TIMEOUT", err.failed[1].error.code)
    cluster.wait_until("nothing runs", function()
      for _, info in ipairs(manager.shards) do
        if manager:get_pool_stats(info.shard_id).used > 0 then
          return false
        end
      end
      return true
    end)
    assert.equal(0, count())
  end)

  it("stores nothing when its task is cancelled", function()
    local running = task.spawn(function()
      return router:execute_many("INSERT INTO e_many.users SELECT $1, $2 FROM pg_sleep(0.05)", items(1, 300), { key = 1 })
    end)
    cluster.wait_until("it runs", function()
      return assert(router:execute("SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE $1 AND state = 'active'",
        { "INSERT INTO e_many.users SELECT%" }, { shard_id = "shard1" })).rows[1].n > 0
    end)
    running:cancel()
    running:join()
    cluster.wait_until("nothing runs", function()
      return manager:get_pool_stats("shard1").used == 0 and manager:get_pool_stats("shard2").used == 0
        and manager:get_pool_stats("shard3").used == 0
    end)
    assert.equal(0, count())
  end)

  it("refuses a result beyond max_result_bytes, naming the item, and decodes json", function()
    local list = {}
    for i = 1, 50 do
      list[i] = { i, i == 40 and 300000 or 10 }
    end
    local err = failure("SHARDS_FAILED", router:execute_many("SELECT $1::int8, repeat('x', $2) AS v", list,
      { key = 1, max_result_bytes = 100000 }))
    assert.equal(40, err.failed[1].index)
    assert.equal("RESULT_TOO_LARGE", err.failed[1].error.code)
    local result = assert(router:execute_many("SELECT json_build_object('a', $1::int8) AS j", { { 1 }, { 2 } },
      { key = 1, decode_json = true }))
    assert.equal(2, result.results[2].rows[1].j.a)
  end)

  it("counts every item in the statistics", function()
    local before = router:get_statistics().total_queries
    assert(router:execute_many("SELECT $1::int8", items(1, 0), { key = 1 }))
    assert(router:execute_many("SELECT $1::int8, $2::text", items(1, 600), { key = 1 }))
    assert.is_true(router:get_statistics().total_queries - before >= 600)
  end)

  it("keeps the order of items of one key when each is on its own", function()
    assert(router:execute(INSERT, { 5, "" }, { routing_key = 5 }))
    local list, expected = {}, {}
    for i = 1, 60 do
      list[i] = { ({ 5, "5", 5LL })[i % 3 + 1], i .. "," }
      expected[i] = i .. ","
    end
    assert(router:execute_many("UPDATE e_many.users SET name = name || $2 WHERE user_id = $1", list,
      { key = 1, transaction = false }))
    assert.equal(table.concat(expected), assert(router:execute("SELECT name FROM e_many.users WHERE user_id = 5", nil,
      { routing_key = 5 })).rows[1].name)
  end)

  it("takes the keys from a list, or one key or shard for all", function()
    local list = { { "a" }, { "b" } }
    local result = assert(router:execute_many("SELECT $1::text AS v", list, { routing_keys = { 1, 2 } }))
    for i = 1, 2 do
      assert.equal(manager:get_shard_for_write(i).shard_id, result.results[i].shard_id)
      assert.equal(list[i][1], result.results[i].rows[1].v)
    end
    result = assert(router:execute_many("SELECT $1::text AS v", list, { shard_id = "shard2" }))
    assert.equal("shard2", result.results[2].shard_id)
    result = assert(router:execute_many("SELECT $1::text AS v", list, { routing_key = 7 }))
    assert.equal(manager:get_shard_for_write(7).shard_id, result.results[1].shard_id)
  end)

  it("sends nothing when a key is missing or wrong, and names the item", function()
    local list = items(1, 3)
    list[2] = { n = 2, nil, "nobody" }
    local err = failure("NULL_KEY", router:execute_many(INSERT, list, { key = 1 }))
    assert.equal(2, err.index)
    list[2] = { lunashard.null, "nobody" }
    err = failure("NULL_KEY", router:execute_many(INSERT, list, { key = 1 }))
    assert.equal(2, err.index)
    for _, info in ipairs(manager.shards) do
      assert.same({}, ids_on(info.shard_id))
    end
  end)

  it("needs to know the key", function()
    failure("NO_KEY", router:execute_many(INSERT, items(1, 2)))
  end)

  it("refuses what may not run in a transaction", function()
    failure("INVALID", router:execute_many("COMMIT", { {} }, { shard_id = "shard1" }))
  end)

  it("does nothing for an empty list", function()
    local result = assert(router:execute_many(INSERT, {}, { key = 1 }))
    assert.same({}, result.results)
    assert.equal(0, result.row_count)
  end)

  it("raises for arguments that make no sense", function()
    for _, call in ipairs({
      function() router:execute_many(INSERT, { 7 }, { key = 1 }) end,
      function() router:execute_many(INSERT, items(1, 2), { key = 0 }) end,
      function() router:execute_many(INSERT, items(1, 2), { key = "user_id" }) end,
      function() router:execute_many(INSERT, items(1, 2), { routing_keys = { 1 } }) end,
      function() router:execute_many(INSERT, "x", { key = 1 }) end,
      function() router:execute_many(INSERT, { { 1, "a" }, nil, { 3, "c" } }, { key = 1 }) end,
      function() router:execute_many(INSERT, { a = { 1, "a" } }, { key = 1 }) end,
      function() router:execute_many(INSERT, items(1, 3), { routing_keys = { 1, nil, 3 } }) end,
      function() router:execute_many(INSERT, items(1, 2), { key = 1, shard_id = "shard1" }) end,
      function() router:execute_many(INSERT, items(1, 2), { key = 1, routing_keys = { 1, 2 } }) end,
    }) do
      assert.has_error(call)
    end
  end)
end)

describe("router:execute_many with keys of several columns", function()
  teardown(cluster.release)

  it("routes by all of them", function()
    local router, manager = cluster.connect({
      strategy = { "hash", shard_key = { "tenant", "name" }, key_type = { "int8", "text" } },
      tables = {},
    })
    local list = {}
    for i = 1, 30 do
      list[i] = { i, "value", "name " .. i }
    end
    local result = assert(router:execute_many("SELECT $1::int8, $2::text, $3::text", list, { key = { 1, 3 } }))
    local used = {}
    for i = 1, 30 do
      assert.equal(manager:get_shard_for_write({ i, "name " .. i }).shard_id, result.results[i].shard_id)
      used[result.results[i].shard_id] = true
    end
    assert.same({ shard1 = true, shard2 = true, shard3 = true }, used)
    manager:shutdown()
  end)
end)
