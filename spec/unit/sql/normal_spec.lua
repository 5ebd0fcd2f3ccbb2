local normal = require("lunashard.sql.normal")

describe("a statement without its values", function()
  it("has no constant, no comment and no line break", function()
    assert.equal("SELECT * FROM users WHERE id = ? AND name=? LIMIT ?",
      normal.of("SELECT *\n FROM users /* shard_key: 42 */ WHERE id = 42 AND name='bob' -- bob\n LIMIT 5"))
  end)

  it("is the same whether values are parameters or written down, and however many a list has", function()
    local one = normal.of("SELECT a FROM t WHERE id IN ($1, $2)")
    assert.equal("SELECT a FROM t WHERE id IN (?, ...)", one)
    assert.equal(one, normal.of("SELECT a FROM t WHERE id IN (1,2,  3, 4)"))
    local rows = normal.of("INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')")
    assert.equal("INSERT INTO t (a, b) VALUES (?, ...), ...", rows)
    assert.equal(rows, normal.of("INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4), ($5, $6)"))
    assert.equal("INSERT INTO t VALUES (?), ...", normal.of("INSERT INTO t VALUES (1),(2),(3)"))
    assert.equal("SELECT f(?), ?, g(?)", normal.of("SELECT f(1), 2, g(3)"))
  end)

  it("holds nothing secret, whatever kind of statement it is", function()
    for _, sql in ipairs({
      "CREATE ROLE joe PASSWORD 'geheim'", "ALTER USER joe WITH ENCRYPTED PASSWORD 'geheim' VALID UNTIL '2030-01-01'",
      "EXECUTE plan(5, 'geheim')", "NOTIFY channel, 'geheim'", "ALTER SYSTEM SET primary_conninfo = 'password=geheim'",
      "COMMENT ON TABLE t IS 'geheim'", "CALL p($$geheim$$)", "DO $x$ begin perform 'geheim'; end $x$",
      "CREATE USER MAPPING FOR x SERVER s OPTIONS (user 'bob', password 'geheim')", "CREATE TABLE x AS SELECT E'geheim\\''",
      "CREATE SUBSCRIPTION s CONNECTION 'password=geheim' PUBLICATION p", "PREPARE p AS SELECT U&'geheim'",
      "ALTER TABLE t ADD c text DEFAULT 'geheim'", "SELECT 1; SELECT 'geheim'", "SELECT /* geheim /* geheim */ */ 1 -- geheim",
      "SELEC 'geheim'", "SELECT 'geheim", "'geheim'", "geheim", "SELECT 'geheim'" .. (" "):rep(9000),
    }) do
      assert.is_nil(normal.of(sql):lower():find("geheim", 1, true), sql .. " -> " .. normal.of(sql))
    end
  end)

  it("says how long what does not parse was, and how it began", function()
    assert.equal("SELECT ... (10 bytes, not parsed)", normal.of("SELECT 'a "))
    assert.equal("... (1 bytes, not parsed)", normal.of("\0"))
  end)

  it("takes any text", function()
    local seed = os.time()
    math.randomseed(seed)
    local pieces = { "SELECT", "'", '"', "$1", "$$", "(", ")", ",", "5", "'a'", "E'\\", "/*", "*/", "--", "\n", ";", "\255",
      "INSERT INTO t VALUES (1), (2)", "WITH a AS (SELECT 1)", "$2147483647", "\0", "IN (1, 2)", " " }
    for _ = 1, 2000 do
      local text = {}
      for i = 1, math.random(0, 12) do
        text[i] = pieces[math.random(#pieces)]
      end
      local ok, found = pcall(normal.of, table.concat(text))
      assert(ok and type(found) == "string", ("seed %d: %q: %s"):format(seed, table.concat(text), tostring(found)))
    end
  end)
end)
