local scan = require("lunashard.sql.scan")

local function texts(sql)
  local list = {}
  for i, token in ipairs(scan.tokens(sql)) do
    list[i] = token.kind .. " " .. token.text
  end
  return list
end

describe("the words of a statement", function()
  it("are words, quoted names, strings, numbers, parameters and single characters", function()
    assert.same({
      "word SELECT", "word A", "symbol .", 'name "B c"', "symbol ,", "string 'x''y'", "symbol ,", "number 1.5e-3",
      "symbol ,", "number .5", "symbol ,", "param $12", "symbol :", "symbol :", "word INT8",
    }, texts([[select a."B c", 'x''y', 1.5e-3, .5, $12::int8]]))
  end)

  it("carry names as PostgreSQL folds them", function()
    local tokens = scan.tokens('Users "Us""ers" ÄB')
    assert.equal("users", tokens[1].name)
    assert.equal('Us"ers', tokens[2].name)
    assert.equal("Äb", tokens[3].name)
  end)

  it("stand at byte positions, behind multi-byte characters too", function()
    local sql = "SELECT 'ä€', name"
    local tokens = scan.tokens(sql)
    for _, token in ipairs(tokens) do
      assert.equal(token.text:upper(), sql:sub(token.first, token.last):upper())
    end
    assert.equal(4, scan.at(tokens, tokens[4].first))
    assert.equal(4, scan.at(tokens, tokens[4].last))
    assert.is_nil(scan.at(tokens, tokens[4].first - 1))
    assert.is_nil(scan.at(tokens, 1000))
  end)

  it("are never found inside literals, dollar quotes and comments", function()
    assert.same({ "word SELECT", "string $$ FROM 'x $$", "symbol ,", "string $a$ $$ $a$", "symbol ,",
      "string E'it\\'s FROM'" }, texts("SELECT $$ FROM 'x $$, $a$ $$ $a$, /* FROM /* x */ y */ E'it\\'s FROM' -- FROM"))
  end)

  it("do not run into each other in a slice", function()
    assert.same({ "word A", "symbol [", "number 1", "symbol :", "number 2", "symbol ]", "symbol ;" },
      texts("a[1:2];"))
  end)

  it("come with the comments between them", function()
    local sql = "/* shard_key: 42 */ SELECT '/* no */' -- last"
    local _, comments = scan.tokens(sql)
    assert.same({
      { text = "/* shard_key: 42 */", first = 1, last = 19 },
      { text = "-- last", first = 39, last = 45 },
    }, comments)
  end)

  it("end with a text that is cut off", function()
    for _, sql in ipairs({ "'abc", '"abc', "$$abc", "/* abc", "E'abc\\", "-- abc", "$a", "" }) do
      assert.is_true(#scan.tokens(sql) <= 2, sql)
    end
  end)

  it("show where a bracket closes", function()
    local tokens = scan.tokens("f(a, (b), ')') + (c")
    assert.equal(10, scan.closing(tokens, 2))
    assert.is_nil(scan.closing(tokens, 12))
  end)
end)
