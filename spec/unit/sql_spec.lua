local errors = require("lunashard.errors")
local sql = require("lunashard.sql")

local function parse(text)
  local found, err = sql.parse(text)
  return found or error(("%s: %s"):format(text, tostring(err)), 2)
end

-- A list of names as one text, sorted: "a b.c".
local function names(list)
  local words = {}
  for i, entry in ipairs(list) do
    words[i] = entry.schema and entry.schema .. "." .. entry.name or entry.name
  end
  table.sort(words)
  return table.concat(words, " ")
end

describe("parsing a statement", function()
  it("tells its kind, whatever comments, case and parentheses stand in front", function()
    for text, kind in pairs({
      ["SELECT 1"] = "select", ["values (1)"] = "select", ["TABLE t"] = "select", ["((select 1))"] = "select",
      ["-- DELETE\nSELECT 1"] = "select", ["/* /* */ DELETE */ SELECT 1"] = "select",
      ["WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a"] = "insert",
      ["INSERT INTO t VALUES (1)"] = "insert", ["UPDATE t SET a = 1"] = "update", ["DELETE FROM t"] = "delete",
      ["MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE"] = "merge",
      ["CREATE TABLE t (a int)"] = "utility", ["BEGIN"] = "utility", ["; SELECT 1"] = "select",
      [""] = "empty", [" ; -- nothing\n;"] = "empty",
    }) do
      assert.equal(kind, parse(text).kind, text)
    end
  end)

  it("names a utility statement by its node", function()
    for text, node in pairs({
      ["CREATE TABLE t (a int)"] = "CreateStmt", ["SET a = 1"] = "VariableSetStmt", ["LISTEN a"] = "ListenStmt",
      ["COPY t FROM STDIN"] = "CopyStmt", ["EXPLAIN ANALYZE SELECT 1"] = "ExplainStmt", ["COMMIT"] = "TransactionStmt",
    }) do
      assert.equal(node, parse(text).utility, text)
    end
    assert.is_nil(parse("SELECT 1").utility)
  end)

  it("counts statements, not semicolons", function()
    assert.equal(1, parse("SELECT ';';").statements)
    assert.equal(2, parse("SELECT 1; DROP TABLE t").statements)
    assert.equal(1, parse("SELECT $a$ ; $b$ ; $a$").statements)
    assert.equal(0, parse("/* SELECT 1; */").statements)
  end)

  it("finds the tables of every part, each once, as PostgreSQL folds their names", function()
    for text, tables in pairs({
      ["SELECT * FROM Users u, app.\"Orders\", users"] = "app.Orders users",
      ["SELECT (SELECT 1 FROM a) FROM b JOIN c ON EXISTS (SELECT FROM d) WHERE x IN (TABLE e) ORDER BY (SELECT 1 FROM f)"]
        = "a b c d e f",
      ["SELECT * FROM a UNION (SELECT * FROM b EXCEPT TABLE c)"] = "a b c",
      ["INSERT INTO a SELECT * FROM b RETURNING (SELECT 1 FROM c)"] = "a b c",
      ["INSERT INTO a VALUES (1) ON CONFLICT (x) DO UPDATE SET x = (SELECT 1 FROM b)"] = "a b",
      ["UPDATE a SET x = 1 FROM b WHERE EXISTS (SELECT FROM c)"] = "a b c",
      ["DELETE FROM a USING b"] = "a b",
      ["SELECT * FROM a TABLESAMPLE system (1), LATERAL (SELECT * FROM b) x, ROWS FROM (f((SELECT 1 FROM c)))"] = "a b c",
      ["SELECT 'FROM x', \"FROM y\", $$FROM z$$ /* FROM w */"] = "",
    }) do
      assert.equal(tables, names(parse(text).tables), text)
    end
  end)

  it("takes no name of WITH for a table, in its scope and only there", function()
    for text, tables in pairs({
      ["WITH a AS (SELECT 1) SELECT * FROM a"] = "",
      ["WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b"] = "",
      ["WITH a AS (SELECT * FROM a) SELECT * FROM a"] = "a", -- inside, it is the table
      ["WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT * FROM a) SELECT * FROM a"] = "",
      ["WITH b AS (SELECT * FROM a), a AS (SELECT 1) SELECT * FROM b"] = "a",
      ["WITH RECURSIVE b AS (SELECT * FROM a), a AS (SELECT 1) SELECT * FROM b"] = "",
      ["WITH a AS (SELECT 1) SELECT * FROM s.a"] = "s.a",
      ["(WITH a AS (SELECT 1) SELECT * FROM a) UNION SELECT * FROM a"] = "a",
      ["SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a) x, a"] = "a",
      ["WITH a AS (SELECT 1) SELECT (SELECT (SELECT 1 FROM a))"] = "",
      ["WITH a AS (SELECT 1) DELETE FROM a"] = "a", -- what is written is always a table
    }) do
      assert.equal(tables, names(parse(text).tables), text)
    end
  end)

  it("tells what is written, also inside WITH", function()
    local found = parse("WITH gone AS (DELETE FROM app.t RETURNING *) INSERT INTO log SELECT * FROM gone")
    assert.equal("app.t log", names(found.targets))
    assert.is_true(found.modifies)
    found = parse("WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone, u")
    assert.equal("t", names(found.targets))
    assert.equal("select", found.kind)
    assert.is_true(found.modifies)
    assert.is_false(parse("SELECT * FROM t").modifies)
  end)

  it("finds the functions that are called, and none that are syntax", function()
    for text, functions in pairs({
      ["SELECT now(), s.f(1), count(*) FILTER (WHERE g()) OVER (ORDER BY h())"] = "count g h now s.f",
      ["SELECT * FROM generate_series(1, 2), ROWS FROM (f(1), g(2)) x"] = "f g generate_series",
      ["SELECT COALESCE(a, b), NULLIF(a, b), GREATEST(a, b), CURRENT_USER, CASE WHEN a THEN b END FROM t"] = "",
      ["SELECT 'f()', \"f()\" FROM t -- f()"] = "",
      ["SELECT \"MixedCase\"(1), UPPER('a')"] = "MixedCase upper",
      ["INSERT INTO t VALUES (f(1)) RETURNING g(2)"] = "f g",
      ["SELECT * FROM t LIMIT f() OFFSET g()"] = "f g",
      ["SELECT extract(year FROM a), trim(b) FROM t"] = "pg_catalog.btrim pg_catalog.extract",
    }) do
      assert.equal(functions, names(parse(text).functions), text)
    end
  end)

  it("finds the operators, those without a sign of their own too", function()
    for text, operators in pairs({
      ["SELECT a || b, - a, a OPERATOR(s.+) b FROM t"] = "- s.+ ||",
      ["SELECT a LIKE b, a NOT ILIKE b FROM t"] = "!~~* ~~",
      ["SELECT a BETWEEN 1 AND 2 FROM t"] = "< <= > >=",
      ["SELECT a NOT BETWEEN SYMMETRIC 1 AND 2 FROM t"] = "< <= > >=",
      ["SELECT a IN (1, 2) FROM t"] = "=", ["SELECT a NOT IN (1, 2) FROM t"] = "<>",
      ["SELECT a IN (SELECT 1) FROM t"] = "=", ["SELECT a < ALL (SELECT 1) FROM t"] = "<",
      ["SELECT a @> ANY ($1) FROM t"] = "@>",
      ["SELECT CASE a WHEN 1 THEN 2 END FROM t"] = "=", ["SELECT NULLIF(a, 1) FROM t"] = "=",
      ["SELECT * FROM a JOIN b USING (c)"] = "=", ["SELECT * FROM a NATURAL JOIN b"] = "=",
      ["SELECT a IS DISTINCT FROM 1 FROM t"] = "=",
      ["SELECT * FROM t ORDER BY a USING >"] = ">",
      ["SELECT '<', a AS \"=\" FROM t -- >"] = "",
    }) do
      assert.equal(operators, names(parse(text).operators), text)
    end
  end)

  it("notices that an attribute may be a function", function()
    assert.equal("f g", names(parse("SELECT t.f, (x).g FROM t, u x").attributes))
    assert.equal("", names(parse("SELECT a, t.* FROM t").attributes))
  end)

  it("notices locks, SELECT INTO, samples and cursors", function()
    local marks = {
      locking = {
        "SELECT * FROM t FOR UPDATE", "SELECT * FROM t FOR KEY SHARE SKIP LOCKED", "SELECT * FROM (TABLE t FOR SHARE) x",
        "WITH a AS (SELECT * FROM t FOR UPDATE) TABLE a",
      },
      into = { "SELECT * INTO a FROM t", "SELECT 1 INTO TEMP a" },
      sample = { "SELECT * FROM t TABLESAMPLE bernoulli (1)" },
      cursor = { "DELETE FROM t WHERE CURRENT OF c" },
    }
    for mark, texts in pairs(marks) do
      for _, text in ipairs(texts) do
        for other in pairs(marks) do
          assert.equal(other == mark, parse(text)[other], text)
        end
      end
    end
  end)

  it("takes what FOR UPDATE OF names for an alias", function()
    assert.equal("t", names(parse("SELECT * FROM t AS u FOR UPDATE OF u").tables))
  end)

  it("knows the highest parameter", function()
    assert.equal(0, parse("SELECT '$9', \"$8\", $$ $7 $$ -- $6").parameters)
    assert.equal(12, parse("SELECT $3, $12, (SELECT $1)").parameters)
  end)

  it("finds types that have a schema", function()
    assert.equal("pg_catalog.int4 pg_temp.a", names(parse("SELECT 'x'::pg_temp.a, 1::int, 2::b").types))
  end)

  it("gives the tree when it is asked for", function()
    local found = parse("SELECT a FROM t; TABLE u")
    assert.equal("t", found.ast[1].stmt.SelectStmt.fromClause[1].RangeVar.relname)
    assert.equal("u", found.ast[2].stmt.SelectStmt.fromClause[1].RangeVar.relname)
    assert.equal(found.ast, found.ast)
  end)

  it("returns the same analysis for the same text, and keeps no long ones", function()
    assert.equal(sql.parse("SELECT 1 AS same"), sql.parse("SELECT 1 AS same"))
    local long = "SELECT '" .. ("x"):rep(10000) .. "'"
    assert.not_equal(sql.parse(long), sql.parse(long))
  end)

  it("keeps texts that are in use, however many others come by", function()
    local kept = sql.parse("SELECT 1 AS kept")
    for i = 1, 5000 do
      sql.parse("SELECT 1 AS other" .. i)
      if i % 500 == 0 then
        assert.equal(kept, sql.parse("SELECT 1 AS kept"))
      end
    end
  end)

  it("raises when it is given no text", function()
    assert.has_error(function()
      sql.parse(nil)
    end, "sql.parse: a statement must be a string, got nil")
  end)
end)

