local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")

local failure = cluster.failure

-- Whoever names a shard or a key, and a statement with another one: nothing is sent.
describe("a key that contradicts the statement's", function()
  local router, manager, plain, here, there

  local TABLES = { m_users = { shard_key = "user_id", type = "int8" }, m_countries = { reference = true } }

  setup(function()
    router, manager = cluster.connect({ tables = TABLES })
    plain = lunashard.router({ shard_manager = manager, extractor = false })
    here, there = cluster.key_on(manager, 1), cluster.key_on(manager, 2)
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS w_mismatch CASCADE; CREATE SCHEMA w_mismatch;
      CREATE TABLE w_mismatch.m_users (user_id int8, name text);
      CREATE TABLE w_mismatch.m_countries (code text)]]))
  end)

  before_each(function()
    assert(router:execute_on_all_shards("TRUNCATE w_mismatch.m_users, w_mismatch.m_countries"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA w_mismatch CASCADE"))
    cluster.release()
  end)

  local INSERT = "INSERT INTO w_mismatch.m_users (user_id, name) VALUES ($1, 'x')"

  local function rows()
    local n = 0
    for _, info in ipairs(manager.shards) do
      n = n + assert(plain:execute("SELECT count(*) AS n FROM w_mismatch.m_users", nil,
        { shard_id = info.shard_id })).rows[1].n
    end
    return n
  end

  it("is refused by execute, whether it is a routing_key or a shard_id", function()
    failure("KEY_MISMATCH", router:execute(INSERT, { there }, { routing_key = here }))
    failure("KEY_MISMATCH", router:execute(INSERT, { there }, { shard_id = "shard1" }))
    failure("KEY_MISMATCH", router:execute("DELETE FROM w_mismatch.m_users WHERE user_id = " .. there, nil,
      { routing_key = here }))
    failure("KEY_MISMATCH", router:execute("SELECT 1 FROM w_mismatch.m_users WHERE user_id IN ($1, $2)", { here, there },
      { routing_key = here }))
    failure("KEY_MISMATCH", router:execute("INSERT INTO w_mismatch.m_users (user_id) VALUES ($1), ($2)", { here, there },
      { routing_key = here }))
    failure("KEY_MISMATCH", router:execute("/* shard: shard2 */ SELECT count(*) FROM w_mismatch.m_users", nil,
      { shard_id = "shard1" }))
    assert.equal(0, rows())
  end)

  it("is refused also when both keys happen to live on one shard", function()
    failure("KEY_MISMATCH", router:execute(INSERT, { cluster.key_on(manager, 1, here) }, { routing_key = here }))
    assert.equal(0, rows())
  end)

  it("is none when it is the same key in another form", function()
    for _, form in ipairs({ here, tostring(here), here + 0LL, here + 0ULL }) do
      assert(router:execute(INSERT, { here }, { routing_key = form, table = "m_users" }))
      assert(router:execute(INSERT, { form }, { routing_key = here, table = "m_users" }))
    end
    assert(router:execute(INSERT, { here }, { shard_id = "shard1" }))
    assert.equal(9, rows())
  end)

  it("is none where the statement names no key", function()
    assert(router:execute("INSERT INTO w_mismatch.m_users VALUES ($1)", { here }, { routing_key = here }))
    assert(router:execute("UPDATE w_mismatch.m_users SET name = 'y'", nil, { shard_id = "shard1" }))
    assert(router:execute("SELECT count(*) FROM w_mismatch.m_users", nil, { routing_key = there }))
    assert(router:execute("SELECT count(*) FROM pg_class", nil, { routing_key = there }))
  end)

  it("is left to the server where our parser cannot read the statement", function()
    local err = failure("SQL", router:execute("SELECT FROM FROM", nil, { routing_key = here }))
    assert.equal("shard1", err.shard_id)
  end)

  it("with a NULL in the statement is refused for a row, and none for a search", function()
    failure("NULL_KEY", router:execute(INSERT, { lunashard.null }, { routing_key = here }))
    assert.same({}, assert(router:execute("SELECT name FROM w_mismatch.m_users WHERE user_id = $1", { lunashard.null },
      { routing_key = here })).rows)
    assert.equal(0, rows())
  end)

  it("is refused in a transaction, which is about one shard, and leaves it usable", function()
    assert(router:transaction({ routing_key = here }, function(tx)
      assert(tx:execute(INSERT, { here }))
      failure("KEY_MISMATCH", tx:execute(INSERT, { there }))
      failure("KEY_MISMATCH", tx:execute("UPDATE w_mismatch.m_users SET name = 'z' WHERE user_id = $1", { there }))
      local ok, err = pcall(tx:stream("SELECT 1 FROM w_mismatch.m_users WHERE user_id = $1", { there }))
      assert.is_false(ok)
      assert.equal("KEY_MISMATCH", err.code)
      assert(tx:execute(INSERT, { cluster.key_on(manager, 1, here) })) -- another key of the same shard
      failure("INVALID", tx:execute("INSERT INTO w_mismatch.m_countries VALUES ('at')"))
    end))
    assert.equal(2, rows())
  end)

  it("is refused by execute_many, with the number of the item, and by stream", function()
    local err = failure("KEY_MISMATCH", router:execute_many(INSERT, { { here }, { there } }, { shard_id = "shard1" }))
    assert.equal(2, err.index)
    err = failure("KEY_MISMATCH", router:execute_many(INSERT, { { here }, { there } }, { routing_keys = { here, here } }))
    assert.equal(2, err.index)
    local ok
    ok, err = pcall(router:stream("SELECT 1 FROM w_mismatch.m_users WHERE user_id = $1", { there }, { routing_key = here }))
    assert.is_false(ok)
    assert.equal("KEY_MISMATCH", err.code)
    assert.equal(0, rows())
  end)

  it("is refused for an INSERT that would put one row on every shard", function()
    failure("KEY_MISMATCH", router:execute(INSERT, { here }, { all_shards = true }))
    failure("KEY_MISMATCH", router:scatter_gather(INSERT, { here }, { all_shards = true }))
    failure("INVALID", router:execute(INSERT, { here }, { table = "m_countries" }))
    assert.equal(0, rows())
  end)

  it("is not looked for where nothing is declared, nor with extractor = false", function()
    assert(plain:execute(INSERT, { there }, { routing_key = here }))
    local free = cluster.connect({ tables = {} })
    assert(free:execute(INSERT, { there }, { routing_key = here }))
    local asked = lunashard.router({ shard_manager = free.manager, extractor = "by_column" })
    failure("KEY_MISMATCH", asked:execute(INSERT, { there }, { routing_key = here }))
    assert.equal(2, rows())
  end)
end)

describe("execute_many and stream without a key", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect({
      tables = { many_users = { shard_key = "user_id", type = "int8" }, many_lands = { reference = true } },
    })
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS many_users; CREATE TABLE many_users (user_id int8, name text)"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE many_users"))
    cluster.release()
  end)

  it("go where the statement says, item by item", function()
    local items = {}
    for i = 1, 60 do
      items[i] = { "name " .. i, i }
    end
    local done = assert(router:execute_many("INSERT INTO many_users (name, user_id) VALUES ($1, $2)", items))
    assert.equal(60, done.row_count)
    for i, result in ipairs(done.results) do
      assert.equal(manager:get_shard_for_write(i).shard_id, result.shard_id)
    end
    local seen, shards = 0, {}
    for row, shard_id in router:stream("SELECT user_id FROM many_users WHERE user_id = $1", { 7 }) do
      assert.equal(7, row.user_id)
      seen, shards[shard_id] = seen + 1, true
    end
    assert.equal(1, seen)
    assert.same({ [manager:get_shard_for_write(7).shard_id] = true }, shards)
    local all = {}
    for row in router:stream("SELECT user_id FROM many_users ORDER BY user_id", nil, { order_by = "user_id" }) do
      all[#all + 1] = row.user_id
    end
    assert.equal(60, #all)
    local two = { cluster.key_on(manager, 1), cluster.key_on(manager, 2) }
    for row, shard_id in router:stream("SELECT user_id FROM many_users WHERE user_id = ANY ($1)", { two }) do
      assert.equal(manager:get_shard_for_write(row.user_id).shard_id, shard_id)
      assert.is_not.equal("shard3", shard_id)
    end
  end)

  it("refuse items without a key, by number, and statements that name none or many", function()
    local err = failure("NULL_KEY", router:execute_many("INSERT INTO many_users (user_id) VALUES ($1)", { { 1 }, {} }))
    assert.equal(2, err.index)
    failure("NO_KEY", router:execute_many("DELETE FROM many_users WHERE name = $1", { { "x" } }))
    failure("INVALID", router:execute_many("INSERT INTO many_lands VALUES ($1)", { { "at" } }))
    failure("NO_KEY", router:execute_many("DELETE FROM many_users WHERE user_id IN ($1, $2)", { { 1, 2 } }))
  end)
end)

describe("a key of a type that nobody declared", function()
  teardown(cluster.release)

  it("is refused as a text of digits, which might be one of two keys", function()
    local router = cluster.connect({ tables = {}, strategy = { "hash", shard_key = "user_id" } })
    local err = failure("INVALID", router:execute("SELECT 1 FROM no_such_table WHERE user_id = $1", { "42" }))
    assert.is_truthy(err.message:find("declare its type", 1, true), err.message)
    err = failure("NO_KEY", router:execute("DELETE FROM no_such_table WHERE user_id = '42'"))
    assert.is_truthy(err.message:find("declare the type", 1, true), err.message)
    failure("SQL", router:execute("SELECT 1 FROM no_such_table WHERE user_id = $1", { 42 }))
    failure("SQL", router:execute("SELECT 1 FROM no_such_table WHERE user_id = $1", { "forty-two" }))
  end)
end)
