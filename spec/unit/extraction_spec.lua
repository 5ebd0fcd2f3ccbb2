local extraction = require("lunashard.extraction")
local extractor = require("lunashard.extractor")
local lunashard = require("lunashard")

local function new_manager(tables, strategy)
  local shards = {}
  for i = 1, 3 do
    shards[i] = { shard_id = "s" .. i, host = "localhost", database = "app" }
  end
  return lunashard.manager({ shards = shards, strategy = strategy or { "hash" }, tables = tables })
end

local manager = new_manager({
  users = { shard_key = "user_id", type = "int8" },
  orders = { shard_key = "user_id", type = "int8" },
  logs = { shard_key = "name", type = "text" },
  files = { shard_key = "id", type = "uuid" },
  days = { shard_key = "day", type = "date" },
  items = { shard_key = { "tenant", "region" }, type = { "int8", "text" } },
  countries = { reference = true },
})
local default = extractor.find(nil)

local function plan(sql, params, one)
  local made = assert(extraction.plan(one or default, manager, sql))
  if made.kind == "dynamic" then
    made = assert(extraction.ask(made, params))
  end
  return made
end

local function text(value)
  if type(value) == "table" then
    local parts = {}
    for i, one in ipairs(value) do
      parts[i] = text(one)
    end
    return "(" .. table.concat(parts, ",") .. ")"
  end
  return type(value) == "cdata" and tostring(value) or type(value) == "string" and ("%q"):format(value)
    or tostring(value)
end

