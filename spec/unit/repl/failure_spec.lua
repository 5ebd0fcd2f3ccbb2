local errors = require("lunashard.errors")
local failure = require("lunashard.repl.failure")

describe("what a session says of a failure", function()
  local function sql_error(fields)
    fields.sqlstate = fields.sqlstate or "42601"
    fields.message = fields.message or "syntax error"
    return errors.new("SQL", fields)
  end

  it("has a caret under the place, in lines of any length and characters of any width", function()
    assert.equal("ERROR 42601 on s1: syntax error\nLINE 2: 漢字 x\n             ^",
      failure.text(sql_error({ position = 11, shard_id = "s1" }), "select\n漢字 x"))
    local text = failure.text(sql_error({ position = 205 }), ("x"):rep(204) .. "!" .. ("y"):rep(200))
    local line, caret = text:match("(LINE[^\n]*)\n( *%^)$")
    assert.equal("!", line:sub(#caret, #caret))
    assert.is_true(#line < 160)
  end)

  it("finds the place by the name when something else was sent than was typed", function()
    local err = sql_error({ position = 99, sqlstate = "42703", message = 'column "nme" does not exist' })
    assert.is_truthy(failure.text(err, "select nme from t", true):find("LINE 1: select nme from t\n               ^", 1, true))
    assert.is_nil(failure.text(sql_error({ position = 3 }), "select", true):find("^", 1, true))
  end)

  it("names the shards together that failed in the same way", function()
    local function down()
      return errors.new("TIMEOUT", { message = "too slow" })
    end
    local text = failure.text(errors.new("SHARDS_FAILED", { total = 3, failed = {
      { shard_id = "s1", error = down() }, { shard_id = "s2", error = down() },
      { shard_id = "s3", error = errors.new("SQL", { message = "no", sqlstate = "22012" }) },
    } }))
    assert.equal(1, select(2, text:gsub("too slow", "")))
    assert.is_truthy(text:find("ERROR TIMEOUT on s1, s2: too slow", 1, true))
    assert.is_truthy(text:find("ERROR 22012 on s3: no", 1, true))
  end)

  it("shows of a traceback what is the user's, and nothing that a terminal acts on", function()
    local traceback = "stack traceback:\n\t[C]: in function 'error'\n\tmine.lua:3: in function 'inner'\n"
      .. "\tlua/lunashard/router.lua:9: in function 'execute'\n\tinput 4:1: in main chunk\n\t[C]: in function 'xpcall'\n"
    assert.same({ "mine.lua:3: in function 'inner'", "input 4:1: in main chunk" }, failure.frames(traceback))
    assert.equal("ERROR: b\\x1b[2J\n  mine.lua:3: in function 'inner'\n  input 4:1: in main chunk",
      failure.raised("b\27[2J", traceback))
  end)

  it("shows no password", function()
    assert.is_nil(failure.text(errors.new("AUTH", { message = "no: password=secret1" })):find("secret1", 1, true))
  end)
end)
