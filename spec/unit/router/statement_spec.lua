local statement = require("lunashard.router.statement")

local function kind(sql)
  return (statement.classify(sql))
end

describe("classifying a statement", function()
  it("calls queries reads, whatever the case of their words", function()
    for _, sql in ipairs({
      "SELECT 1", "select 1", "VALUES (1)", "TABLE users", "show work_mem", "(SELECT 1) UNION (SELECT 2)",
    }) do
      assert.equal("read", kind(sql), sql)
    end
  end)

  it("calls everything that changes something a write", function()
    for _, sql in ipairs({
      "INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", "DELETE FROM t",
      "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
      "CREATE TABLE t (a int)", "TRUNCATE t", "CALL p()", "DO $$ BEGIN END $$", "VACUUM", "SET work_mem = '1MB'",
    }) do
      assert.equal("write", kind(sql), sql)
    end
  end)

  it("finds the first word behind comments, nested ones too", function()
    assert.equal("write", kind("-- SELECT\nINSERT INTO t VALUES (1)"))
    assert.equal("write", kind("/* SELECT /* nested */ still a comment */ DELETE FROM t"))
    assert.equal("read", kind("/***/ SELECT 1"))
    assert.equal("empty", kind("/* never closed SELECT 1"))
  end)

  it("sees through empty statements in front, as the server does", function()
    assert.equal("control", kind(" ; ;BEGIN"))
    assert.equal("control", kind("/* x */;-- y\n COMMIT"))
  end)

  it("knows every word of transaction control", function()
    for _, sql in ipairs({
      "BEGIN", "START TRANSACTION", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a",
      "PREPARE TRANSACTION 'x'",
    }) do
      assert.equal("control", kind(sql), sql)
    end
  end)

  it("does not take a prepared transaction's end, or a prepared statement, for control of the session's own", function()
    assert.equal("write", kind("COMMIT PREPARED 'x'"))
    assert.equal("write", kind("ROLLBACK PREPARED 'x'"))
    assert.equal("write", kind("PREPARE p AS SELECT 1"))
  end)

  it("finds data-modifying parts of WITH", function()
    assert.equal("write", kind("WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone"))
    assert.equal("write", kind("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a"))
    assert.equal("read", kind("WITH a AS (SELECT * FROM t FOR UPDATE) SELECT * FROM a"))
  end)

  it("finds SELECT INTO, but not an INTO inside literals, names or parentheses", function()
    assert.equal("write", kind("SELECT * INTO copy FROM t"))
    for _, sql in ipairs({
      "SELECT ' INTO ' FROM t", 'SELECT 1 AS "INTO" FROM t', "SELECT $$ INTO $$", "SELECT $tag$ $$ INTO $tag$",
      "SELECT E'\\' INTO x'", "SELECT 'it''s INTO x'",
    }) do
      assert.equal("read", kind(sql), sql)
    end
  end)

  it("is not misled by parameters, which begin like dollar quotes", function()
    assert.equal("write", kind("SELECT $1, $2 INTO t2 FROM t"))
    assert.equal("read", kind("SELECT * FROM t WHERE a = $1 AND b = $2"))
  end)

  it("takes EXPLAIN for a read unless it runs a write", function()
    assert.equal("read", kind("EXPLAIN DELETE FROM t"))
    assert.equal("read", kind("EXPLAIN ANALYZE SELECT 1"))
    assert.equal("write", kind("EXPLAIN ANALYZE DELETE FROM t"))
    assert.equal("write", kind("EXPLAIN (VERBOSE, ANALYZE) INSERT INTO t VALUES (1)"))
  end)

  it("tells COPY with the client from COPY with the server's files", function()
    assert.equal("copy", kind("COPY t FROM STDIN"))
    assert.equal("copy", kind("COPY (SELECT 1) TO STDOUT"))
    assert.equal("write", kind("COPY t FROM '/tmp/stdin'"))
  end)

  it("calls a text without a statement empty", function()
    for _, sql in ipairs({ "", "  \n", "-- only this", ";;" }) do
      assert.equal("empty", kind(sql), sql)
    end
  end)

  it("gives the same answer for a text that it has seen before", function()
    local first, word = statement.classify("SELECT 'again'")
    local second, same = statement.classify("SELECT 'again'")
    assert.equal(first, second)
    assert.equal("SELECT", word)
    assert.equal(word, same)
  end)
end)

describe("appending a LIMIT", function()
  it("puts it after the last word and before a comment or semicolon", function()
    assert.equal("SELECT a FROM t ORDER BY a LIMIT 5", statement.with_limit("SELECT a FROM t ORDER BY a ; -- end", 5))
  end)

  it("leaves alone what has a limit, an offset, a fetch or a lock of its own", function()
    for _, tail in ipairs({ "LIMIT 2", "OFFSET 2", "FETCH FIRST ROW ONLY", "FOR UPDATE" }) do
      local sql = "SELECT a FROM t " .. tail
      assert.equal(sql, statement.with_limit(sql, 5))
    end
  end)

  it("is not kept from it by a limit in a subquery", function()
    local sql = "SELECT * FROM (SELECT a FROM t LIMIT 2) AS s"
    assert.equal(sql .. " LIMIT 5", statement.with_limit(sql, 5))
  end)

  it("leaves alone what is no query, or more than one", function()
    for _, sql in ipairs({ "DELETE FROM t", "SHOW work_mem", "SELECT 1; SELECT 2" }) do
      assert.equal(sql, statement.with_limit(sql, 5))
    end
  end)
end)

describe("quoting names", function()
  it("doubles the quotes of an identifier", function()
    assert.equal('"user"', statement.quote_ident("user"))
    assert.equal('"a""; DROP TABLE t; --"', statement.quote_ident('a"; DROP TABLE t; --'))
  end)

  it("takes a dot in a table's name for the schema's end", function()
    assert.equal('"app"."Users"', statement.quote_table("app.Users"))
    assert.equal('"users"', statement.quote_table("users"))
  end)

  it("keeps a dot inside double quotes", function()
    assert.equal('"a.b"."c"', statement.quote_table('"a.b".c'))
  end)

  it("refuses names that are no names", function()
    for _, name in ipairs({ "", ".", "a.", ".a", "a..b", 'a"b', '"open', '""' }) do
      assert.is_nil(statement.quote_table(name), name)
    end
  end)
end)
