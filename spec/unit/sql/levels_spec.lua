local levels = require("lunashard.sql.levels")
local statement = require("lunashard.sql.statement")
local tables = require("lunashard.sql.tables")

local DECLARED = tables.new({
  users = { shard_key = "user_id", type = "int8" },
  orders = { shard_key = "user_id", type = "int8" },
  pages = { shard_key = "owner", type = "int8" },
  logs = { shard_key = "user_id", type = "text" },
  items = { shard_key = { "tenant", "region" }, type = { "int8", "text" } },
  countries = { reference = true },
  ["app.posts"] = { shard_key = "owner", type = "int8" },
  ["Größe"] = { shard_key = "Schlüssel", type = "int8" },
})

local function analyse(sql)
  local parsed = assert(statement.parse(sql))
  return assert(levels.analyse(sql, parsed.ast[1].stmt, DECLARED))
end

-- What is known of each instance: "u=5 o=$1", "u in(1,2)", "u any$1", "u>=1<=2"; "u" alone for nothing.
local function domain_text(domain)
  if domain.kind == "eq" then
    return "=" .. (domain.source.param and "$" .. domain.source.param or tostring(domain.source.value))
  elseif domain.kind == "list" then
    local values = {}
    for i, source in ipairs(domain.sources) do
      values[i] = source.param and "$" .. source.param or tostring(source.value)
    end
    return " in(" .. table.concat(values, ",") .. ")"
  elseif domain.kind == "array" then
    return " any$" .. domain.param
  end
  local function bound(source)
    return source.param and "$" .. source.param or tostring(source.value)
  end
  return (domain.low and (domain.low_exclusive and ">" or ">=") .. bound(domain.low) or "")
    .. (domain.high and (domain.high_exclusive and "<" or "<=") .. bound(domain.high) or "")
end

