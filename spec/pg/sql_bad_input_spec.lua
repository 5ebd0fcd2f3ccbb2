local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")

local MIB = 2 ^ 20

-- What is said of a text that cannot be routed: code, and of PostgreSQL's own parser sqlstate, position and a part of its
-- message.
local REFUSED = {
  { "nothing after a comparison", "SELECT * FROM bad_input WHERE id = ", "SQL", "syntax error at end of input", 36 },
  { "a misspelled word", "SELEC 1", "SQL", 'syntax error at or near "SELEC"', 1 },
  { "a misspelled word behind letters of several bytes", "SELECT '漢字' FORM bad_input WHERE id = 1", "SQL",
    'syntax error at or near "bad_input"', 18 },
  { "a misspelled write", "UPDAT bad_input SET note = 1", "SQL", 'syntax error at or near "UPDAT"', 1 },
  { "a comment without an end", "SELECT * FROM bad_input WHERE id = 1 /* x", "SQL", "unterminated /* comment", 38 },
  { "a text without an end", "SELECT * FROM bad_input WHERE id = 1 AND note = 'x", "SQL", "unterminated quoted string", 49 },
  { "a dollar quote without an end", "SELECT $a$ x $b$", "SQL", "unterminated dollar-quoted string", 8 },
  { "several statements", "SELECT 1; SELECT 2", "INVALID", "2 statements" },
  { "several writes, one of another key", "DELETE FROM bad_input WHERE id = 1; DELETE FROM bad_input WHERE id = 2",
    "INVALID", "2 statements" },
  { "no text", "", "INVALID", "empty" },
  { "blanks", " \n\t ", "INVALID", "empty" },
  { "semicolons alone", " ; ;", "INVALID", "empty" },
  { "a comment alone", "-- nothing", "INVALID", "empty" },
  { "a comment with a shard that there is not", "SELECT 1 /* shard: shard9 */", "NO_SHARD", "shard9" },
  { "a comment with a key that is none", "SELECT 1 /* shard_key: 99999999999999999999999999 */", "INVALID", "int8" },
  { "two comments with two keys", "SELECT 1 /* shard_key: 42 */ /* shard_key: 43 */", "KEY_MISMATCH", "42" },
  { "a write whose comment and columns differ", "DELETE FROM bad_input WHERE id = 1 /* shard_key: 2 */",
    "KEY_MISMATCH", "2" },
  { "a write in a nested comment's name", "DELETE FROM bad_input /* /* shard_key: 42 */ */", "NO_KEY", "key" },
  { "a write with a key in a literal alone", "DELETE FROM bad_input WHERE note = '/* shard_key: 42 */'", "NO_KEY", "key" },
  { "a write of 1 MiB", "INSERT INTO bad_input (id, note) VALUES (7, '" .. ("x"):rep(MIB) .. "')", "NO_KEY", "32 KiB" },
  { "a name of 1 MiB", 'DELETE FROM "' .. ("u"):rep(MIB) .. '" WHERE id = 1', "NO_KEY", "32 KiB" },
  { "100,000 parentheses", "DELETE FROM bad_input WHERE " .. ("("):rep(1e5) .. "true" .. (")"):rep(1e5), "NO_KEY", "32 KiB" },
  { "15,000 operators", "UPDATE bad_input SET id = " .. ("1+"):rep(15000) .. "1", "NO_KEY", "nested" },
  { "7,000 negations", "DELETE FROM bad_input WHERE " .. ("NOT "):rep(7000) .. "true", "NO_KEY", "nested" },
  { "3,500 subselects", ("SELECT ("):rep(3500) .. "1" .. (")"):rep(3500), "SQL", "memory exhausted" },
  { "500 WITHs in each other", "WITH " .. ("a AS (WITH "):rep(500) .. "b AS (SELECT 1) SELECT 1" .. (") SELECT 1"):rep(500),
    "NO_KEY", "names no table" },
}

-- Texts that look odd, and name the key 7 all the same.
local ROUTED = {
  ["a semicolon at the end"] = "SELECT * FROM bad_input WHERE id = 7;",
  ["quoted names"] = 'SELECT "id" FROM "bad_input" WHERE "id" = 7',
  ["names in capitals, which PostgreSQL folds"] = "SELECT * FROM BAD_INPUT WHERE ID = 7",
  ["names written by code points"] = [[SELECT * FROM U&"bad\005Finput" WHERE U&"\0069d" = 7]],
  ["letters of several bytes"] = "SELECT '漢字' AS \"列\" FROM bad_input WHERE id = 7 AND note <> 'é漢'",
  ["a comment's text in a literal"] = "SELECT '/* shard_key: 8 */' FROM bad_input WHERE id = 7",
  ["a comment's text in a quoted name"] = 'SELECT 1 AS "/* shard_key: 8 */" FROM bad_input WHERE id = 7',
  ["a comment's text in a dollar quote"] = "SELECT $a$/* shard_key: 8 */$a$ FROM bad_input WHERE id = 7",
  ["2,000 equal conditions"] = "SELECT * FROM bad_input WHERE " .. ("id = 7 AND "):rep(2000) .. "true",
}

describe("a statement without a routing key that has", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect({ strategy = { "hash", shard_key = "id" },
      tables = { bad_input = { shard_key = "id", type = "int8" } } })
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS bad_input; CREATE TABLE bad_input (id int8, note text)"))
    for id = 1, 20 do
      assert(router:execute("INSERT INTO bad_input (id, note) VALUES ($1, 'a note')", { id }))
    end
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE bad_input"))
    cluster.release()
  end)

  for _, case in ipairs(REFUSED) do
    local name, sql, code, said, position = unpack(case)
    it(name .. " is refused with " .. code .. ", says why, and changes nothing", function()
      local result, err = router:execute(sql)
      assert.is_nil(result)
      assert.is_true(errors.is(err, code), tostring(err))
      assert.truthy(err.message:find(said, 1, true), err.message)
      assert.is_true(#err.message < 600, err.message)
      assert.equal(position or code == "SQL" and err.position or nil, err.position)
      assert.equal(code == "SQL" and "42601" or nil, err.sqlstate)
      local count = assert(router:scatter_gather("SELECT count(*) AS n FROM bad_input", nil,
        { aggregation_func = lunashard.aggregate.sum("n") }))
      assert.equal(20, count.rows[1].n)
    end)
  end

  for name, sql in pairs(ROUTED) do
    it(name .. " goes to the shard of its key", function()
      local result = assert(router:execute(sql))
      assert.equal(manager:get_shard_for_write(7).shard_id, result.shard_id)
      assert.equal(1, result.row_count)
    end)
  end

  it("a NUL byte is a mistake of the program", function()
    assert.error_matches(function()
      router:execute("SELECT * FROM bad_input WHERE id = 1\0 OR true")
    end, "NUL")
  end)

  it("bytes that are no UTF-8 is refused by the server", function()
    local result, err = router:execute("SELECT * FROM bad_input WHERE id = 1 AND note = '\255\254'")
    assert.is_nil(result)
    assert.equal("22021", err.sqlstate)
  end)

  it("1 MiB and a routing key beside it is run", function()
    local sql = "INSERT INTO bad_input (id, note) VALUES (7, '" .. ("x"):rep(MIB) .. "')"
    assert.equal(1, assert(router:execute(sql, nil, { routing_key = 7 })).row_count)
    assert.equal(1, assert(router:execute("DELETE FROM bad_input WHERE id = 7 AND length(note) > 1000000")).row_count)
  end)
end)
