local failure = require("spec.support.cluster").failure
local lunashard = require("lunashard")

local function shard(i, more)
  local options = { shard_id = "shard" .. i, host = "db" .. i, database = "app", user = "app" }
  for name, value in pairs(more or {}) do
    options[name] = value
  end
  return options
end

local function new(tables, strategy, extractor)
  local manager = lunashard.manager({
    shards = { shard(1), shard(2), shard(3, { replicas = { { host = "r3" } } }) },
    strategy = strategy or { "hash", shard_key = "user_id" },
    tables = tables,
    extractor = extractor,
  })
  return lunashard.router(manager), manager
end

local TABLES = {
  users = { shard_key = "user_id", type = "int8" },
  countries = { reference = true },
}

local function key_on(manager, shard_id, above)
  local key = (above or 0) + 1
  while manager:get_shard_for_write(key).shard_id ~= shard_id do
    key = key + 1
  end
  return key
end

describe("explain of a statement without a key", function()
  it("says who found the key and where, its bucket, shard and endpoint, and what is sent", function()
    local router, manager = new(TABLES)
    local plan = assert(router:explain("SELECT * FROM users WHERE user_id = $1", { 42 }))
    local home, bucket = manager:get_shard_for_write(42)
    assert.equal(home.shard_id, plan.shard_id)
    assert.equal(bucket, plan.bucket)
    assert.equal("hash", plan.strategy)
    assert.equal("users", plan.table)
    assert.same({ 42 }, plan.keys)
    assert.is_truthy(plan.found:find("user_id", 1, true), plan.found)
    assert.equal("SELECT * FROM users WHERE user_id = $1", plan.statements[home.shard_id].sql)
    local text = tostring(plan)
    for _, part in ipairs({ "by_column", "user_id = 42", "bucket " .. bucket, home.host .. ":5432",
      "sent to " .. home.shard_id .. ": SELECT * FROM users" }) do
      assert.is_truthy(text:find(part, 1, true), text)
    end
  end)

  it("shows the part of each shard for a list of keys and for rows", function()
    local router, manager = new(TABLES)
    local one, two = key_on(manager, "shard1"), key_on(manager, "shard2")
    local plan = assert(router:explain("DELETE FROM users WHERE user_id = ANY ($1)", { { one, two } }))
    assert.same({ "shard1", "shard2" }, plan.shards)
    assert.same({ shard1 = 1, shard2 = 1 }, plan.split)
    assert.same({ { two } }, plan.statements.shard2.params)
    assert.is_truthy(plan.steps[1]:find("not atomic", 1, true))
    plan = assert(router:explain("INSERT INTO users (user_id) VALUES ($1), ($2)", { one, two }))
    assert.equal("row", plan.split_in)
    assert.is_nil(plan.statements.shard3)
    assert.equal(one, plan.statements.shard1.params[1])
    assert.equal(two, plan.statements.shard2.params[1])
    assert.is_truthy(tostring(plan):find("1 row of its own", 1, true), tostring(plan))
  end)

  it("shows what all shards are asked and how their answers are put together", function()
    local plan = assert(new(TABLES):explain("SELECT name, avg(age) FROM users GROUP BY name ORDER BY 2 LIMIT 5"))
    assert.same({ "shard1", "shard2", "shard3" }, plan.shards)
    assert.is_true(#plan.steps > 0)
    assert.is_truthy(tostring(plan):find("then 1: ", 1, true))
    assert.is_truthy(plan.statements.shard1.sql:find("sum", 1, true), plan.statements.shard1.sql)
  end)

  it("takes the same options as execute and scatter_gather", function()
    local router = new(TABLES)
    assert.same({ "shard1", "shard3" }, assert(router:explain("SELECT count(*) FROM users", nil,
      { shard_ids = { "shard3", "shard1" } })).shards)
    assert.equal(3, #assert(router:explain("DELETE FROM users", nil, { all_shards = true })).shards)
    assert.equal("shard2", assert(router:explain("SELECT * FROM countries", nil,
      { table = "countries", shard_id = "shard2" })).shard_id)
    assert(router:explain("SELECT 1 FROM users WHERE user_id = 1", nil,
      { read_only = true, after = "0/1", max_replica_lag = 5, hedge = 0.9, timeout = 1, retries = 0, pipeline = false }))
  end)

  it("names any shard for a reference table, and every shard for a write of it", function()
    local router = new(TABLES)
    local plan = assert(router:explain("SELECT * FROM countries"))
    assert.is_true(plan.any)
    assert.is_truthy(tostring(plan):find("any shard of: shard1, shard2, shard3", 1, true), tostring(plan))
    plan = assert(router:explain("DELETE FROM countries"))
    assert.is_nil(plan.any)
    assert.equal(3, #plan.shards)
  end)

  it("prunes by ranges", function()
    local strategy = { "range", shard_key = "user_id", ranges = { shard1 = { nil, 9 }, shard2 = { 10, 19 }, shard3 = { 20 } } }
    local router = new(TABLES, strategy)
    local function shards(where, params)
      return assert(router:explain("SELECT name FROM users WHERE " .. where, params)).shards
    end
    assert.same({ "shard1", "shard2" }, shards("user_id BETWEEN 5 AND $1", { 12 }))
    assert.same({ "shard2" }, shards("user_id >= 10 AND user_id <= 19"))
    assert.same({ "shard3" }, shards("user_id > 25"))
    assert.same({ "shard1", "shard2" }, assert(router:explain("DELETE FROM users WHERE user_id BETWEEN 5 AND 12")).shards)
    failure("NO_KEY", new(TABLES):explain("DELETE FROM users WHERE user_id BETWEEN 5 AND 12"))
  end)

  it("refuses what execute refuses, for the same reason", function()
    local router = new(TABLES)
    failure("NO_KEY", router:explain("DELETE FROM users"))
    failure("NO_KEY", router:explain("SELECT 1"))
    failure("NULL_KEY", router:explain("INSERT INTO users (user_id) VALUES (NULL)"))
    failure("SQL", router:explain("SELECT FROM WHERE"))
    failure("INVALID", router:explain("SELECT 1; SELECT 2"))
    failure("KEY_MISMATCH", router:explain("SELECT 1 FROM users WHERE user_id = 1", nil, { routing_key = 2 }))
    failure("KEY_MISMATCH", router:explain("INSERT INTO users (user_id) VALUES (1)", nil, { all_shards = true }))
    failure("NOT_MERGEABLE", router:explain("SELECT string_agg(name, ',') FROM users"))
    failure("INVALID", router:explain("SELECT 1 FROM users", nil, { all_shards = true, routing_key = 1 }))
    failure("INVALID", router:explain("SELECT 1 FROM users", nil, { table = "user" }))
    failure("INVALID", router:explain("DELETE FROM countries", nil, { table = "countries", shard_id = "shard1" }))
    failure("INVALID", router:explain("DELETE FROM users WHERE user_id = 1", nil, { table = "countries" }))
    failure("INVALID", router:explain("DELETE FROM countries", nil, { shard_id = "shard1" }))
    failure("NO_SHARD", router:explain("SELECT 1 FROM users", nil, { shard_ids = { "shard9" } }))
  end)

  it("says what it took on trust, for it asks no catalog", function()
    local router = new(TABLES)
    local plan = assert(router:explain("SELECT twice(user_id) FROM users"))
    assert.is_true(plan.assumed)
    assert.is_truthy(tostring(plan):find("no catalog was asked", 1, true))
    assert.is_nil(assert(router:explain("SELECT twice(age) FROM users WHERE user_id = 1")).assumed)
  end)

  it("without an extractor knows no keys", function()
    local router = lunashard.router({ shard_manager = select(2, new(TABLES)), extractor = false })
    failure("NO_KEY", router:explain("SELECT * FROM users WHERE user_id = 1"))
  end)
end)

describe("explain of a key alone", function()
  it("says its bucket, shard and endpoint", function()
    local router, manager = new(TABLES)
    local plan = assert(router:explain(nil, nil, { routing_key = 42, table = "users" }))
    local home, bucket = manager:get_shard_for_write(42)
    assert.equal("key", plan.kind)
    assert.equal(bucket, plan.bucket)
    assert.equal(home.shard_id, plan.shard_id)
    assert.is_truthy(tostring(plan):find("user_id = 42", 1, true))
    failure("NULL_KEY", router:explain(nil, nil, { routing_key = lunashard.null }))
    assert.is_false(pcall(router.explain, router))
    assert.is_false(pcall(router.explain, router, nil, nil, {}))
  end)
end)

describe("the explanation as a table", function()
  it("has what the text has, and of parameters only the key", function()
    local router, manager = new(TABLES)
    local key = key_on(manager, "shard3")
    local plain = assert(router:explain("UPDATE users SET name = $2 WHERE user_id = $1", { key, "secret" })):to_table()
    assert.equal("write", plain.kind)
    assert.equal("shard3", plain.shard_id)
    assert.equal(tostring(key), plain.key)
    assert.equal("primary", plain.endpoint_kinds.shard3)
    assert.same({ shard3 = "UPDATE users SET name = $2 WHERE user_id = $1" }, plain.statements)
    assert.is_nil(require("cjson.safe").encode(plain):find("secret", 1, true))
    local read = assert(router:explain("SELECT 1 FROM users WHERE user_id = $1", { key }, { read_only = true })):to_table()
    assert.equal("replica, else primary", read.endpoint_kinds.shard3)
    assert.equal("r3:5432, else db3:5432", read.endpoints.shard3)
  end)
end)
