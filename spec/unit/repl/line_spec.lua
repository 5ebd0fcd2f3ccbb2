local line = require("lunashard.repl.line")
local view = require("lunashard.repl.view")

local function with(text)
  local made = line.new()
  made:set(text)
  return made
end

-- The text with a bar where the cursor is.
local function shown(edited)
  return edited:text(1, edited.cursor) .. "|" .. edited:text(edited.cursor + 1)
end

local function after(text, ...)
  local edited = with(text)
  for _, command in ipairs({ ... }) do
    edited:run(command)
  end
  return shown(edited)
end

describe("a line that is edited", function()
  it("is moved in by characters, words and lines", function()
    assert.equal("one |two", after("one two", "word_left"))
    assert.equal("one| two", after("one two", "home", "word_right"))
    assert.equal("one\n|two", after("one\ntwo", "home"))
    assert.equal("|one\ntwo", after("one\ntwo", "first"))
    assert.equal("日|e\204\129", after("日e\204\129", "left"))
  end)

  it("is deleted from, and what was cut can be put elsewhere", function()
    assert.equal("one |", after("one two", "kill_word_back"))
    assert.equal("two|one ", after("one two", "kill_word_back", "home", "yank"))
    assert.equal("|", after("a.b", "kill_blank_back"))
    assert.equal("one|two", after("one\ntwo", "first", "end", "kill_end"))
    assert.equal("ba|", after("ab", "transpose"))
    assert.equal("日|", after("日e\204\129", "backspace"))
    assert.equal("|", after("", "backspace", "delete", "kill_end", "kill_start", "kill_word", "transpose", "yank", "undo"))
  end)

  it("is taken back step by step, typing as one", function()
    local edited = with("")
    for char in ("hello"):gmatch(".") do
      edited:insert(char)
    end
    edited:run("kill_start")
    edited:run("undo")
    assert.equal("hello|", shown(edited))
    edited:run("undo")
    assert.equal("|", shown(edited))
  end)

  it("keeps its column from line to line", function()
    local edited = with("long line\nx\nanother")
    edited:run("left")
    assert.is_true(edited:up())
    assert.equal("long line\nx|\nanother", shown(edited))
    assert.is_true(edited:up())
    assert.equal("long l|ine\nx\nanother", shown(edited))
    assert.is_false(edited:up())
    assert.is_true(edited:down())
    assert.is_true(edited:down())
    assert.is_false(edited:down())
  end)

  it("puts a mark that comes alone onto the character before it", function()
    local edited = with("e")
    edited:insert("\204\129")
    assert.equal(1, edited.cursor)
    assert.equal("e\204\129|", shown(edited))
  end)

  it("is the same as a plain text after any changes", function()
    local seed = tonumber(os.getenv("SEED")) or os.time()
    math.randomseed(seed)
    local commands = { "left", "right", "word_left", "word_right", "home", "end", "backspace", "delete", "kill_end",
      "kill_start", "kill_word", "kill_word_back", "yank", "transpose", "undo", "first", "last" }
    local edited = with("")
    for _ = 1, 2000 do
      if math.random(2) == 1 then
        edited:insert(({ "a", "日", " ", "\n", "two words", "\204\129" })[math.random(6)])
      else
        edited:run(commands[math.random(#commands)])
      end
      assert.equal(#edited.chars, #edited.widths, "SEED=" .. seed)
      assert.is_true(edited.cursor >= 0 and edited.cursor <= #edited.chars, "SEED=" .. seed)
      if #edited.chars > 200 then
        edited:set("")
      end
    end
  end)
end)

describe("the view of a line", function()
  local function layout(text, cursor, columns, prompt)
    local edited = with(text)
    return view.layout({ chars = edited.chars, widths = edited.widths, cursor = cursor or #edited.chars, prompt = prompt or "> ",
      continuation = "- " }, columns)
  end

  it("wraps rows where the terminal does, and knows where the cursor is", function()
    local made = layout("abcdefgh", nil, 10)
    assert.equal("> abcdefgh\r\n", view.draw(made, 1, #made.rows))
    assert.same({ 2, 0 }, { made.cursor_row, made.cursor_column })
    made = layout("abcdefghi", 8, 10)
    assert.equal("> abcdefghi", view.draw(made, 1, #made.rows))
    assert.same({ 2, 0 }, { made.cursor_row, made.cursor_column })
    made = layout("abcdefg日", nil, 10)
    assert.same({ 2, 2 }, { made.cursor_row, made.cursor_column })
  end)

  it("begins further lines with the second prompt, and gives colours no room", function()
    local made = layout("one\ntwo", nil, 20, "\27[31mred\27[0m> ")
    assert.equal("\27[31mred\27[0m> one\r\n- two", view.draw(made, 1, #made.rows))
    assert.same({ 2, 5 }, { made.cursor_row, made.cursor_column })
  end)

  it("shows what a terminal would act on", function()
    local made = layout("a\27\t\255\127", nil, 40)
    assert.equal("> a^[    \239\191\189^?", view.draw(made, 1, 1))
    assert.equal(12, made.cursor_column)
  end)

  it("lists candidates in columns, and how many are left out", function()
    assert.equal("a   c\nb   dd", view.columns({ "a", "b", "c", "dd" }, 8, 5))
    assert.equal("a\nb\n... and 2 more", view.columns({ "a", "b", "c", "d" }, 4, 2))
  end)
end)
