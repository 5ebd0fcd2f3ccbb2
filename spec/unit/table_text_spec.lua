local lunashard = require("lunashard")
local table_text = require("lunashard.table_text")

describe("table_text.render", function()
  local function lines_of(columns, rows, opts)
    local lines = {}
    for line in table_text.render(columns, rows, opts):gmatch("(.-)\n") do
      lines[#lines + 1] = line
    end
    return lines
  end

  it("aligns columns, numbers to the right", function()
    assert.same({
      " id |  name",
      "----+---------",
      "  1 | Ada",
      " 20 | Béla 漢",
    }, lines_of({ "id", "name" }, { { id = 1, name = "Ada" }, { id = 20, name = "Béla 漢" } }))
  end)

  it("tells NULL, an empty text and a text that says NULL apart", function()
    assert.same({ "   a", "--------", "", " NULL", " 'NULL'" }, lines_of({ "a" }, { { a = "" }, {}, { a = "NULL" } }))
  end)

  it("loses no digit", function()
    local function cell(value)
      return lines_of({ "v" }, { { v = value } })[3]:match("^ *(.*)$")
    end
    assert.equal("9223372036854775807", cell(9223372036854775807LL))
    assert.equal("9007199254740992", cell(2 ^ 53))
    assert.equal("0.1", cell(0.1))
    assert.equal("0.30000000000000004", cell(0.1 + 0.2))
    assert.equal("-5", cell(-5))
    assert.equal("inf", cell(math.huge))
  end)

  it("shows arrays as SQL writes them, and documents as JSON", function()
    assert.equal('{1,NULL,"a b","","null",x}', table_text.cell({ 1, lunashard.null, "a b", "", "null", "x" }))
    assert.equal('{"a":[1]}', table_text.cell({ a = { 1 } }))
    assert.equal("[1,2]", table_text.cell({ 1, 2 }, "jsonb"))
  end)

  it("sends nothing to a terminal that it would act on", function()
    local shown = table_text.render({ "a\27[1m", "b" }, { { ["a\27[1m"] = "\27[2J\a\226\128\174", b = "\0\255" } },
      { types = { "text", "bytea" } })
    assert.is_nil(shown:find("[%z\1-\9\11-\31\127\255]"))
    assert.is_truthy(shown:find([[\x1b[2J\x07\u202e]], 1, true))
    assert.is_truthy(shown:find([[\x00ff]], 1, true))
  end)

  it("gives a field of several lines several lines", function()
    assert.same({
      " id |  v",
      "----+-----",
      "  1 | one+",
      "    | two",
      "  2 | x",
    }, lines_of({ "id", "v" }, { { id = 1, v = "one\ntwo" }, { id = 2, v = "x" } }))
  end)

  it("cuts a field that is too long and says how long it is, within no character", function()
    local shown = table_text.render({ "v" }, { { v = ("é"):rep(100) } }, { max_cell = 11 })
    assert.is_truthy(shown:find("\n ééééé... (200 bytes)\n", 1, true))
    local huge = table_text.render({ "v" }, { { v = ("x"):rep(100 * 2 ^ 20) } }, { types = { "bytea" } })
    assert.is_true(#huge < 40000)
    assert.is_truthy(huge:find("... (104857600 bytes)", 1, true))
  end)

  it("leaves out what is beyond max_rows and says how many rows that is", function()
    local shown, left_out = table_text.render({ "v" }, { { v = 1 }, { v = 2 }, { v = 3 } }, { max_rows = 2 })
    assert.equal(1, left_out)
    assert.is_nil(shown:find("3", 1, true))
  end)

  it("gives each field a line when the table is wider than it may be", function()
    local rows = { { id = 1, name = ("x"):rep(30) }, { id = 2 } }
    local wide = lines_of({ "id", "name" }, rows, { expanded = "auto", width = 80 })
    assert.equal("----+", wide[2]:sub(1, 5))
    assert.same({
      "-[ 1 ]---",
      "id   | 1",
      "name | " .. ("x"):rep(30),
      "-[ 2 ]---",
      "id   | 2",
      "name | NULL",
    }, (function(lines)
      for i, line in ipairs(lines) do
        lines[i] = line:gsub("^(%-%[ %d %]).*", "%1---")
      end
      return lines
    end)(lines_of({ "id", "name" }, rows, { expanded = "auto", width = 20 })))
  end)

  it("is empty without columns, and refuses an option that it does not know", function()
    assert.equal("", (table_text.render({}, {})))
    assert.error_matches(function()
      table_text.render({}, {}, { max_row = 1 })
    end, "did you mean \"max_rows\"")
  end)

  it("takes no longer for a field of a megabyte, blanks and all, than that is long", function()
    local started = os.clock()
    local wide = ("x"):rep(1e6) .. (" "):rep(1e6)
    local shown = table_text.render({ "wide" }, { { wide = wide }, { wide = "y" } }, { max_cell = math.huge })
    assert.equal(" " .. ("x"):rep(1e6), shown:match("\n( x+)\n"))
    assert.is_true(os.clock() - started < 5) -- and not the square of it, which is hours
  end)
end)
