local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local merging = require("lunashard.merging")

local function manager_of(tables)
  return lunashard.manager({
    shards = {
      { shard_id = "s1", host = "localhost", database = "a" }, { shard_id = "s2", host = "localhost", database = "b" },
    },
    strategy = lunashard.strategy.hash(tables and {} or { shard_key = "user_id" }),
    tables = tables,
  })
end

local TABLES = {
  users = { shard_key = "user_id", type = "int8" },
  orders = { shard_key = "user_id", type = "int8" },
  notes = { shard_key = "author", type = "text" },
  parts = { shard_key = { "tenant", "part" }, type = { "int8", "int8" } },
  stock = { shard_key = { "tenant", "part" }, type = { "int8", "int8" } },
  countries = { reference = true },
}

describe("a plan to merge", function()
  local manager

  setup(function()
    manager = manager_of(TABLES)
  end)

  local function plan(sql)
    return assert(merging.plan(manager, sql))
  end

  local function refusal(sql)
    local made, err = merging.plan(manager, sql)
    assert.is_nil(made, sql)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"), sql)
    return err.message
  end

  local function expect_refused(list)
    for _, one in ipairs(list) do
      local message = refusal(one[1])
      assert.is_truthy(message:find(one[2], 1, true), one[1] .. "\n" .. message)
      assert.is_truthy(message:find("aggregation_func", 1, true), message)
    end
  end

  it("leaves rows that need no merging alone", function()
    for _, sql in ipairs({ "SELECT * FROM users", "SELECT id FROM users WHERE a = $1", "EXPLAIN SELECT count(*) FROM users",
      "SHOW work_mem", "SELECT id FROM users UNION ALL SELECT id FROM orders", "TABLE users" }) do
      local made = plan(sql)
      assert.is_true(made.trivial, sql)
    end
  end)

  it("asks one shard for what is the same on all", function()
    local made = plan("SELECT count(*) FROM countries")
    assert.equal("once", made.kind)
    assert.is_true(made.reference)
    made = plan("SELECT 1 + $1")
    assert.equal("once", made.kind)
    assert.is_false(made.reference)
  end)

  it("asks shards for the sum of LIMIT and OFFSET", function()
    assert.equal("SELECT id FROM users LIMIT 30", plan("SELECT id FROM users LIMIT 10 OFFSET 20").sql)
    assert.equal("SELECT id FROM users LIMIT 30", plan("SELECT id FROM users OFFSET 20 ROWS FETCH FIRST 10 ROWS ONLY").sql)
    assert.equal("SELECT id FROM users LIMIT CAST($1 AS bigint) + coalesce(CAST($2 AS bigint), 0)",
      plan("SELECT id FROM users LIMIT $1 OFFSET $2").sql)
    assert.equal("SELECT id FROM users", plan("SELECT id FROM users OFFSET 3").sql)
    assert.equal("SELECT id FROM users", plan("SELECT id FROM users LIMIT ALL").sql)
    assert.equal("SELECT id FROM users LIMIT 0", plan("SELECT id FROM users LIMIT 0").sql)
  end)

  it("numbers parameters anew when shards do not need all of them", function()
    local made = plan("SELECT id FROM users WHERE a = $3 OFFSET $1")
    assert.equal("SELECT id FROM users WHERE a = $1", made.sql)
    assert.same({ n = 1, "x" }, merging.params(made, { 5, lunashard.null, "x" }))
    local params, err = merging.params(made, { 5 })
    assert.is_nil(params)
    assert.equal("INVALID", err.code)
  end)

  it("hides the columns that only ORDER BY needs", function()
    local made = plan("SELECT name FROM users -- all\n ORDER BY lower(city) DESC, 1, name;")
    assert.equal("SELECT name, (lower(city)) AS lunashard_hidden_1 FROM users -- all\n ORDER BY lower(city) DESC, 1, name",
      made.sql)
    assert.same({ "lunashard_hidden_1" }, made.hidden)
    assert.same({ name = "lunashard_hidden_1", desc = true, nulls_first = true }, made.order[1])
    assert.equal(1, made.order[2].position)
    assert.equal(1, made.order[3].position)
  end)

  it("asks shards for parts of aggregates, and a mean by its sum and count", function()
    local made = plan("SELECT avg(price) FILTER (WHERE a > 0) AS m, count(*), count(*) + 1 AS n FROM users WHERE b")
    assert.equal("SELECT sum((price) * 1) FILTER (WHERE a > 0) AS c1, count(price) FILTER (WHERE a > 0) AS c2, "
      .. "count(*) AS c3 FROM users WHERE b", made.sql)
  end)

  it("leaves groups that contain the shard key to the shards, whatever is computed of them", function()
    for _, sql in ipairs({
      "SELECT user_id, array_agg(id), stddev(x) FROM users GROUP BY user_id HAVING count(*) > 3",
      "SELECT u.user_id, day, percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM users u GROUP BY 1, 2",
      "SELECT tenant, part, string_agg(x, ',') FROM parts GROUP BY part, tenant",
      "SELECT rank() OVER (PARTITION BY user_id ORDER BY x) FROM users",
      "SELECT rank() OVER w FROM users WINDOW w AS (PARTITION BY a, user_id)",
      "SELECT DISTINCT user_id, a FROM users",
      "SELECT user_id, (SELECT max(x) FROM orders o WHERE o.user_id = u.user_id) FROM users u",
    }) do
      local made = plan(sql)
      assert.equal("rows", made.kind, sql)
      assert.is_true(made.trivial, sql)
    end
  end)

  it("joins by shard key, or with what is the same everywhere", function()
    for _, sql in ipairs({
      "SELECT * FROM users u JOIN orders o ON o.user_id = u.user_id",
      "SELECT * FROM users JOIN orders USING (user_id)",
      "SELECT * FROM users u, orders o WHERE u.a = 1 AND u.user_id = o.user_id",
      "SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.user_id AND o.paid",
      "SELECT * FROM users u FULL JOIN orders o ON o.user_id = u.user_id",
      "SELECT * FROM users u LEFT JOIN orders o USING (user_id) LEFT JOIN users v ON v.user_id = o.user_id",
      "SELECT * FROM users u LEFT JOIN countries c ON c.code = u.country",
      "SELECT * FROM countries c RIGHT JOIN users u ON c.code = u.country",
      "SELECT * FROM parts p JOIN stock s ON p.tenant = s.tenant AND s.part = p.part",
      "SELECT * FROM users u WHERE EXISTS (SELECT FROM orders o WHERE o.user_id = u.user_id)",
      "SELECT * FROM users WHERE user_id IN (SELECT user_id FROM orders WHERE paid)",
      "WITH o AS (SELECT user_id AS id FROM orders) SELECT * FROM users JOIN o ON users.user_id = o.id",
      "SELECT * FROM (SELECT user_id, count(*) FROM orders GROUP BY user_id) o JOIN users u ON u.user_id = o.user_id",
      "SELECT * FROM users u, LATERAL (SELECT x FROM orders o WHERE o.user_id = u.user_id ORDER BY x LIMIT 1) y",
      "SELECT * FROM users, generate_series(1, 3) AS g (n)",
    }) do
      assert.is_true(plan(sql).trivial, sql)
    end
  end)

  it("is refused where rows that belong together may be on different shards", function()
    local APART = "not joined by their shard keys"
    expect_refused({
      { "SELECT * FROM users u JOIN orders o ON o.id = u.id", APART },
      { "SELECT * FROM users u, orders o WHERE u.user_id = o.user_id OR u.a", APART },
      { "SELECT * FROM users u NATURAL JOIN orders o", APART },
      { "SELECT * FROM users u JOIN notes n ON u.user_id = n.author", APART },
      { "SELECT * FROM parts p JOIN stock s ON p.tenant = s.tenant", APART },
      { "SELECT * FROM parts p JOIN stock s ON p.tenant = s.part AND p.part = s.tenant", APART },
      { "SELECT * FROM users a CROSS JOIN users b LEFT JOIN orders o ON o.user_id = a.user_id AND o.user_id = b.user_id",
        APART },
      { "SELECT * FROM users a CROSS JOIN users b LEFT JOIN orders o ON o.user_id = a.user_id AND a.user_id = b.user_id",
        APART },
      { "SELECT * FROM users u JOIN unknown n ON u.user_id = n.user_id", APART },
      { "SELECT * FROM users u LEFT JOIN orders o ON o.id = u.id", "an outer join" },
      { "SELECT * FROM countries c LEFT JOIN users u ON c.code = u.country", "an outer join" },
      { "SELECT * FROM users u FULL JOIN countries c ON c.code = u.country", "an outer join" },
      { "SELECT * FROM users WHERE user_id NOT IN (SELECT user_id FROM orders)", "a subquery" },
      { "SELECT * FROM users WHERE id IN (SELECT id FROM orders)", "a subquery" },
      { "SELECT * FROM users WHERE user_id IN (SELECT author FROM notes)", "a subquery" },
      { "SELECT * FROM users u WHERE EXISTS (SELECT FROM orders a LEFT JOIN orders o ON a.user_id = o.user_id "
        .. "AND o.user_id = u.user_id)", "a subquery" },
      { "SELECT a, (SELECT count(*) FROM orders) FROM users", "a subquery" },
      { "SELECT sum(a) FROM users HAVING sum(a) > (SELECT max(a) FROM orders)", "a subquery" },
      { "SELECT count(*) FROM users GROUP BY (SELECT max(a) FROM orders)", "a subquery" },
      { "VALUES ((SELECT count(*) FROM users))", "a subquery" },
      { "SELECT * FROM users JOIN (VALUES ((SELECT count(*) FROM orders))) v (n) ON v.n = users.a", "a subquery" },
      { "SELECT * FROM users, generate_series(1, (SELECT max(a) FROM orders)) g", "a subquery" },
      { "SELECT a FROM users ORDER BY (SELECT max(a) FROM orders)", "a subquery" },
      { "SELECT * FROM (SELECT a FROM users LIMIT 3) u", "LIMIT inside" },
      { "SELECT * FROM (SELECT DISTINCT a FROM users) u", "DISTINCT inside" },
      { "SELECT * FROM (SELECT a, count(*) FROM users GROUP BY a) u", "groups span shards" },
      { "WITH w AS (SELECT count(*) AS n FROM users) SELECT * FROM orders, w", "WITH w" },
      { "SELECT u.user_id FROM users u LEFT JOIN (SELECT o.user_id, count(*) AS n FROM users x LEFT JOIN orders o "
        .. "USING (user_id) GROUP BY o.user_id) y ON y.user_id = u.user_id", "groups span shards" },
      { "SELECT a FROM users EXCEPT SELECT a FROM orders", "EXCEPT" },
      { "SELECT a FROM users UNION ALL SELECT code FROM countries", "one part of a UNION" },
      { "(SELECT a FROM users LIMIT 1) UNION ALL SELECT a FROM orders", "LIMIT inside" },
      { "SELECT rank() OVER (ORDER BY a) FROM users", "a window function" },
      { "SELECT * FROM users, report(3)", "function report" },
    })
  end)

  it("is refused where parts do not make the whole, with what to do instead", function()
    expect_refused({
      { "SELECT stddev(a) FROM users", "count(x), sum(x) and sum(x * x)" },
      { "SELECT string_agg(a, ',') FROM users", "select the rows, in order" },
      { "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM users", "lunashard.aggregate.percentile" },
      { "SELECT array_agg(a ORDER BY b) FROM users", "array_agg" },
      { "SELECT count(DISTINCT (a, b)) FROM users", "count(DISTINCT" },
      { "SELECT a, count(*) FROM users GROUP BY ROLLUP (a)", "ROLLUP" },
      { "SELECT a, b, count(*) FROM users GROUP BY a", "column b is neither" },
      { "SELECT random() AS r, count(*) FROM users GROUP BY 1", "its value may differ" },
      { "SELECT current_date AS r, count(*) FROM users GROUP BY 1", "its value may differ" },
      { "SELECT nextval('s') FROM users", "nextval" },
      { "SELECT a FROM users ORDER BY a FETCH FIRST 2 ROWS WITH TIES", "WITH TIES" },
      { "SELECT a FROM users LIMIT 1 + 1", "LIMIT must be" },
      { "SELECT a FROM users ORDER BY a USING >", "USING" },
      { "SELECT DISTINCT now() FROM users", "its value may differ" },
      { "SELECT tableoid, count(*) FROM users GROUP BY 1", "its value may differ" },
      { "SELECT a FROM users UNION SELECT current_date FROM orders", "its value may differ" },
      { "(SELECT count(*) FROM users)", "parentheses" },
    })
  end)

  it("tells a statement that does not parse by PostgreSQL's own message", function()
    local made, err = merging.plan(manager, "SELECT FROM WHERE")
    assert.is_nil(made)
    assert.equal("SQL", err.code)
    assert.equal("42601", err.sqlstate)
    assert.equal(13, err.position)
  end)

  it("refuses numbers that are none", function()
    local bounds = require("lunashard.merging.bounds")
    local made = plan("SELECT id FROM users LIMIT $1 OFFSET $2")
    assert.same({ limit = 3, offset = 4 }, bounds.values(made.bounds, { 3, 4 }))
    assert.same({ offset = 0 }, bounds.values(made.bounds, { lunashard.null, lunashard.null }))
    for _, value in ipairs({ -1, 1.5, "x", true }) do
      local numbers, err = bounds.values(made.bounds, { value, 0 })
      assert.is_nil(numbers)
      assert.equal("INVALID", err.code)
    end
    assert.same({ limit = 7, offset = 0 }, bounds.values(plan("SELECT id FROM users LIMIT 7").bounds))
    assert.is_nil(bounds.values(plan("SELECT id FROM users LIMIT -1").bounds))
  end)

  it("asks what only the catalog knows, once", function()
    local own = manager_of(TABLES)
    local asked = 0
    local function ask(_, params)
      asked = asked + 1
      local rows = {}
      for _, name in ipairs(params[1]) do
        rows[#rows + 1] = { kind = "function", name = name, is_aggregate = name == "my_sum" }
      end
      for _, name in ipairs(params[3]) do
        rows[#rows + 1] = {
          kind = "relation", name = name, columns = { "user_id", "a" },
          definition = name == "summary" and "SELECT my_sum(a) AS a FROM users" or nil,
        }
      end
      return rows
    end
    for _ = 1, 2 do
      assert.is_true(assert(merging.plan(own, "SELECT twice(a) FROM users", nil, ask)).trivial)
    end
    assert.equal(1, asked)
    local made, err = merging.plan(own, "SELECT my_sum(a) FROM users", nil, ask)
    assert.is_nil(made)
    assert.is_truthy(err.message:find("my_sum", 1, true))
    made, err = merging.plan(own, "SELECT a FROM summary", nil, ask)
    assert.is_nil(made)
    assert.is_truthy(err.message:find("view summary", 1, true))
    made, err = merging.plan(own, "SELECT lower(a) AS b, count(*) FROM users, unnest(x) u GROUP BY b", nil, ask)
    assert.is_nil(made)
    assert.is_truthy(err.message:find("may be a column or the alias", 1, true))
    assert.equal("grouped", assert(merging.plan(own, "SELECT a % 2 AS b, count(*) FROM users GROUP BY b", nil, ask)).kind)
  end)

  it("takes every table for sharded when none is declared", function()
    local own = manager_of(nil)
    assert.is_true(assert(merging.plan(own, "SELECT * FROM a JOIN b USING (user_id)")).trivial)
    assert.is_nil((merging.plan(own, "SELECT * FROM a JOIN b USING (id)")))
  end)

  it("lets the server's own tables be joined with each other", function()
    assert.equal("grouped", plan("SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace").kind)
    refusal("SELECT count(*) FROM pg_class, users")
  end)
end)