describe("a text that is no statement", function()
  local function failure(code, text)
    local found, err = sql.parse(text)
    assert.is_nil(found)
    assert.is_true(errors.is(err, code), tostring(err))
    return err
  end

  it("is an error with SQLSTATE and position, in characters", function()
    local err = failure("SQL", "SELECT 'öö', x y z w")
    assert.equal("42601", err.sqlstate)
    assert.equal(18, err.position)
    assert.matches('at or near "z"', err.message, 1, true)
    failure("SQL", "SELECT '")
    failure("SQL", "SELECT $a$ never closed")
    failure("SQL", "/* never closed")
    failure("SQL", "DO IT")
  end)

  it("is refused when the parser would see only a part of it", function()
    assert.matches("NUL", failure("INVALID", "SELECT 1\0; DROP TABLE t").message, 1, true)
    failure("INVALID", "\0")
  end)

  it("is refused when it is too long to be parsed safely", function()
    failure("INVALID", "SELECT 1" .. ("+1"):rep(1000000))
    failure("INVALID", ("("):rep(100000) .. ")")
    assert.truthy(sql.parse("SELECT '" .. ("x"):rep(32000) .. "'"))
  end)

  it("never crashes by nesting", function()
    local n = 8000
    for _, parts in ipairs({
      { "SELECT ", "(", "1", ")" }, { "SELECT 1", "+1", "", "" }, { "SELECT ", "- ", "1", "" },
      { "SELECT ", "f(", "1", ")" }, { "SELECT 1", "::a", "", "" }, { "SELECT ARRAY", "[", "1", "]" },
      { "SELECT 1 FROM a", ",a", "", "" }, { "TABLE a", " UNION TABLE a", "", "" }, { "", "(", "TABLE a", ")" },
      { "SELECT ", "NOT ", "true", "" }, { "SELECT ", "/*", "1", "*/" }, { "TABLE a", " JOIN a ON 1", "", "" },
      { "SELECT a", "[1]", "", "" }, { "SELECT 1", " AND 1", "", "" }, { "SELECT ", "ROW(", "1", ")" },
    }) do
      for _, count in ipairs({ 100, 1000, 2000, 4000, n }) do
        local text = parts[1] .. parts[2]:rep(count) .. parts[3] .. parts[4]:rep(count)
        local found, err = sql.parse(text)
        assert.is_true(found ~= nil or errors.is(err, "SQL") or errors.is(err, "INVALID"))
      end
    end
  end)

  it("may hold any bytes", function()
    assert.equal("\255t", parse("SELECT '\254' FROM \"\255t\"").tables[1].name)
    assert.equal("a\1\"\\/\n", parse("SELECT * FROM \"a\1\"\"\\/\n\"").tables[1].name)
    failure("SQL", "SELECT E'\\xff'")
  end)

  -- Bytes are dropped, doubled, swapped and replaced, and pieces of other statements put in.
  it("never crashes, whatever was done to it", function()
    local seed = os.time()
    math.randomseed(seed)
    local texts = {
      "WITH RECURSIVE x AS (SELECT a.*, f(1) OVER w FROM t a UNION ALL TABLE x) SELECT * FROM x WHERE b IN (1, $2) FOR UPDATE",
      "INSERT INTO s.t (a, b[1], c.d) VALUES (DEFAULT, -1) ON CONFLICT (a) DO UPDATE SET a = excluded.a RETURNING *",
      "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED AND s.b THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)",
      "SELECT CASE a WHEN 1 THEN 'x' END, b::numeric(10, 2), c[1:2] COLLATE \"C\", $$d$$, E'\\n', U&'\\0061', B'1', 1e9 FROM t",
      "CREATE TABLE t (a int DEFAULT f(), CHECK (a > 0), FOREIGN KEY (a) REFERENCES u ON DELETE CASCADE) PARTITION BY HASH (a)",
      "CREATE FUNCTION f(a int, OUT b text) LANGUAGE plpgsql AS $f$ BEGIN END $f$; EXPLAIN (ANALYZE) SELECT /* x */ 1 -- y\n",
      "UPDATE t SET (a, b) = (SELECT 1, 2) FROM u NATURAL JOIN v TABLESAMPLE system (1) WHERE (t).a BETWEEN 1 AND 2",
    }
    local function random_text()
      return texts[math.random(#texts)]
    end
    for i = 1, 4000 do
      local text = random_text()
      for _ = 1, math.random(4) do
        local at, len, kind = math.random(#text), math.random(8), math.random(5)
        local middle = text:sub(at, at + len)
        if kind == 1 then
          middle = ""
        elseif kind == 2 then
          middle = middle:rep(math.random(3))
        elseif kind == 3 then
          middle = string.char(math.random(0, 255))
        elseif kind == 4 then
          local other = random_text()
          local from = math.random(#other)
          middle = other:sub(from, from + math.random(60))
        else
          middle = middle:reverse()
        end
        text = text:sub(1, at - 1) .. middle .. text:sub(at + len + 1)
        if text == "" then
          text = " "
        end
      end
      local found, err = sql.parse(text)
      assert(found and found.ast or errors.is(err), ("seed %d, text %d: %q"):format(seed, i, text))
    end
  end)
end)
