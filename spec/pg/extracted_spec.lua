local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")

local failure = cluster.failure

-- Statements without a routing key go where their own keys say. `plain` is a router that neither looks for keys nor
-- questions any, so that it sees what is really where.
describe("a statement without a routing key", function()
  local router, manager, plain

  local TABLES = {
    x_users = { shard_key = "user_id", type = "int8" },
    x_orders = { shard_key = "user_id", type = "int8" },
    x_docs = { shard_key = "slug", type = "text" },
    x_parts = { shard_key = { "tenant", "part" }, type = { "int8", "text" } },
    x_countries = { reference = true },
  }

  setup(function()
    router, manager = cluster.connect({ tables = TABLES, strategy = { "hash" } })
    plain = lunashard.router({ shard_manager = manager, extractor = false })
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS w_extracted CASCADE; CREATE SCHEMA w_extracted;
      CREATE TABLE w_extracted.x_users (user_id int8 PRIMARY KEY, name text, age int);
      CREATE TABLE w_extracted.x_orders (order_id int8, user_id int8, total numeric);
      CREATE TABLE w_extracted.x_docs (slug text PRIMARY KEY, body text);
      CREATE TABLE w_extracted.x_parts (tenant int8, part text, n int, PRIMARY KEY (tenant, part));
      CREATE TABLE w_extracted.x_countries (code text PRIMARY KEY, name text)]]))
  end)

  after_each(function()
    assert(router:execute_on_all_shards("TRUNCATE w_extracted.x_users, w_extracted.x_orders, w_extracted.x_docs, "
      .. "w_extracted.x_parts, w_extracted.x_countries"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA w_extracted CASCADE"))
    cluster.release()
  end)

  local function on_each(sql)
    local found = {}
    for _, info in ipairs(manager.shards) do
      found[info.shard_id] = assert(plain:execute(sql, nil, { shard_id = info.shard_id })).rows
    end
    return found
  end

  -- Every row of a table lies on the shard of its key, and there are so many of them.
  local function assert_placed(name, expected, key_of)
    local seen = 0
    for shard_id, rows in pairs(on_each("SELECT * FROM w_extracted." .. name)) do
      for _, row in ipairs(rows) do
        local key = key_of and key_of(row) or row.user_id
        assert.equal(shard_id, manager:get_shard_for_write(key, { table = name }).shard_id, "key " .. tostring(key))
        seen = seen + 1
      end
    end
    assert.equal(expected, seen)
  end

  -- Keys that live on different shards.
  local function spread(n)
    local keys = {}
    for i = 1, n do
      keys[i] = cluster.key_on(manager, (i - 1) % 3 + 1, 1000 * i)
    end
    return keys
  end

  local function fill(n)
    for key = 1, n do
      assert(plain:execute("INSERT INTO w_extracted.x_users VALUES ($1, $2, $3)", { key, "user " .. key, key % 7 },
        { routing_key = key, table = "x_users" }))
    end
  end

  describe("that inserts", function()
    local FORMS = {
      { "INSERT INTO w_extracted.x_users (user_id, name) VALUES ($1, $2)", 1 },
      { "INSERT INTO w_extracted.x_users (name, user_id) VALUES ($2, $1)", 1 },
      { "INSERT INTO w_extracted.x_users (name, user_id) VALUES ($2, $1::int8) RETURNING user_id", 1 },
      { "INSERT INTO w_extracted.x_users (name, user_id) VALUES ($2, CAST($1 AS bigint))", 1 },
      { 'INSERT INTO "w_extracted"."x_users" ("user_id", name) VALUES ($1, $2)', 1 },
      { "INSERT INTO W_Extracted.X_Users AS u (User_ID, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", 1 },
      { "INSERT INTO w_extracted.x_users (user_id, name) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET name = $2", 1 },
    }

    for _, form in ipairs(FORMS) do
      it("puts the row where its key lives: " .. form[1], function()
        for key = 1, 20 do
          local result = assert(router:execute(form[1], { key, "user " .. key }))
          assert.equal(manager:get_shard_for_write(key, { table = "x_users" }).shard_id, result.shard_id)
          assert.equal(1, result.row_count)
          assert.is_nil(result.split)
        end
        assert_placed("x_users", 20)
      end)
    end

    it("takes literal keys, negative and large ones, in whatever form", function()
      local literals = { "42", "-17", "0", "'43'", "'44'::int8", "int8 '45'", "9007199254740993",
        "'-9223372036854775808'::int8" }
      for _, literal in ipairs(literals) do
        assert(router:execute(("INSERT INTO w_extracted.x_users (user_id, name) VALUES (%s, 'x')"):format(literal)))
      end
      assert_placed("x_users", #literals)
    end)

    it("takes a parameter as a number, an int64 or a text", function()
      for _, key in ipairs({ 1, 2LL, "3", 9007199254740993LL, "9223372036854775807" }) do
        assert(router:execute("INSERT INTO w_extracted.x_users (user_id) VALUES ($1)", { key }))
      end
      assert_placed("x_users", 5)
    end)

    it("deals the rows of one INSERT out to their shards, and says how many went where", function()
      local keys = spread(9)
      local parts, params = {}, {}
      for i, key in ipairs(keys) do
        parts[i] = ("($%d, $%d)"):format(2 * i - 1, 2 * i)
        params[2 * i - 1], params[2 * i] = key, "name " .. i
      end
      local result = assert(router:execute("INSERT INTO w_extracted.x_users (user_id, name) VALUES "
        .. table.concat(parts, ", ") .. " RETURNING user_id, name", params))
      assert.same({ shard1 = 3, shard2 = 3, shard3 = 3 }, result.split)
      assert.equal(9, result.row_count)
      assert.equal("INSERT", result.command)
      assert.is_true(result.success and result.complete)
      for i, key in ipairs(keys) do
        assert.same({ user_id = key, name = "name " .. i }, result.rows[i])
      end
      assert_placed("x_users", 9)
    end)

    it("sends the rows of one INSERT that are of one shard there, as they are", function()
      local one = cluster.key_on(manager, 2, 0)
      local other = cluster.key_on(manager, 2, one)
      local result = assert(router:execute("INSERT INTO w_extracted.x_users (user_id) VALUES ($1), ($2)", { one, other }))
      assert.equal("shard2", result.shard_id)
      assert.is_nil(result.split)
      assert_placed("x_users", 2)
    end)

    it("mixes parameters, literals and NULLs of other columns in the rows that it deals out", function()
      local keys = spread(3)
      assert(router:execute(("INSERT INTO w_extracted.x_users (age, user_id, name) VALUES "
        .. "(1, %d, 'a, (b)'), ($2, $1, NULL), (DEFAULT, %d, upper($3))"):format(keys[1], keys[3]), { keys[2], 7, "z" }))
      assert_placed("x_users", 3)
      local function row(i)
        return assert(plain:execute("SELECT name, age FROM w_extracted.x_users WHERE user_id = $1", { keys[i] },
          { shard_id = "shard" .. i })).rows[1]
      end
      assert.same({ name = "a, (b)", age = 1 }, row(1))
      assert.same({ age = 7 }, row(2))
      assert.same({ name = "Z" }, row(3))
    end)

    it("leaves out the rows that ON CONFLICT DO NOTHING leaves out", function()
      local keys = spread(3)
      assert(router:execute("INSERT INTO w_extracted.x_users (user_id) VALUES ($1)", { keys[2] }))
      local result = assert(router:execute("INSERT INTO w_extracted.x_users (user_id) VALUES ($1), ($2), ($3) "
        .. "ON CONFLICT DO NOTHING RETURNING user_id", keys))
      assert.equal(2, result.row_count)
      assert.equal(2, #result.rows)
      assert_placed("x_users", 3)
    end)

    it("is one transaction on each shard, and names those where it was done when it failed on another", function()
      local keys = spread(6)
      assert(router:execute("INSERT INTO w_extracted.x_users (user_id) VALUES ($1)", { keys[5] }))
      local err = failure("SHARDS_FAILED", router:execute("INSERT INTO w_extracted.x_users (user_id) "
        .. "VALUES ($1), ($2), ($3), ($4), ($5), ($6)", keys))
      assert.equal("shard2", err.failed[1].shard_id)
      assert.equal("23505", err.failed[1].error.sqlstate)
      assert.same({ "shard1", "shard3" }, err.done)
      assert.same({ shard1 = 2, shard2 = 2, shard3 = 2 }, err.split)
      assert.is_truthy(err.message:find("not atomic", 1, true), err.message)
      assert_placed("x_users", 5)
    end)

    it("refuses a row with a NULL key, alone or among others, and sends nothing", function()
      local sql = "INSERT INTO w_extracted.x_orders (order_id, user_id) VALUES "
      failure("NULL_KEY", router:execute(sql .. "(1, $1)", { lunashard.null }))
      failure("NULL_KEY", router:execute(sql .. "(1, $1)", {}))
      failure("NULL_KEY", router:execute(sql .. "(1, NULL)"))
      local err = failure("NULL_KEY", router:execute(sql .. "(1, $1), (2, $2)", { 1, lunashard.null }))
      assert.is_truthy(err.message:find("row 2", 1, true), err.message)
      assert_placed("x_orders", 0)
    end)

    it("refuses what does not name the key, with all that can be done", function()
      for _, sql in ipairs({
        "INSERT INTO w_extracted.x_users (name) VALUES ('x')",
        "INSERT INTO w_extracted.x_users (user_id) VALUES (DEFAULT)",
        "INSERT INTO w_extracted.x_users (user_id) VALUES ((SELECT max(user_id) + 1 FROM w_extracted.x_users))",
        "INSERT INTO w_extracted.x_users (user_id) SELECT user_id + 1 FROM w_extracted.x_users",
      }) do
        failure("NO_KEY", router:execute(sql))
      end
      assert_placed("x_users", 0)
    end)

    it("into a table of texts, and into one with a key of two columns, finds their shards", function()
      for _, slug in ipairs({ "a", "42", "'quoted'", "Grüße", "" }) do
        assert(router:execute("INSERT INTO w_extracted.x_docs (slug, body) VALUES ($1, 'x')", { slug }))
      end
      assert(router:execute("INSERT INTO w_extracted.x_docs (slug) VALUES ('it''s'), (E'b\\'c'), ($$d$$), ('e'), ('f')"))
      assert_placed("x_docs", 10, function(row)
        return row.slug
      end)
      for i = 1, 12 do
        assert(router:execute("INSERT INTO w_extracted.x_parts (n, part, tenant) VALUES (1, $2, $1)", { i % 3, "part " .. i }))
      end
      assert(router:execute("INSERT INTO w_extracted.x_parts (tenant, part) VALUES (7, 'x'), (7, 'y'), (8, $1)", { "z" }))
      assert_placed("x_parts", 15, function(row)
        return { row.tenant, row.part }
      end)
    end)
  end)

  describe("that changes rows", function()
    before_each(function()
      fill(30)
    end)

    local function names()
      local found = {}
      for _, rows in pairs(on_each("SELECT user_id, name FROM w_extracted.x_users")) do
        for _, row in ipairs(rows) do
          found[row.user_id] = row.name
        end
      end
      return found
    end

    it("goes to the shard of its key alone", function()
      for key = 1, 30 do
        local result = assert(router:execute("UPDATE w_extracted.x_users u SET name = $2 WHERE u.user_id = $1 AND age >= 0",
          { key, "new " .. key }))
        assert.equal(1, result.row_count)
        assert.equal(manager:get_shard_for_write(key, { table = "x_users" }).shard_id, result.shard_id)
      end
      for key, name in pairs(names()) do
        assert.equal("new " .. key, name)
      end
      assert.equal(1, assert(router:execute("DELETE FROM w_extracted.x_users WHERE 7 = user_id")).row_count)
      assert.is_nil(names()[7])
    end)

    it("of several keys goes to their shards, each with those that are its own", function()
      local result = assert(router:execute("UPDATE w_extracted.x_users SET name = 'list' WHERE user_id IN ($1, 2, $2, 4, 5, 6) "
        .. "RETURNING user_id", { 1, 3 }))
      assert.equal(6, result.row_count)
      local split = 0
      for shard_id, n in pairs(result.split) do
        assert.is_string(shard_id)
        split = split + n
      end
      assert.equal(6, split)
      result = assert(router:execute("DELETE FROM w_extracted.x_users WHERE user_id = ANY ($1) AND age <> 100",
        { { 10, 11, 12, lunashard.null, 13, 999 } }))
      assert.equal(4, result.row_count)
      local now = names()
      assert.equal("list", now[6])
      assert.equal("user 7", now[7])
      assert.is_nil(now[12])
    end)

    it("without a key is refused unless it is meant for every shard", function()
      for _, sql in ipairs({
        "DELETE FROM w_extracted.x_users",
        "UPDATE w_extracted.x_users SET name = 'x' WHERE name = 'y'",
        "DELETE FROM w_extracted.x_users WHERE user_id = 1 OR age = 3",
        "DELETE FROM w_extracted.x_users WHERE user_id <> 1",
        "DELETE FROM w_extracted.x_users WHERE user_id > 1 AND user_id < 5",
        "DELETE FROM w_extracted.x_users WHERE NOT user_id = 1",
      }) do
        local err = failure("NO_KEY", router:execute(sql))
        assert.is_truthy((err.message .. (err.hint or "")):find("routing_key", 1, true), err.message)
      end
      local all = assert(router:execute("UPDATE w_extracted.x_users SET name = 'all'", nil, { all_shards = true }))
      assert.equal(30, all.row_count)
    end)

    it("and asks for more than the rows that it changed is refused on several shards, and done on one", function()
      local sql = "WITH gone AS (DELETE FROM w_extracted.x_users WHERE %s RETURNING user_id) SELECT count(*) AS n FROM gone"
      local several = sql:format("user_id IN (1, 2, 3, 4, 5, 6)")
      failure("NOT_MERGEABLE", router:execute(several))
      failure("NOT_MERGEABLE", router:execute(sql:format("age > 0"), nil, { all_shards = true }))
      failure("NOT_MERGEABLE", router:explain(several))
      assert_placed("x_users", 30)
      assert.same({ { n = 1 } }, assert(router:execute(sql:format("user_id = 1"))).rows)
      local each = assert(router:scatter_gather(sql:format("age >= 0"), nil,
        { all_shards = true, aggregation_func = lunashard.aggregate.concat() }))
      assert.equal(3, #each.rows)
      assert_placed("x_users", 0)
    end)

    it("of the shard key itself is refused with advice, also with a routing key", function()
      for _, opts in ipairs({ {}, { routing_key = 1 } }) do
        local result, err = router:execute("UPDATE w_extracted.x_users SET user_id = 77 WHERE user_id = 1", nil, opts)
        assert.is_nil(result)
        assert.is_true(err.code == "INVALID" or err.code == "KEY_MISMATCH", tostring(err))
      end
      assert.equal("user 1", names()[1])
    end)

    it("with a NULL key changes nothing, as the server would say", function()
      for sql, params in pairs({
        ["DELETE FROM w_extracted.x_users WHERE user_id = $1"] = { lunashard.null },
        ["UPDATE w_extracted.x_users SET age = 0 WHERE user_id = ANY ($1)"] = { {} },
      }) do
        assert.equal(0, assert(router:execute(sql, params)).row_count)
      end
      assert_placed("x_users", 30)
    end)

    it("writes a reference table everywhere, and reads it anywhere", function()
      local result = assert(router:execute("INSERT INTO w_extracted.x_countries VALUES ($1, $2)", { "at", "Austria" }))
      assert.equal(1, result.row_count)
      for shard_id, rows in pairs(on_each("SELECT code FROM w_extracted.x_countries")) do
        assert.same({ { code = "at" } }, rows, shard_id)
      end
      local seen = {}
      for _ = 1, 6 do
        local read = assert(router:execute("SELECT name FROM w_extracted.x_countries WHERE code = 'at'"))
        assert.equal("Austria", read.rows[1].name)
        seen[read.shard_id] = true
      end
      assert.same({ shard1 = true, shard2 = true, shard3 = true }, seen)
      failure("INVALID", router:execute("DELETE FROM w_extracted.x_countries", nil, { routing_key = 1 }))
      failure("INVALID", router:execute("DELETE FROM w_extracted.x_countries", nil, { shard_id = "shard1" }))
    end)
  end)

  describe("that reads", function()
    before_each(function()
      fill(30)
      for key = 1, 30 do
        assert(plain:execute("INSERT INTO w_extracted.x_orders VALUES ($1, $2, $3)", { 100 + key, key, key * 10 },
          { routing_key = key, table = "x_orders" }))
      end
    end)

    local ONE = {
      "SELECT name FROM w_extracted.x_users WHERE user_id = $1",
      "SELECT u.name FROM w_extracted.x_users AS u WHERE $1 = u.user_id AND u.age < 100",
      "SELECT name FROM w_extracted.x_users JOIN w_extracted.x_orders USING (user_id) WHERE user_id = $1",
      "SELECT u.name FROM w_extracted.x_users u JOIN w_extracted.x_orders o ON o.user_id = u.user_id WHERE o.user_id = $1",
      "WITH one AS (SELECT * FROM w_extracted.x_users WHERE user_id = $1) SELECT name FROM one",
      "SELECT name FROM (SELECT * FROM w_extracted.x_users WHERE user_id = $1) AS sub",
      "SELECT name FROM w_extracted.x_users WHERE user_id = $1 UNION SELECT name FROM w_extracted.x_users WHERE user_id = $1",
      "SELECT name FROM w_extracted.x_users WHERE user_id IN ($1)",
    }

    for _, sql in ipairs(ONE) do
      it("asks one shard: " .. sql, function()
        for _, key in ipairs({ 1, 2, 3, 4, 30 }) do
          local result = assert(router:execute(sql, { key }))
          assert.same({ { name = "user " .. key } }, result.rows)
          assert.equal(manager:get_shard_for_write(key, { table = "x_users" }).shard_id, result.shard_id)
        end
      end)
    end

    local function sorted(rows)
      local list = {}
      for i, row in ipairs(rows) do
        list[i] = row.user_id
      end
      table.sort(list)
      return list
    end

    it("asks the shards of its keys, each for its own, and nobody else", function()
      local first = cluster.key_on(manager, 1)
      local keys = { first, cluster.key_on(manager, 1, first), cluster.key_on(manager, 2) }
      table.sort(keys)
      for _, form in ipairs({
        { "SELECT user_id FROM w_extracted.x_users WHERE user_id IN ($1, $2, $3)", keys },
        { ("SELECT user_id FROM w_extracted.x_users WHERE user_id IN (%d, $1, %d)"):format(keys[1], keys[3]), { keys[2] } },
        { "SELECT user_id FROM w_extracted.x_users WHERE user_id = ANY ($1)", { keys } },
        { "SELECT user_id FROM w_extracted.x_users WHERE user_id = ANY ($1::int8[]) AND age >= $2", { keys, 0 } },
      }) do
        local result = assert(router:execute(form[1], form[2]))
        assert.same(keys, sorted(result.rows), form[1])
        assert.same({ shard1 = 2, shard2 = 1 }, result.split)
        assert.is_nil(result.shard_results.shard3)
        assert.is_true(result.complete)
      end
    end)

    it("asks one shard when all of its keys are there", function()
      local result = assert(router:execute("SELECT user_id FROM w_extracted.x_users WHERE user_id = ANY ($1)",
        { { cluster.key_on(manager, 3), cluster.key_on(manager, 3, 5) } }))
      assert.equal("shard3", result.shard_id)
    end)

    it("does not find for a key what lies on a shard where it does not belong", function()
      local key = cluster.key_on(manager, 1, 100)
      assert(plain:execute("INSERT INTO w_extracted.x_users VALUES ($1, 'stray')", { key }, { shard_id = "shard2" }))
      local own = cluster.key_on(manager, 2, 100)
      assert(plain:execute("INSERT INTO w_extracted.x_users VALUES ($1, 'own')", { own }, { shard_id = "shard2" }))
      local result = assert(router:execute("SELECT name FROM w_extracted.x_users WHERE user_id = ANY ($1)", { { key, own } }))
      assert.same({ { name = "own" } }, result.rows)
      result = assert(router:execute("SELECT name FROM w_extracted.x_users WHERE user_id IN ($1, $2)", { key, own }))
      assert.same({ { name = "own" } }, result.rows)
    end)

    it("with a NULL key finds nothing, in the form that the server gives it", function()
      local function rows_of(what, params)
        return assert(router:execute(("SELECT %s"):format(what), params)).rows
      end
      local null = lunashard.null
      assert.same({}, rows_of("name FROM w_extracted.x_users WHERE user_id = $1", { null }))
      assert.same({ { n = 0 } }, rows_of("count(*) AS n FROM w_extracted.x_users WHERE user_id = $1", { null }))
      assert.same({}, rows_of("name FROM w_extracted.x_users WHERE user_id = ANY ($1)", { {} }))
      assert.same({ { user_id = 4 } }, rows_of("user_id FROM w_extracted.x_users WHERE user_id IN ($1, $2)", { 4, null }))
    end)

    it("without a key asks all shards and puts their answers together", function()
      local result = assert(router:execute("SELECT count(*) AS n, sum(age) AS ages, avg(user_id) AS middle "
        .. "FROM w_extracted.x_users"))
      assert.equal(1, #result.rows)
      assert.equal(30, result.rows[1].n)
      assert.equal(15.5, tonumber(result.rows[1].middle))
      assert.is_true(result.complete)
      local page = assert(router:execute("SELECT user_id FROM w_extracted.x_users ORDER BY user_id DESC LIMIT 3 OFFSET 2"))
      assert.same({ { user_id = 28 }, { user_id = 27 }, { user_id = 26 } }, page.rows)
      local some = assert(router:execute("SELECT count(*) AS n FROM w_extracted.x_users WHERE user_id = ANY ($1)",
        { { 1, 2, 3, 4, 5, 6, 1000 } }))
      assert.same({ { n = 6 } }, some.rows)
    end)

    it("is refused when the shards' answers cannot be put together", function()
      local err = failure("NOT_MERGEABLE", router:execute("SELECT string_agg(name, ',') FROM w_extracted.x_users"))
      assert.is_truthy(#err.message > 0)
    end)

    it("of an undeclared table, by the option table, is refused with the nearest name", function()
      local err = failure("INVALID", router:execute("SELECT 1 FROM w_extracted.x_users WHERE user_id = 1", nil,
        { table = "x_user" }))
      assert.is_truthy(err.message:find('"x_users"', 1, true), err.message)
    end)

    it("names no table: is refused, for any shard might be meant", function()
      local err = failure("NO_KEY", router:execute("SELECT 1"))
      for _, word in ipairs({ "routing_key", "shard_id", "scatter_gather" }) do
        assert.is_truthy(err.message:find(word, 1, true), err.message)
      end
    end)

    it("does not parse: says what PostgreSQL says, with its position", function()
      local err = failure("SQL", router:execute("SELECT FROM w_extracted.x_users WHERE WHERE"))
      assert.equal("42601", err.sqlstate)
      assert.equal(39, err.position)
      failure("INVALID", router:execute("SELECT 1; SELECT 2"))
      failure("INVALID", router:execute(""))
    end)

    it("passes its options on, and keeps to one timeout for all shards", function()
      local keys = spread(3)
      local result = assert(router:execute("SELECT user_id FROM w_extracted.x_users WHERE user_id = ANY ($1)", { keys },
        { read_only = true, retries = 0, pipeline = false, decode_json = true, max_result_bytes = 100000 }))
      assert.same({}, result.rows)
      local err = failure("SHARDS_FAILED", router:execute(
        "SELECT user_id, pg_sleep(30) FROM w_extracted.x_orders WHERE user_id = ANY ($1)",
        { { cluster.key_on(manager, 1), cluster.key_on(manager, 2) } }, { timeout = 0.4, read_only = true }))
      assert.equal("TIMEOUT", err.failed[1].error.code)
    end)
  end)

  describe("with a hint", function()
    it("goes to the shard or the key that its comment names", function()
      assert.equal("shard2", assert(router:execute("/* shard: shard2 */ SELECT count(*) FROM w_extracted.x_users")).shard_id)
      local key = cluster.key_on(manager, 3)
      assert.equal("shard3", assert(router:execute(("/* shard_key: %d */ SELECT count(*) FROM w_extracted.x_users")
        :format(key))).shard_id)
      failure("NO_SHARD", router:execute("/* shard: shard9 */ SELECT count(*) FROM w_extracted.x_users"))
    end)

    it("inside a literal goes nowhere for it", function()
      local key = cluster.key_on(manager, 1)
      local result = assert(router:execute("SELECT '/* shard: shard2 */' AS t FROM w_extracted.x_users WHERE user_id = $1",
        { key }))
      assert.equal("shard1", result.shard_id)
    end)
  end)
end)