local function known(sql)
  local texts = {}
  for i, instance in ipairs(analyse(sql).instances) do
    local said = {}
    for c, domains in ipairs(instance.domains) do
      for _, domain in ipairs(domains) do
        said[#said + 1] = (#instance.domains > 1 and "." .. instance.key.columns[c] or "") .. domain_text(domain)
      end
    end
    texts[i] = instance.alias .. table.concat(said, "&")
  end
  table.sort(texts)
  return table.concat(texts, " ")
end

local function check(cases)
  for sql, expected in pairs(cases) do
    assert.equal(expected, known(sql), sql)
  end
end

describe("the keys of a statement's tables", function()
  it("come from equality with a constant or parameter, on either side, with or without an alias and schema", function()
    check({
      ["SELECT * FROM users WHERE user_id = 42"] = "users=42",
      ["SELECT * FROM users WHERE $1 = user_id AND x > 3"] = "users=$1",
      ["SELECT * FROM Users AS U WHERE u.USER_ID = $2"] = "u=$2",
      ["SELECT * FROM public.users WHERE public.users.user_id = 1"] = "users=1",
      ["SELECT * FROM app.posts WHERE posts.owner = 1"] = "posts=1",
      ["SELECT * FROM users WHERE user_id OPERATOR(pg_catalog.=) 1"] = "users=1",
      ["SELECT * FROM users WHERE user_id IS NOT DISTINCT FROM 1"] = "users=1",
      ['SELECT * FROM "Größe" g WHERE g."Schlüssel" = 1'] = "g=1",
      ["SELECT * FROM users WHERE (user_id, x) = ($1, 2)"] = "users=$1",
    })
  end)

  it("are exact where the parse tree has no value: zero, negative, and beyond 2^53", function()
    check({
      ["SELECT * FROM users WHERE user_id = 0"] = "users=0",
      ["SELECT * FROM users WHERE user_id = -42"] = "users=-42",
      ["SELECT * FROM users WHERE user_id = - 42"] = "users=-42",
      ["/* ä€😀 */ SELECT 'ä' FROM users WHERE user_id = -7"] = "users=-7",
      ["SELECT * FROM users WHERE user_id = -(5)"] = "users",
      ["SELECT * FROM users WHERE user_id = - /* 5 */ 6"] = "users",
      ["SELECT * FROM users WHERE user_id = - - 5"] = "users=5",
      ["SELECT * FROM users WHERE user_id = 9007199254740993"] = "users=9007199254740993",
      ["SELECT * FROM users WHERE user_id = -9223372036854775808"] = "users=-9223372036854775808",
    })
  end)

  it("do not come from expressions, other operators, or what may change the value", function()
    for _, condition in ipairs({
      "user_id + 0 = 42", "user_id = 40 + 2", "user_id = user_id", "user_id <> 42", "user_id = 4.2", "user_id = 42::float8",
      "user_id = 42::numeric(3)", "user_id::text = '42'", "user_id = 42 OR true", "NOT user_id = 42", "user_id = NULL",
      "user_id OPERATOR(public.=) 42", "user_id = ALL (ARRAY[42])", "user_id NOT IN (42)", "user_id <> ALL (ARRAY[42])",
      "(user_id = 42) IS NOT TRUE", "CASE WHEN user_id = 42 THEN true END", "coalesce(user_id, 1) = 42",
      "user_id IS DISTINCT FROM 42", "user_id BETWEEN SYMMETRIC 2 AND 1", "user_id = 'a' COLLATE \"C\"", "user_id = f(42)",
      "user_id NOT BETWEEN 1 AND 2", "user_id LIKE '42'", "user_id = (SELECT 42)", "user_id IN (42, f(1))",
      "(users).user_id = 42", "user_id = ANY ('{1,\"2\"}')", "user_id = B'101'", "other.user_id = 42",
    }) do
      if not condition:find("^other") then
        assert.equal("users", known("SELECT * FROM users WHERE " .. condition), condition)
      end
    end
  end)

  it("come in lists from IN, = ANY and OR; NULL in a list equals nothing", function()
    check({
      ["SELECT * FROM users WHERE user_id IN (1, $2, -3)"] = "users in(1,$2,-3)",
      ["SELECT * FROM users WHERE user_id IN (1, NULL, 2)"] = "users in(1,2)",
      ["SELECT * FROM users WHERE user_id IN (7)"] = "users=7",
      ["SELECT * FROM users WHERE user_id = ANY ($1)"] = "users any$1",
      ["SELECT * FROM users WHERE user_id = SOME ($1::bigint[])"] = "users any$1",
      ["SELECT * FROM users WHERE user_id = ANY (ARRAY[1, $1])"] = "users in(1,$1)",
      ["SELECT * FROM users WHERE user_id = ANY ('{1,2}'::int8[])"] = "users in(1,2)",
      ["SELECT * FROM users WHERE user_id = 1 OR user_id = $1"] = "users in(1,$1)",
      ["SELECT * FROM users WHERE (user_id = 1 AND x) OR (y AND user_id IN (1, 2))"] = "users in(1,2)",
      ["SELECT * FROM users WHERE user_id = 1 OR user_id = 1"] = "users=1",
      ["SELECT * FROM users WHERE user_id = 1 OR x = 1"] = "users",
      ["SELECT * FROM users WHERE (user_id = 1 OR user_id = 2) AND user_id = 2"] = "users in(1,2)&=2",
      ["SELECT * FROM users WHERE (user_id, x) IN ((1, 2), (3, 4))"] = "users in(1,3)",
      ["SELECT * FROM users WHERE user_id IN (SELECT 5)"] = "users=5",
      ["SELECT * FROM users WHERE user_id IN (VALUES (1), (2))"] = "users in(1,2)",
      ["SELECT * FROM users WHERE user_id IN (SELECT x FROM countries)"] = "users",
      ["SELECT * FROM users JOIN unnest($1::bigint[]) AS k(id) ON user_id = k.id"] = "users any$1",
      ["SELECT * FROM users JOIN (VALUES (1), ($1)) v(id) ON user_id = v.id"] = "users in(1,$1)",
    })
  end)

  it("come in ranges", function()
    check({
      ["SELECT * FROM users WHERE user_id BETWEEN 1 AND $1"] = "users>=1<=$1",
      ["SELECT * FROM users WHERE user_id > 1 AND 9 >= user_id"] = "users>1&<=9",
      ["SELECT * FROM users WHERE user_id < 0"] = "users<0",
    })
  end)

  it("are those of both tables of an inner join on them", function()
    check({
      ["SELECT * FROM users u JOIN orders o ON o.user_id = u.user_id WHERE u.user_id = 5"] = "o=5 u=5",
      ["SELECT * FROM users u, orders o WHERE o.user_id = u.user_id AND o.user_id = $1"] = "o=$1 u=$1",
      ["SELECT * FROM users JOIN orders USING (user_id) WHERE user_id = 5"] = "orders=5 users=5",
      ["SELECT * FROM users NATURAL JOIN orders WHERE user_id = 5"] = "orders=5 users=5",
      ["SELECT * FROM users u JOIN pages p ON p.owner = u.user_id AND p.owner = 3"] = "p=3 u=3",
      ["SELECT * FROM users a JOIN users b ON a.user_id = 1"] = "a=1 b",
      ["SELECT * FROM users a JOIN users b ON a.user_id = 1 AND b.user_id = 2"] = "a=1 b=2",
      ["SELECT * FROM (users u JOIN orders o USING (user_id)) AS j WHERE j.user_id = 1"] = "o=1 u=1",
      ["SELECT * FROM users u JOIN orders o USING (user_id) AS j WHERE j.user_id = 1"] = "o=1 u=1",
    })
  end)

  it("are not those of the side of an outer join that is kept, when ON names them", function()
    check({
      ["SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.user_id AND u.user_id = 5"] = "o=5 u",
      ["SELECT * FROM users u LEFT JOIN orders o ON o.user_id = 5"] = "o=5 u",
      ["SELECT * FROM users u LEFT JOIN orders o ON u.user_id = 5"] = "o u",
      ["SELECT * FROM users u RIGHT JOIN orders o ON o.user_id = 5 AND u.user_id = 5"] = "o u=5",
      ["SELECT * FROM users u FULL JOIN orders o ON o.user_id = 5 AND u.user_id = 5"] = "o u",
      ["SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.user_id WHERE u.user_id = 5"] = "o=5 u=5",
      ["SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.user_id WHERE o.user_id = 5"] = "o=5 u",
      ["SELECT * FROM users LEFT JOIN orders USING (user_id) WHERE user_id = 5"] = "orders=5 users=5",
      ["SELECT * FROM users FULL JOIN orders USING (user_id) WHERE user_id = 5"] = "orders=5 users=5",
      ["SELECT * FROM (countries LEFT JOIN orders ON orders.user_id = 5) JOIN users ON users.user_id = orders.user_id"]
        = "orders=5 users=5",
      ["SELECT * FROM (countries NATURAL LEFT JOIN orders) JOIN pages ON owner = user_id AND orders.user_id = 5"]
        = "orders=5 pages",
    })
  end)

  it("pass into sub-selects, and out of them", function()
    check({
      ["SELECT * FROM (SELECT user_id AS u FROM orders) x WHERE x.u = 4"] = "orders=4",
      ["SELECT * FROM (SELECT * FROM orders) x WHERE x.user_id = 4"] = "orders=4",
      ["SELECT * FROM (SELECT user_id FROM orders) x(a) WHERE a = 4"] = "orders=4",
      ["SELECT * FROM (SELECT user_id, count(*) FROM orders GROUP BY 1) x WHERE user_id = 4"] = "orders=4",
      ["SELECT * FROM (SELECT DISTINCT user_id FROM orders) x WHERE user_id = 4"] = "orders=4",
      ["SELECT * FROM (SELECT k FROM (SELECT user_id AS k FROM orders) y) x WHERE k = 4"] = "orders=4",
      ["SELECT * FROM (SELECT k FROM (SELECT user_id AS k FROM orders LIMIT 1) y) x WHERE k = 4"] = "orders",
      ["SELECT * FROM (SELECT user_id FROM users UNION SELECT owner FROM pages) x WHERE user_id = 4"]
        = "pages=4 users=4",
      ["SELECT * FROM users u WHERE user_id = 3 AND EXISTS (SELECT FROM orders o WHERE o.user_id = u.user_id)"]
        = "o=3 u=3",
      ["SELECT (SELECT count(*) FROM orders o WHERE o.user_id = u.user_id) FROM users u WHERE user_id = 3"] = "o=3 u=3",
      ["SELECT * FROM users u, LATERAL (SELECT * FROM orders o WHERE o.user_id = u.user_id LIMIT 3) l WHERE u.user_id = 3"]
        = "o=3 u=3",
      ["SELECT * FROM users WHERE user_id = 3 AND user_id IN (SELECT user_id FROM orders)"] = "orders=3 users=3",
      ["SELECT * FROM users WHERE user_id IN (SELECT user_id FROM orders WHERE user_id = 3)"] = "orders=3 users=3",
      ["SELECT * FROM users JOIN (SELECT $1::bigint AS id) k ON user_id = k.id"] = "users=$1",
    })
  end)

  it("do not pass into what counts, cuts or picks rows first", function()
    check({
      ["SELECT * FROM (SELECT user_id FROM orders LIMIT 3) x WHERE user_id = 4"] = "orders",
      ["SELECT * FROM (SELECT user_id FROM orders OFFSET 3) x WHERE user_id = 4"] = "orders",
      ["SELECT * FROM (SELECT DISTINCT ON (a) user_id FROM orders ORDER BY a) x WHERE user_id = 4"] = "orders",
      ["SELECT * FROM (SELECT user_id, rank() OVER (ORDER BY a) FROM orders) x WHERE user_id = 4"] = "orders",
      ["SELECT * FROM (SELECT user_id + 0 AS user_id FROM orders) x WHERE user_id = 4"] = "orders",
      ["SELECT * FROM (SELECT max(user_id) AS user_id FROM orders) x WHERE user_id = 4"] = "orders",
      ["SELECT * FROM (SELECT user_id, count(*) FROM orders GROUP BY ROLLUP (1)) x WHERE user_id = 4"] = "orders",
      ["SELECT * FROM (SELECT user_id FROM orders UNION ALL SELECT owner FROM pages LIMIT 1) x WHERE user_id = 4"]
        = "orders pages",
      ["SELECT * FROM users WHERE user_id = 3 AND user_id NOT IN (SELECT user_id FROM orders)"] = "orders users=3",
      ["SELECT * FROM users WHERE user_id = 3 AND (SELECT count(*) FROM orders) > 1"] = "orders users=3",
    })
  end)

  it("pass through WITH, where all that refer to it agree", function()
    check({
      ["WITH k AS (SELECT $1::bigint AS id) SELECT * FROM users, k WHERE user_id = k.id"] = "users=$1",
      ["WITH o AS (SELECT * FROM orders) SELECT * FROM o WHERE user_id = 3"] = "orders=3",
      ["WITH o AS (SELECT * FROM orders) SELECT * FROM o a, o b WHERE a.user_id = 3"] = "orders",
      ["WITH o AS (SELECT * FROM orders WHERE user_id = 3) SELECT * FROM o a, users u WHERE u.user_id = a.user_id"]
        = "orders=3 u=3",
      ["WITH users AS (SELECT 1 AS user_id) SELECT * FROM users WHERE user_id = 2"] = "",
      ["WITH users AS (SELECT * FROM users) SELECT * FROM users WHERE user_id = 2"] = "users=2",
      ["WITH d AS (DELETE FROM orders RETURNING user_id) SELECT * FROM d WHERE user_id = 3"] = "orders",
      ["WITH d AS (DELETE FROM orders WHERE user_id = 3 RETURNING user_id) INSERT INTO users (user_id) SELECT user_id FROM d"]
        = "orders=3 users=3",
    })
  end)

  it("pass through recursion when they are the same in every round", function()
    local tree = "WITH RECURSIVE t AS (SELECT id, user_id FROM orders WHERE user_id = $1 "
      .. "UNION ALL SELECT o.id, o.%s FROM orders o JOIN t ON o.parent = t.id AND o.user_id = t.user_id) SELECT * FROM t"
    check({ [tree:format("user_id")] = "o=$1 orders=$1", [tree:format("x")] = "o orders=$1" })
  end)

  it("are those of the right columns, whatever hides or renames them", function()
    check({
      ["SELECT * FROM users AS u(user_id, b) WHERE u.user_id = 3"] = "u",
      ["SELECT * FROM users u WHERE users.user_id = 3"] = "u",
      ["SELECT * FROM users u, orders o WHERE user_id = 3"] = "o u",
      ["SELECT * FROM users, logs WHERE users.user_id = 1"] = "logs users=1",
      ["SELECT * FROM (users u JOIN countries c ON true) AS j, orders u WHERE u.user_id = 3"] = "u u=3",
      ["SELECT * FROM users u WHERE EXISTS (SELECT FROM orders u WHERE u.user_id = 3)"] = "u u=3",
      ["SELECT * FROM users u WHERE EXISTS (SELECT FROM pages p WHERE user_id = p.owner) AND u.user_id = 3"] = "p u=3",
      ["SELECT * FROM (SELECT 3 AS user_id) x, users u WHERE x.user_id = 3"] = "u",
      ["SELECT user_id FROM pages WHERE user_id = 3"] = "pages",
    })
  end)

  it("do not come through columns whose type is not known: equal may be another word there", function()
    check({
      ["SELECT * FROM users u JOIN countries c ON c.x = u.user_id WHERE c.x = 5"] = "u", -- float8
      ["SELECT * FROM logs l JOIN countries c ON c.name = l.user_id WHERE c.name = 'a '"] = "l", -- char(3), citext
      ["SELECT * FROM users JOIN countries USING (user_id) WHERE user_id = 5"] = "users",
      ["SELECT * FROM users NATURAL JOIN countries WHERE user_id = 5"] = "users",
      ["SELECT * FROM users NATURAL JOIN countries, orders o WHERE user_id = 5 AND o.user_id = user_id"] = "o users",
      ["SELECT * FROM users NATURAL JOIN countries WHERE users.user_id = 5"] = "users=5",
      ["SELECT * FROM users u, (SELECT x + 0 AS k FROM countries) s WHERE s.k = 5 AND s.k = u.user_id"] = "u",
      ["SELECT * FROM (SELECT user_id AS k FROM users UNION SELECT x FROM countries) s WHERE k = 5"] = "users",
      ["INSERT INTO users (user_id) SELECT x FROM countries WHERE x = 5"] = "users",
      ["SELECT * FROM users JOIN unnest($1::float8[]) AS k(id) ON user_id = k.id"] = "users",
    })
  end)

  it("do not come from IS NOT DISTINCT FROM a parameter, for that may be NULL, which a row without a match has", function()
    check({
      ["SELECT * FROM countries c LEFT JOIN orders o ON o.c = c.id WHERE o.user_id IS NOT DISTINCT FROM $1"] = "o",
      ["SELECT * FROM countries c LEFT JOIN orders o ON o.c = c.id WHERE o.user_id IS NOT DISTINCT FROM 1"] = "o=1",
    })
  end)

  it("need every column of a composite key", function()
    check({
      ["SELECT * FROM items WHERE (tenant, region) = (1, $1)"] = "items.tenant=1&.region=$1",
      ["SELECT * FROM items WHERE tenant = 1"] = "items.tenant=1",
      ["SELECT * FROM items a JOIN items b USING (tenant, region) WHERE tenant = 1 AND region = 'eu'"]
        = "a.tenant=1&.region=eu b.tenant=1&.region=eu",
    })
  end)

  it("are those of what UPDATE, DELETE, INSERT and MERGE write and read", function()
    check({
      ["UPDATE users u SET x = 1 WHERE u.user_id = 1"] = "u=1",
      ["UPDATE users SET x = o.x FROM orders o WHERE o.user_id = users.user_id AND o.user_id = $1"] = "o=$1 users=$1",
      ["UPDATE users SET x = (SELECT max(x) FROM orders) WHERE user_id = 1"] = "orders users=1",
      ["DELETE FROM users USING orders o WHERE users.user_id = 1 AND o.user_id = users.user_id"] = "o=1 users=1",
      ["INSERT INTO users (x, user_id) VALUES (1, $2)"] = "users=$2",
      ["INSERT INTO users (user_id) VALUES ($1), ($1)"] = "users=$1",
      ["INSERT INTO users (user_id) SELECT user_id FROM orders WHERE user_id = $1"] = "orders=$1 users=$1",
      ["INSERT INTO users (user_id, x) SELECT 5, name FROM countries"] = "users=5",
      ["INSERT INTO users (user_id) SELECT 5 UNION ALL SELECT 5"] = "users=5",
      ["INSERT INTO users (user_id) SELECT 5 UNION ALL SELECT 6"] = "users",
      ["MERGE INTO users t USING (VALUES ($1::bigint, 2)) s(id, x) ON t.user_id = s.id "
        .. "WHEN NOT MATCHED THEN INSERT (user_id, x) VALUES (s.id, s.x)"] = "t=$1 t=$1",
      ["MERGE INTO users t USING orders s ON t.user_id = s.user_id AND t.user_id = 5 WHEN MATCHED THEN DELETE"] = "s t=5",
    })
  end)
end)

describe("whether rows of different keys meet", function()
  local function is_local(sql)
    local found = analyse(sql)
    return found.is_local, found.why_not
  end

  it("is no where tables are joined on their keys, or with reference tables", function()
    for _, sql in ipairs({
      "SELECT count(*) FROM users ORDER BY 1 LIMIT 3",
      "SELECT * FROM users JOIN orders USING (user_id) JOIN pages ON owner = orders.user_id",
      "SELECT * FROM users u, pages p, orders o WHERE u.user_id = o.user_id AND o.user_id = p.owner",
      "SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.user_id LEFT JOIN countries c ON c.id = u.c",
      "SELECT * FROM users FULL JOIN orders USING (user_id)",
      "SELECT * FROM users u WHERE EXISTS (SELECT FROM orders o WHERE o.user_id = u.user_id)",
      "SELECT * FROM users u WHERE NOT EXISTS (SELECT FROM orders o WHERE o.user_id = u.user_id)",
      "SELECT * FROM users WHERE user_id IN (SELECT user_id FROM orders)",
      "SELECT (SELECT max(x) FROM orders o WHERE o.user_id = u.user_id) FROM users u",
      "SELECT * FROM (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) x JOIN users USING (user_id)",
      "WITH o AS (SELECT * FROM orders) SELECT * FROM o a JOIN o b ON a.user_id = b.user_id",
      "SELECT * FROM users WHERE c = (SELECT id FROM countries WHERE name = 'x')",
      "SELECT * FROM items a JOIN items b USING (tenant, region)",
      "INSERT INTO users (user_id) SELECT user_id FROM orders",
      "DELETE FROM users USING orders WHERE users.user_id = orders.user_id",
    }) do
      local yes, why = is_local(sql)
      assert.is_true(yes, sql .. ": " .. tostring(why))
    end
  end)

  it("is yes, with the reason, where they may", function()
    for sql, reason in pairs({
      ["SELECT * FROM users, orders"] = "users and orders are not joined on their shard keys",
      ["SELECT * FROM users u JOIN orders o ON o.x = u.x"] = "u and o are not joined",
      ["SELECT * FROM users JOIN logs ON users.user_id = logs.user_id::bigint"] = "not joined",
      ["SELECT * FROM users u JOIN logs l ON u.user_id = l.user_id"] = "not joined", -- keys of two types
      ["SELECT * FROM items a JOIN items b USING (tenant)"] = "not joined",
      ["SELECT * FROM users u LEFT JOIN orders o ON o.x = u.x WHERE o.user_id = u.user_id"] = "not joined",
      ["SELECT * FROM countries c LEFT JOIN users u ON u.c = c.id"] = "an outer join keeps rows",
      ["SELECT * FROM users WHERE x = (SELECT max(x) FROM orders)"] = "sub-select",
      ["SELECT * FROM users WHERE x IN (SELECT x FROM orders)"] = "without the shard key",
      ["SELECT * FROM users WHERE user_id NOT IN (SELECT user_id FROM orders)"] = "without the shard key",
      ["SELECT * FROM countries c WHERE EXISTS (SELECT FROM users u WHERE u.c = c.id)"] = "without the shard key",
      ["SELECT * FROM (SELECT x FROM users LIMIT 3) x"] = "LIMIT in a sub-select",
      ["SELECT * FROM (SELECT x, count(*) FROM users GROUP BY x) x"] = "groups rows of users",
      ["SELECT * FROM (SELECT my_sum(x) FROM users) x"] = "an aggregate in a sub-select",
      ["SELECT * FROM (SELECT DISTINCT x FROM users) x"] = "DISTINCT in a sub-select",
      ["SELECT * FROM (SELECT DISTINCT o.user_id FROM users u LEFT JOIN orders o ON o.user_id = u.user_id) x"]
        = "DISTINCT in a sub-select", -- the NULLs of all shards are one
      ["SELECT * FROM (SELECT o.user_id FROM users u LEFT JOIN orders o ON o.user_id = u.user_id GROUP BY 1) x"]
        = "groups rows of",
      ["SELECT user_id FROM users UNION SELECT o.user_id FROM users u LEFT JOIN orders o ON o.user_id = u.user_id"]
        = "the arms of a UNION",
      ["SELECT * FROM (SELECT rank() OVER (ORDER BY x) FROM users) x"] = "a window function",
      ["WITH o AS (SELECT * FROM orders) SELECT * FROM o a, o b"] = "not joined",
      ["SELECT x FROM (SELECT id AS x FROM countries UNION ALL SELECT x FROM users) x"] = "one arm of a UNION",
      ["SELECT x FROM users UNION SELECT x FROM orders"] = "the arms of a UNION",
      ["INSERT INTO users (user_id) SELECT parent FROM orders"] = "need not belong to the shard",
      ["INSERT INTO countries (id) SELECT user_id FROM users"] = "on every shard",
    }) do
      local yes, why = is_local(sql)
      assert.is_false(yes, sql)
      assert.is_truthy(why:find(reason, 1, true), sql .. ": " .. why)
    end
  end)
end)

describe("a statement that no key could make right", function()
  it("is refused with the reason", function()
    for sql, refusal in pairs({
      ["UPDATE users SET user_id = 6 WHERE user_id = 5"] = "INVALID: user_id of users is the shard key",
      ["UPDATE users SET user_id = user_id + 1 WHERE user_id = 5"] = "INVALID: user_id of users is the shard key",
      ["UPDATE users SET (x, user_id) = (SELECT 1, 2) WHERE user_id = 5"] = "INVALID: user_id of users",
      ["INSERT INTO users (user_id) VALUES (1) ON CONFLICT (user_id) DO UPDATE SET user_id = 3"] = "INVALID: user_id of",
      ["MERGE INTO users t USING countries s ON t.x = s.x WHEN MATCHED THEN UPDATE SET user_id = s.id"]
        = "INVALID: user_id of users",
      ["INSERT INTO users VALUES (1)"] = "NO_KEY: INSERT into users names no columns",
      ["INSERT INTO users (x) VALUES (1)"] = "NO_KEY: INSERT into users gives no value for its shard key user_id",
      ["INSERT INTO users DEFAULT VALUES"] = "NO_KEY: INSERT into users gives no value",
      ["INSERT INTO users (user_id) VALUES (1), (DEFAULT)"] = "NO_KEY: the shard key user_id of row 2 is DEFAULT",
      ["INSERT INTO users (user_id) VALUES (1 + 1)"] = "NO_KEY: the shard key user_id is an expression",
      ["INSERT INTO users (user_id) VALUES (NULL)"] = "NULL_KEY: the shard key user_id of users is NULL",
      ["INSERT INTO users (user_id) OVERRIDING USER VALUE VALUES (1)"] = "NO_KEY: OVERRIDING USER VALUE",
      ["INSERT INTO users (user_id) SELECT o.user_id FROM countries LEFT JOIN orders o ON o.user_id = 5"]
        = "NO_KEY: INSERT ... SELECT into users",
      ["INSERT INTO users (user_id) SELECT max(user_id) FROM orders WHERE user_id = 5"] = "NO_KEY: INSERT ... SELECT",
      ["INSERT INTO users (user_id) SELECT * FROM orders WHERE user_id = 5"] = "NO_KEY: INSERT ... SELECT",
      ["MERGE INTO users t USING countries s ON t.x = s.x WHEN NOT MATCHED THEN INSERT (x) VALUES (s.x)"]
        = "NO_KEY: MERGE ... INSERT into users gives no value",
    }) do
      local found = analyse(sql).refusal
      assert.is_truthy(found, sql)
      local text = found.code .. ": " .. found.reason
      assert.is_truthy(text:find(refusal, 1, true), sql .. ": " .. text)
    end
  end)

  it("is not one that leaves the key what it is", function()
    for _, sql in ipairs({
      "UPDATE users SET user_id = user_id, x = 1 WHERE user_id = 5",
      "UPDATE users SET user_id = 5 WHERE user_id = 5",
      "UPDATE users SET user_id = $1 WHERE user_id = $1",
      "INSERT INTO users (user_id) VALUES (1) ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id",
      "UPDATE countries SET user_id = 5",
    }) do
      assert.is_nil(analyse(sql).refusal, sql)
    end
  end)
end)

describe("levels", function()
  it("are refused when there are too many of them, whatever they are made of", function()
    for _, sql in ipairs({
      "SELECT " .. ("(SELECT "):rep(1000) .. "1" .. (")"):rep(1000),
      "SELECT " .. ("1+"):rep(2000) .. "1 FROM users",
      "SELECT * FROM " .. ("(SELECT * FROM "):rep(800) .. "users" .. (") x"):rep(800),
      "SELECT * FROM users WHERE " .. ("NOT "):rep(1500) .. "user_id = 1",
    }) do
      local parsed = statement.parse(sql)
      if parsed then
        local found, err = levels.analyse(sql, parsed.ast[1].stmt, DECLARED)
        assert.is_true(found ~= nil or err.code == "INVALID")
      end
    end
  end)
end)

describe("the names of declared tables", function()
  it("are those of the statement, folded, with the schema or without", function()
    assert.equal("users", DECLARED:find(nil, "users").table)
    assert.equal("users", DECLARED:find("public", "users").table)
    assert.equal("app.posts", DECLARED:find("app", "posts").table)
    assert.is_nil(DECLARED:find(nil, "posts"))
    assert.is_nil(DECLARED:find(nil, "Users"))
    assert.equal(tables.SYSTEM, DECLARED:find("pg_catalog", "users"))
    assert.equal(tables.SYSTEM, DECLARED:find(nil, "pg_class"))
  end)

  it("may hold dots in quotes", function()
    local declared = tables.new({ ['"a.b"'] = { reference = true }, ['x."c""d"'] = { reference = true } })
    assert.is_true(declared:find(nil, "a.b").reference)
    assert.is_true(declared:find("x", 'c"d').reference)
    assert.is_nil(declared:find("a", "b"))
  end)

  it("are not asked for when none are declared: every table has the strategy's shard key", function()
    local undeclared = tables.new({}, "user_id", "int8")
    assert.same({ "user_id" }, undeclared:find(nil, "anything").columns)
    assert.equal("int8", undeclared:find(nil, "anything").type_id)
    assert.equal(tables.SYSTEM, undeclared:find(nil, "pg_class"))
    assert.is_nil(tables.new({}):find(nil, "anything"))
  end)
end)