-- "key users 42", "keys users 1 2", "refused NO_KEY".
local function found(sql, params, one)
  local made = plan(sql, params, one)
  local words = { made.kind, made.table, made.code, made.shard_id }
  if made.kind == "key" or made.kind == "keys" or made.kind == "rows" then
    local keys, n = extraction.keys(made, params)
    for i = 1, n or 0 do
      words[#words + 1] = text(keys[i])
    end
    words[#words + 1] = not keys and n.code or nil
  end
  local list = {}
  for _, name in ipairs({ 1, 2, 3, 4 }) do
    list[#list + 1] = words[name]
  end
  for i = 5, #words do
    list[#list + 1] = words[i]
  end
  return table.concat(list, " ")
end

local function check(cases, params, one)
  for sql, expected in pairs(cases) do
    assert.equal(expected, (found(sql, params, one)), sql)
  end
end

local function reason(sql, params, one)
  return plan(sql, params, one).reason
end

describe("the plan of a statement", function()
  it("has the key of the one row or table that it is about", function()
    check({
      ["SELECT * FROM users WHERE user_id = 42"] = "key users 42",
      ["SELECT * FROM users WHERE user_id = $2"] = "key users 12",
      ["SELECT * FROM users WHERE user_id = '42'"] = "key users 42",
      ["SELECT * FROM users WHERE user_id = '042'::int8"] = "key users 42",
      ["SELECT * FROM users WHERE user_id = CAST($1 AS bigint)"] = "key users 11",
      ["SELECT * FROM users WHERE user_id = $1::text::bigint"] = "key users 11",
      ["SELECT * FROM users WHERE user_id = -5"] = "key users -5",
      ["SELECT * FROM users WHERE user_id = 9007199254740993"] = "key users 9007199254740993LL",
      ["SELECT * FROM logs WHERE name = 'O''Brien'"] = 'key logs "O\'Brien"',
      ["SELECT * FROM logs WHERE name = 'a'::varchar"] = 'key logs "a"',
      ["SELECT * FROM logs WHERE name = $$x$$"] = 'key logs "x"',
      ["SELECT * FROM files WHERE id = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid"]
        = 'key files "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"',
      ["SELECT * FROM days WHERE day = date '2024-02-29'"] = 'key days "2024-02-29"',
      ["INSERT INTO users (name, user_id) VALUES ('x', $1) RETURNING *"] = "key users 11",
      ["INSERT INTO logs (name) VALUES (42)"] = 'key logs "42"',
      ["INSERT INTO items (region, tenant) VALUES ('eu', $1)"] = 'key items (11,"eu")',
      ["SELECT * FROM items WHERE tenant = $1 AND region = 'eu'"] = 'key items (11,"eu")',
      ["EXPLAIN (ANALYZE) SELECT * FROM users WHERE user_id = $1"] = "key users 11",
      ["SELECT * FROM users WHERE user_id = 42 FOR UPDATE"] = "key users 42",
      ["SELECT count(*) FROM users u JOIN countries c ON c.id = u.c WHERE u.user_id = $1"] = "key users 11",
    }, { 11, 12 })
  end)

  it("has the parameter's number, so that a call is one look-up", function()
    local made = plan("SELECT * FROM users WHERE user_id = $3")
    assert.same({ "key", 3, nil }, { made.kind, made.param, made.value })
    made = plan("SELECT * FROM users WHERE user_id = 3")
    assert.same({ "key", 3 }, { made.kind, made.value })
    assert.is_nil(made.param)
  end)

  it("has no key where a cast may change the value, or the value is none of the type", function()
    for _, condition in ipairs({
      "user_id = 42::text", "user_id = $1::float8", "user_id = $1::numeric(3)", "user_id = '42'::varchar(1)::int8",
      "user_id = $1::date", "user_id = 'abc'", "user_id = '99999999999999999999'", "user_id = 42.0", "user_id = true",
      "user_id = $1::app.int8", "user_id = '{1}'::int8[]", "user_id = $1::int8::text",
    }) do
      assert.equal("all", plan("SELECT * FROM users WHERE " .. condition).kind, condition)
      assert.equal("NO_KEY", plan("DELETE FROM users WHERE " .. condition).code, condition)
    end
    for _, condition in ipairs({ "name = $1::int8::text", "name = 'a '::char(2)", "name = 'abc'::varchar(2)",
      "name = 'a'::name" }) do
      assert.equal("all", plan("SELECT * FROM logs WHERE " .. condition).kind, condition)
    end
  end)

  it("has several keys, and for each shard the statement with its own alone", function()
    check({
      ["SELECT * FROM users WHERE user_id IN (1, $2, 3)"] = "keys users 1 12 3",
      ["SELECT * FROM users WHERE user_id = ANY ('{1,2}')"] = "keys users 1 2",
      ["SELECT * FROM users WHERE user_id = 1 OR user_id = 2"] = "keys users 1 2",
      ["SELECT * FROM items WHERE (region, tenant) IN (('eu', 1), ('us', $1))"] = 'keys items (1,"eu") (11,"us")',
      ["DELETE FROM users WHERE user_id IN (1, 2)"] = "keys users 1 2",
      ["UPDATE users SET x = o.x FROM orders o WHERE o.user_id = users.user_id AND o.user_id IN (1, 2)"]
        = "keys users 1 2",
      ["SELECT * FROM users u JOIN orders o USING (user_id) WHERE user_id IN (1, 2)"] = "keys users 1 2",
      ["INSERT INTO orders (user_id) SELECT user_id FROM users WHERE user_id IN (1, 2)"] = "keys orders 1 2",
    }, { 11, 12 })

    local function split(sql, indexes, params)
      local text_of, own = plan(sql).split(indexes, params)
      return text_of, own
    end
    assert.equal("SELECT * FROM users WHERE user_id IN (1, 3) AND x",
      (split("SELECT * FROM users WHERE user_id IN (1, 2, 3) AND x", { 1, 3 })))
    local sql, own = split("SELECT $4 FROM users WHERE user_id IN ($1, /* , */ $2, NULL, $3) AND y = $5", { 2, 3 },
      { "a", "b", "c", "d", "e", n = 5 })
    assert.equal("SELECT $1 FROM users WHERE user_id IN ($2, $3) AND y = $4", sql)
    assert.same({ "d", "b", "c", "e", n = 4 }, own)
    assert.equal("SELECT * FROM users WHERE user_id = ANY (ARRAY[ 2]::int8[])",
      (split("SELECT * FROM users WHERE user_id = ANY (ARRAY[ 1, 2]::int8[])", { 2 })):gsub("%[2", "[ 2"))
    assert.equal("SELECT ',)' FROM users WHERE user_id IN ((2), '3')",
      (split("SELECT ',)' FROM users WHERE user_id IN (1, (2), '3')", { 2, 3 })))
    assert.is_nil(plan("SELECT * FROM users WHERE user_id = 1 OR user_id = 2").split)
    -- Here 2 says something of the other table too.
    assert.is_nil(plan("SELECT * FROM users JOIN countries c ON c.x = user_id WHERE c.x IN (1, 2)").split)
  end)

  it("has the parameter that is a list of keys", function()
    local made = plan("SELECT * FROM users WHERE user_id = ANY ($2::bigint[])")
    assert.same({ "keys", 2 }, { made.kind, made.array_param })
    local keys, n = extraction.keys(made, { 0, { 5, lunashard.null, 7, n = 3 } })
    assert.same({ 3, 5, lunashard.null, 7 }, { n, unpack(keys, 1, 3) })
    assert.equal(0, select(2, extraction.keys(made, { 0, lunashard.null })))
    local _, err = extraction.keys(made, { 0, "{1,2}" })
    assert.equal("INVALID", err.code)
  end)

  it("has the bounds of a range of numbers or dates, but not of texts, whose order is the server's", function()
    local made = plan("SELECT * FROM users WHERE user_id BETWEEN $1 AND 20")
    assert.same({ "range", 11, 20 }, { made.kind, extraction.bounds(made, { 11 }) })
    made = plan("SELECT * FROM users WHERE user_id > 5")
    assert.is_true(made.low_exclusive)
    assert.same({ 5, nil }, { extraction.bounds(made) })
    assert.equal("range", plan("SELECT * FROM days WHERE day < '2024-01-01'").kind)
    assert.equal("all", plan("SELECT * FROM logs WHERE name BETWEEN 'a' AND 'b'").kind)
    assert.equal("all", plan("SELECT * FROM files WHERE id > 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'").kind)
  end)

  it("has the key of each row of an INSERT, and the INSERT of some of them", function()
    local sql = "INSERT INTO users (x, user_id) VALUES (f(1, 2), $1), ($2, 7), ('),(', $3) ON CONFLICT DO NOTHING RETURNING x"
    local made = plan(sql)
    assert.equal("rows users 1 7 3", (found(sql, { 1, 2, 3 })))
    assert.equal("INSERT INTO users (x, user_id) VALUES ($1, 7) ON CONFLICT DO NOTHING RETURNING x",
      (made.split({ 2 }, { 1, 2, 3 })))
    local text_of, params = made.split({ 1, 3 }, { "a", "b", "c" })
    assert.equal("INSERT INTO users (x, user_id) VALUES (f(1, 2), $1), ('),(', $2) ON CONFLICT DO NOTHING RETURNING x",
      text_of)
    assert.same({ "a", "c", n = 2 }, params)
    assert.equal("key users 5", (found("INSERT INTO users (user_id, x) VALUES (5, 1), (5, 2)")))
    assert.equal("INSERT INTO users AS \"values\" (user_id) VALUES (2)",
      (plan("INSERT INTO users AS \"values\" (user_id) VALUES (1), (2)").split({ 2 })))
  end)

  it("has the keys of a thousand rows", function()
    local rows, params = {}, {}
    for i = 1, 1000 do
      rows[i] = ("($%d,$%d)"):format(2 * i - 1, 2 * i)
      params[2 * i - 1], params[2 * i] = i, "name " .. i
    end
    local sql = "INSERT INTO users (user_id, name) VALUES " .. table.concat(rows, ",")
    local made = plan(sql)
    local keys, n = extraction.keys(made, params)
    assert.same({ 1000, 1, 1000 }, { n, keys[1], keys[1000] })
    local text_of, own = made.split({ 1000, 1 }, params)
    assert.equal("INSERT INTO users (user_id, name) VALUES ($1,$2), ($3,$4)", text_of)
    assert.same({ 1000, "name 1000", 1, "name 1", n = 4 }, own)
  end)

  it("refuses rows whose key is not known, saying which", function()
    for sql, text_of in pairs({
      ["INSERT INTO users (user_id) VALUES (1), (2.5)"] = "row 2",
      ["INSERT INTO users (user_id) VALUES (1), ('x')"] = 'row 2: user_id of users is not known: the value "x" is not an int8',
      ["INSERT INTO users (user_id) VALUES ($1), (DEFAULT)"] = "of row 2 is DEFAULT",
      ["INSERT INTO users (user_id) VALUES ($1), ((SELECT 1))"] = "of row 2 is an expression",
      ["INSERT INTO users (user_id, x) VALUES (1, (SELECT max(x) FROM orders)), (2, 3)"] = "not all that the statement does",
      ["WITH i AS (INSERT INTO users (user_id) VALUES (1), (2) RETURNING *) SELECT * FROM i"] = "not all that",
    }) do
      local made = plan(sql)
      assert.equal("refused", made.kind, sql)
      assert.is_truthy(made.reason:find(text_of, 1, true), sql .. ": " .. made.reason)
    end
  end)

  it("is for every shard, or refused when it writes, where nothing says which", function()
    for what, reason_of in pairs({
      ["users"] = "user_id of users is not said to equal anything",
      ["users u WHERE u.user_id <> 1"] = "user_id of users (u) is not said",
      ["users WHERE user_id = 1.5"] = "user_id of users is not said to equal anything",
      ["users WHERE user_id = 'x'"] = 'user_id of users is not known: the value "x" is not an int8',
      ["users WHERE user_id = 42::text"] = "a cast to text may change the value",
      ["userss WHERE user_id = 1"] = 'table userss is not declared; did you mean "users"?',
      ["other.things"] = "table other.things is not declared",
      ["items WHERE tenant = 1"] = "region of items is not said",
    }) do
      assert.equal("all", plan("SELECT * FROM " .. what).kind, what)
      local refused = plan("DELETE FROM " .. what)
      assert.same({ "refused", "NO_KEY" }, { refused.kind, refused.code }, what)
      assert.is_truthy(refused.reason:find(reason_of, 1, true), refused.reason)
      assert.is_truthy(refused.hint)
    end
  end)

  it("is for every shard, or refused when it writes, where tables have different keys", function()
    check({
      ["SELECT * FROM users u, orders o WHERE u.user_id = 1 AND o.user_id = 2"] = "all users",
      ["SELECT 1 FROM users WHERE user_id = 1 UNION ALL SELECT 1 FROM orders WHERE user_id = 2"] = "all users",
      ["SELECT * FROM users, logs WHERE user_id = 42 AND name = '42'"] = "all users",
      ["DELETE FROM users USING orders o WHERE users.user_id = 1 AND o.user_id = 2"] = "refused users NO_KEY",
      ["WITH a AS (DELETE FROM users WHERE user_id = 1), b AS (DELETE FROM orders WHERE user_id = 2) SELECT 1"]
        = "refused users NO_KEY",
      ["UPDATE users SET x = (SELECT max(x) FROM orders) WHERE user_id IN (1, 2)"] = "refused users NO_KEY",
      ["DELETE FROM users WHERE user_id IN (1, 2) AND x IN (SELECT x FROM orders WHERE user_id IN (1, 2))"]
        = "refused users NO_KEY",
    })
  end)

  it("is routed by either where a key is said to be two: no row is both", function()
    local made = plan("SELECT * FROM users WHERE user_id = 1 AND user_id = 2")
    assert.equal("key", made.kind)
  end)

  it("is for any shard where there are only reference tables or none at all", function()
    check({
      ["SELECT * FROM countries WHERE user_id = 1"] = "reference countries",
      ["INSERT INTO countries VALUES (1), (2)"] = "reference countries",
      ["SELECT 1"] = "reference", ["SELECT now(), $1::int + 1"] = "reference", ["VALUES (1), (2)"] = "reference",
      ["SELECT my_function(1)"] = "all", ["SELECT nextval('s')"] = "all", ["SELECT * FROM pg_class"] = "all",
    })
    assert.is_true(plan("DELETE FROM countries").write)
    assert.is_false(plan("TABLE countries").write)
  end)

  it("refuses to write a reference table by what one shard has", function()
    for _, sql in ipairs({
      "INSERT INTO countries (id) SELECT user_id FROM users WHERE user_id = 1",
      "UPDATE countries SET x = u.x FROM users u WHERE u.user_id = 1",
      "WITH d AS (DELETE FROM countries) INSERT INTO users (user_id) VALUES (1)",
    }) do
      local made = plan(sql)
      assert.same({ "refused", "NO_KEY" }, { made.kind, made.code }, sql)
      assert.is_truthy(made.reason:find("countries is on every shard", 1, true), made.reason)
    end
  end)

  it("refuses to change the shard key, with advice", function()
    local made = plan("UPDATE users SET user_id = 7 WHERE user_id = 1")
    assert.same({ "refused", "INVALID" }, { made.kind, made.code })
    assert.is_truthy(made.hint:find("INSERT it with the new key and DELETE the old one", 1, true))
  end)

  it("refuses statements that are none of a table's rows, saying how to run them", function()
    for _, sql in ipairs({ "CREATE TABLE x (a int)", "TRUNCATE users", "SHOW work_mem", "SELECT 1 INTO x", "CALL p(1)",
      "EXPLAIN SELECT * FROM users", "DELETE FROM users WHERE CURRENT OF c", "LOCK users", "COPY users FROM STDIN" }) do
      local made = plan(sql)
      assert.same({ "refused", "NO_KEY" }, { made.kind, made.code }, sql)
      assert.is_truthy(made.hint:find("shard_id", 1, true), sql)
    end
  end)

  it("is none for what does not parse, is empty, or is several statements", function()
    local made, err = extraction.plan(default, manager, "SELECT * FORM users")
    assert.is_nil(made)
    assert.same({ "SQL", "42601", 10 }, { err.code, err.sqlstate, err.position })
    for sql, text_of in pairs({ [""] = "empty", ["/* */ ;"] = "empty", ["SELECT 1; SELECT 2"] = "2 statements" }) do
      made, err = extraction.plan(default, manager, sql)
      assert.is_nil(made)
      assert.equal("INVALID", err.code)
      assert.is_truthy(err.message:find(text_of, 1, true), err.message)
    end
  end)

  it("is refused for a text that is too long to be parsed, with advice; a comment serves all the same", function()
    local long = "INSERT INTO users (user_id, x) VALUES " .. ("(1, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'),"):rep(27000) .. "(2, '')"
    assert.is_true(#long > 1024 * 1024)
    local made = plan(long)
    assert.same({ "refused", "NO_KEY" }, { made.kind, made.code })
    assert.is_truthy(made.reason:find("more than 32 KiB", 1, true))
    assert.is_truthy(made.reason:find("execute_many or copy_in", 1, true))
    assert.equal("key 1", (found("/* shard_key: 1 */" .. long)))
    assert.equal("refused NO_KEY", (found(long .. "'/* shard_key: 1 */")))
    local deep = "SELECT * FROM users WHERE user_id = 1 AND " .. ("NOT "):rep(1500) .. "x"
    assert.equal("refused NO_KEY", (found(deep)))
  end)

  it("is there at once, also where everything refers twice to what refers twice to something", function()
    local function repeated(n, text_of, separator)
      local list = {}
      for i = 1, n do
        list[i] = text_of:gsub("[#@]", { ["#"] = i, ["@"] = i - 1 })
      end
      return table.concat(list, separator)
    end
    check({
      ["WITH c0 AS (SELECT * FROM users), " .. repeated(60, "c# AS (SELECT * FROM c@ x, c@ y)", ", ")
        .. " SELECT 1 FROM c60 WHERE user_id = 1"] = "all users",
      ["WITH c0 AS (SELECT * FROM users), "
        .. repeated(60, "c# AS (SELECT x.* FROM c@ x JOIN c@ y USING (user_id))", ", ")
        .. " SELECT 1 FROM c60 WHERE user_id = 1"] = "all users",
      ["WITH c0 AS (SELECT user_id FROM users WHERE user_id = 1), "
        .. repeated(60, "c# AS (SELECT user_id FROM c@ UNION SELECT user_id FROM c@)", ", ")
        .. " INSERT INTO orders (user_id) SELECT user_id FROM c60"] = "key orders 1",
      ["SELECT 1 FROM users a0 " .. repeated(200, "JOIN users a# ON a@.user_id = a#.user_id", " ")
        .. " WHERE a200.user_id = 5"] = "key users 5",
      ["SELECT 1 FROM users JOIN orders USING (user_id) WHERE " .. repeated(700, "users.user_id = #", " AND ")]
        = "key users 1",
    })
  end)

  it("is the same table for one text, until the declared tables are others", function()
    local sql = "SELECT * FROM users WHERE user_id = $1"
    local other = new_manager({ users = { shard_key = "id", type = "int8" } })
    local one = extractor.by_column()
    local made = extraction.plan(one, manager, sql)
    assert.equal(made, extraction.plan(one, manager, sql))
    assert.equal("all", extraction.plan(one, other, sql).kind)
    assert.equal("key", extraction.plan(one, manager, sql).kind)
    other.tables = { users = { shard_key = "user_id", type = "int8" } }
    assert.equal("key", extraction.plan(one, other, sql).kind)
  end)
end)

describe("without declared tables", function()
  local function plan_with(strategy, sql)
    return assert(extraction.plan(default, new_manager(nil, strategy), sql))
  end

  it("the strategy's shard key counts for every table", function()
    local made = plan_with({ "hash", shard_key = "user_id" }, "SELECT * FROM anything WHERE user_id = $1")
    assert.same({ "key", 1, nil }, { made.kind, made.param, made.table })
    assert.equal("all", plan_with({ "hash", shard_key = "user_id" }, "SELECT * FROM a, b WHERE a.user_id = 1").kind)
    made = plan_with({ "hash" }, "DELETE FROM anything WHERE user_id = $1")
    assert.is_truthy(made.reason:find("no tables are declared", 1, true))
  end)

  it("a text of digits is no key, for it might be a number, unless a type says so", function()
    local hash = { "hash", shard_key = "user_id" }
    local made = plan_with(hash, "SELECT * FROM a WHERE user_id = '42'")
    assert.equal("all", made.kind)
    assert.is_truthy(made.reason:find("declare the type", 1, true))
    assert.equal("ann", plan_with(hash, "SELECT * FROM a WHERE user_id = 'ann'").value)
    assert.equal(42, plan_with(hash, "SELECT * FROM a WHERE user_id = 42").value)
    assert.same({ 42 }, (extraction.keys(plan_with(hash, "SELECT * FROM a WHERE user_id = '42'::int8"))))
    made = plan_with(hash, "SELECT * FROM a WHERE user_id = $1::bigint")
    assert.is_nil(made.param)
    assert.same({ 42 }, (extraction.keys(made, { "42" })))
    assert.same({ "42" }, (extraction.keys(plan_with(hash, "SELECT * FROM a WHERE user_id = $1::text"), { 42 })))
    local _, err = extraction.keys(made, { "x" })
    assert.equal("INVALID", err.code)
    assert.equal(42, plan_with({ "hash", shard_key = "user_id", key_type = "int8" },
      "SELECT * FROM a WHERE user_id = '42'").value)
  end)

  it("bounds that are texts are open, for texts have an order of their own", function()
    local made = plan_with({ "hash", shard_key = "user_id" }, "SELECT * FROM a WHERE user_id BETWEEN $1 AND $2")
    assert.same({ 1, nil }, { extraction.bounds(made, { 1, "9" }) })
  end)
end)

describe("a comment", function()
  it("names the key or the shard, in block or line form", function()
    check({
      ["/* shard_key: 42 */ SELECT * FROM users"] = "key users 42",
      ["SELECT * FROM users -- SHARD_KEY:   42  \n"] = "key users 42",
      ["DELETE FROM users /* shard_key: 42 */ WHERE x = 1"] = "key users 42",
      ["/* shard_key: 'O''Brien, x' */ SELECT * FROM logs"] = "key logs \"O'Brien, x\"",
      ["/* shard_key: 42 */ SELECT * FROM logs"] = 'key logs "42"',
      ["/* shard_key: 1, 'e,u' */ SELECT * FROM items"] = 'key items (1,"e,u")',
      ["/* shard: s2 */ DELETE FROM users"] = "shard users s2",
      ["/* shard_key: 3 */ SELECT * FROM countries"] = "reference countries",
      ["/* shard: s2 */ SELECT * FROM countries"] = "shard s2",
      ["/* shard: s2 */ CREATE TABLE x (a int)"] = "shard s2",
      ["/* shard_key: 42 */ /* shard_key: 42 */ SELECT 1"] = "key 42",
    })
  end)

  it("is no text that looks like one", function()
    for _, sql in ipairs({
      "SELECT '/* shard_key: 42 */' FROM users", "SELECT $$/* shard_key: 42 */$$ FROM users",
      "SELECT \"/* shard_key: 42 */\" FROM users", "SELECT E'\\'/* shard_key: 42 */' FROM users",
      "SELECT $a$ $$/* shard_key: 42 */$$ $a$ FROM users", "SELECT '-- shard_key: 42\n' FROM users",
      "/* /* shard_key: 42 */ */ SELECT * FROM users", "/* my shard_key: 42 */ SELECT * FROM users",
      "-- /* shard_key: 42 */\nSELECT * FROM users", "/* shard_key 42 */ SELECT * FROM users",
      "/* shard_key: */ SELECT * FROM users", "/* /* */ shard_key: 42 */ SELECT * FROM users",
    }) do
      assert.equal("all", plan(sql).kind, sql)
    end
  end)

  it("must not contradict another one, or the statement's own key", function()
    check({
      ["/* shard_key: 42 */ SELECT * FROM users WHERE user_id = 42"] = "key users 42",
      ["/* shard_key: 42 */ SELECT * FROM users WHERE user_id = $1"] = "key users 42",
      ["/* shard_key: 042 */ SELECT * FROM users WHERE user_id IN (42, 42)"] = "key users 42",
      ["/* shard_key: 43 */ SELECT * FROM users WHERE user_id = $1"] = "refused users KEY_MISMATCH",
      ["/* shard_key: 43 */ INSERT INTO users (user_id) VALUES (42), (43)"] = "refused users KEY_MISMATCH",
      ["/* shard_key: 1 */ /* shard_key: 2 */ SELECT 1"] = "refused KEY_MISMATCH",
      ["/* shard_key: 1 */ /* shard: s1 */ SELECT 1"] = "refused KEY_MISMATCH",
      ["/* shard_key: x */ SELECT * FROM users"] = "refused users INVALID",
      ["/* shard_key: 1 */ UPDATE users SET user_id = 3"] = "refused users INVALID",
      ["/* shard: s1 */ DELETE FROM countries"] = "reference countries",
    }, { 42 })
    local owner = manager:get_shard_for_write(42, { table = "users" }).shard_id
    for _, shard_id in ipairs({ "s1", "s2", "s3" }) do
      local made = plan(("/* shard: %s */ DELETE FROM users WHERE user_id = 42"):format(shard_id))
      assert.equal(shard_id == owner and "shard" or "refused", made.kind)
      assert.equal(shard_id ~= owner and "KEY_MISMATCH" or nil, made.code)
    end
  end)
end)

describe("extractors", function()
  it("by_param takes a parameter, unless the columns say another", function()
    local one = extractor.by_param(2)
    check({
      ["SELECT * FROM users WHERE x = $1 AND y = $2"] = "key users 12",
      ["SELECT * FROM users WHERE user_id = $2"] = "key users 12",
      ["SELECT * FROM users WHERE user_id = $1 AND y = $2"] = "refused users KEY_MISMATCH",
      ["SELECT * FROM users WHERE user_id = $1"] = "all",
      ["DELETE FROM users WHERE x = $1"] = "refused NO_KEY",
      ["SELECT * FROM countries WHERE x = $1 AND y = $2"] = "reference countries",
    }, { 11, 12 }, one)
    for _, n in ipairs({ 0, -1, 1.5, "1", 70000 }) do
      assert.has_error(function()
        extractor.by_param(n)
      end)
    end
  end)

  it("are tried in turn by first_of", function()
    local one = extractor.first_of({ extractor.by_comment(), "by_column", { "by_param", 1 } })
    check({
      ["/* shard_key: 5 */ SELECT * FROM users"] = "key users 5",
      ["SELECT * FROM users WHERE user_id = 6"] = "key users 6",
      ["DELETE FROM users WHERE x = $1"] = "key users 11",
      ["DELETE FROM users"] = "refused NO_KEY",
      ["UPDATE users SET user_id = 3 WHERE x = $1"] = "refused users INVALID",
    }, { 11 }, one)
    assert.is_truthy(reason("DELETE FROM users", nil, one):find("no parameter $1", 1, true))
  end)

  it("of one's own are asked with each call, and what they say is checked", function()
    local asked
    extractor.register({
      api = 1, kind = "extractor", name = "my_own",
      extract = function(statement, params, options)
        asked = statement
        if options == "raise" then
          error("no idea")
        elseif not params[1] then
          return nil, "nothing there"
        end
        return params[1]
      end,
    })
    local one = extractor.my_own("option")
    check({
      ["SELECT * FROM users WHERE x = $1"] = "key users 11",
      ["SELECT * FROM users WHERE user_id = 11"] = "key users 11",
      ["SELECT * FROM users WHERE user_id = 12"] = "refused users KEY_MISMATCH",
      ["DELETE FROM countries"] = "reference countries",
    }, { 11 }, one)
    assert.equal("my_own: nothing there", reason("DELETE FROM users", {}, one))
    plan("SELECT * FROM app.users, logs", { 1 }, one)
    table.sort(asked.tables)
    assert.same({ "SELECT", "app.users", "logs" }, { asked.kind, unpack(asked.tables) })
    assert.is_table(asked.ast.SelectStmt)
    local made = extraction.plan(extractor.my_own("raise"), manager, "SELECT * FROM users")
    local answer, err = extraction.ask(made, {})
    assert.is_nil(answer)
    assert.equal("PLUGIN_FAILED", err.code)
    assert.is_truthy(err.message:find("no idea", 1, true))
    check({ ["SELECT * FROM users WHERE user_id = 3"] = "key users 3" }, {}, extractor.first_of("my_own", "by_column"))
  end)

  it("are those of a new version once that is there", function()
    local function version(n)
      extractor.register({ api = 1, kind = "extractor", name = "versioned", extract = function()
        return n
      end })
    end
    version(1)
    local one = extractor.versioned()
    local sql = "SELECT * FROM users"
    assert.equal("key users 1", (found(sql, {}, one)))
    version(2)
    assert.equal("key users 2", (found(sql, {}, one)))
  end)

  it("are named, listed or given; anything else is refused with what was expected", function()
    assert.is_nil(extractor.find(false))
    assert.equal("by_column", extractor.find("by_column").name)
    assert.equal("by_param", extractor.find({ "by_param", 1 }).name)
    assert.equal("first_of", extractor.find({ extractor.by_column(), extractor.by_param(1) }).name)
    assert.same({ "by_column", "by_comment", "by_param", "first_of" }, (function()
      local shipped = {}
      for _, name in ipairs(extractor.names()) do
        shipped[#shipped + 1] = name:find("^by_") and name or name == "first_of" and name or nil
      end
      return shipped
    end)())
    for _, given in ipairs({ 5, {}, true, "by_colum", { "first_of" } }) do
      local ok, message = pcall(extractor.find, given)
      assert.is_false(ok)
      assert.is_string(message)
    end
    assert.is_truthy(tostring(select(2, pcall(extractor.find, "by_colum"))):find('did you mean "by_column"?', 1, true))
  end)

  it("answer for themselves too, by the contract that all keep", function()
    local contract = require("lunashard.plugin.contract")
    local registry = require("lunashard.plugin.registry")
    for _, name in ipairs({ "by_column", "by_comment", "by_param", "first_of" }) do
      assert(contract.check("extractor", registry.get("extractor", name).contract, nil, true))
    end
    local by_comment = registry.get("extractor", "by_comment").contract
    assert.equal(42, (by_comment.extract({ sql = "/* shard_key: 42 */ SELECT 1" })))
    local key, why = by_comment.extract({ sql = "SELECT 1" })
    assert.same({ nil, "no comment names a shard key" }, { key, why })
  end)
end)
