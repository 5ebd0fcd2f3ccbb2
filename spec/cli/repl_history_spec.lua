local cli = require("spec.support.cli")
local process = require("lunashard.process")
local repl = require("spec.support.repl")
local system = require("lunashard.core.system")

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

describe("the REPL's history", function()
  local home

  before_each(function()
    home = cli.directory()
  end)

  after_each(repl.close_all)

  it("is a file of mode 0600 with one line for each entry, from which the next session goes on", function()
    local terminal = repl.start({ home = home })
    repl.enter(terminal, "'first'")
    terminal:see('\n"first"\n')
    terminal:type("for i = 1, 2 do\rlocal back = '\\\\n'\rend\r")
    terminal:expect("\27[?2004l")
    terminal:type("\4")
    assert.equal(0, terminal:wait())
    local path = home .. "/.lunashard_history"
    assert.equal(384, system.stat(path).mode)
    assert.equal("'first'\nfor i = 1, 2 do\\nlocal back = '\\\\\\\\n'\\nend\n", read(path))

    terminal = repl.start({ home = home })
    terminal:type("draft")
    terminal:type("\27[A")
    terminal:see("for i = 1, 2 do\n   -> local back = '\\\\n'\n   -> end")
    terminal:type("\27[A\27[A\27[A")
    terminal:see("down> 'first'")
    terminal:type("\27[B")
    terminal:see("-> end")
    terminal:type("\27[B")
    terminal:see("down> draft")
  end)

  it("loses nothing of sessions at the same time", function()
    local one, two = repl.start({ home = home }), repl.start({ home = home })
    for i = 1, 10 do
      repl.enter(one, ("'one %d'"):format(i))
      repl.enter(two, ("'two %d'"):format(i))
    end
    one:see('"one 10"\n')
    two:see('"two 10"\n')
    local text = read(home .. "/.lunashard_history")
    for i = 1, 10 do
      assert.truthy(text:find(("'one %d'\n"):format(i), 1, true))
      assert.truthy(text:find(("'two %d'\n"):format(i), 1, true))
    end
    assert.equal(20, select(2, text:gsub("\n", "")))
  end)

  it("never has a password in it, nor what was entered twice", function()
    local terminal = repl.start({ home = home })
    for _, text in ipairs({ "x = 'ALTER ROLE app PASSWORD ''geheim'''", "pwd='geheim'", "url = 'postgresql://app:geheim@db1/app'",
      "Secret = 'geheim'", "y = 1", "y = 1" }) do
      repl.enter(terminal, text)
    end
    terminal:type("\27[A")
    terminal:see_line("down> y = 1")
    assert.equal("y = 1\n", read(home .. "/.lunashard_history"))
  end)

  it("is searched by Ctrl-R, further back by another one, and given up by Ctrl-G", function()
    cli.write(home, ".lunashard_history", "x = 'alpha one'\nx = 'beta'\nx = 'alpha two'\n")
    local terminal = repl.start({ home = home })
    terminal:type("kept")
    terminal:type("\18alp")
    terminal:see("(search) `alp': x = 'alpha two'")
    terminal:type("\18")
    terminal:see("(search) `alp': x = 'alpha one'")
    terminal:type("\18")
    terminal:see("(failed search) `alp': x = 'alpha one'")
    terminal:type("\7")
    terminal:see_line("down> kept")
    terminal:type("\21\18bet\r")
    terminal:expect("\27[?2004l")
    repl.enter(terminal, "x")
    terminal:see('\n"beta"\n')
  end)

  it("that is a folder, or may not be made, is warned of and does without", function()
    for _, path in ipairs({ home, home .. "/missing/history" }) do
      local terminal = repl.start({ home = home, env = { LUNASHARD_HISTORY = path } })
      repl.enter(terminal, "'first'")
      terminal:see('\n"first"\n')
      assert.truthy(terminal:text():gsub("\n", ""):find("history: " .. path, 1, true))
      terminal:type("\27[A")
      terminal:see_line("down> 'first'")
    end
  end)

  it("that is huge, or no text at all, is read from its end, and becomes smaller", function()
    local path = home .. "/.lunashard_history"
    local file = assert(io.open(path, "wb"))
    local block = ("\255\254\27[2J\1\n"):rep(1000)
    for _ = 1, 1000 do
      file:write(block)
    end
    file:write("'latest'\n")
    file:close()
    local terminal = repl.start({ home = home })
    assert.is_true(system.stat(path).size <= 2 ^ 20)
    terminal:type("\27[A")
    terminal:see_line("down> 'latest'")
    terminal:type("\27[A")
    terminal:see_line("down> \239\191\189\239\191\189^[[2J^A")
    repl.enter(terminal, "\21'kept'")
    terminal:see('\n"kept"\n')
    local kept = assert(process.run({ argv = { "tail", "-n", "2", path } })).stdout
    assert.equal("'latest'\n'kept'\n", kept)
  end)

  it("is kept nowhere when LUNASHARD_HISTORY is empty", function()
    local terminal = repl.start({ home = home, env = { LUNASHARD_HISTORY = "" } })
    repl.enter(terminal, "1 + 1")
    terminal:see("\n2\n")
    assert.is_nil(system.stat(home .. "/.lunashard_history"))
  end)
end)
