local cli = require("spec.support.cli")
local process = require("lunashard.process")
local pty = require("spec.support.pty")
local repl = require("spec.support.repl")
local system = require("lunashard.core.system")

-- Ends with this code, and leaves the terminal as a shell wants it.
local function check_end(terminal, code)
  assert.equal(code, terminal:wait())
  assert.is_true(terminal:is_sane())
end

describe("the REPL's terminal", function()
  after_each(repl.close_all)

  it("is sane after os.exit, whose code counts", function()
    local terminal = repl.start()
    terminal:type("os.exit(3)\r")
    check_end(terminal, 3)
  end)

  for name, code in pairs({ TERM = 143, HUP = 129, INT = 0 }) do
    it("is sane after SIG" .. name .. " in the middle of a line", function()
      local terminal = repl.start()
      terminal:type("half a li")
      terminal:see("half a li")
      terminal:signal(name)
      if name == "INT" then -- as Ctrl-C does
        terminal:see("half a li^C\n")
        terminal:type("\4")
      end
      check_end(terminal, code)
    end)
  end

  for name, number in pairs({ QUIT = 3, SEGV = 11, ABRT = 6 }) do
    it("is sane after a crash by SIG" .. name, function()
      if name == "SEGV" and cli.binary:find("/asan/", 1, true) then
        return -- the sanitizer takes that one
      end
      local terminal = repl.start()
      terminal:type("half")
      terminal:see("half")
      assert(system.kill(terminal.pid, number))
      assert.equal(number, terminal:wait() % 128)
      assert.is_true(terminal:is_sane())
    end)
  end

  it("is the program's again after Ctrl-Z and fg, with what was typed", function()
    local home = cli.directory()
    local cluster = cli.write(home, "cluster.lua",
      [[return { shards = { { shard_id = "s", host = "127.0.0.1", port = 1, database = "x", user = "x" } },
        strategy = { "hash", shard_key = "user_id" } }]])
    local script = cli.write(home, "shell.sh",
      'set -m\n"$0" repl -c "$1"\necho stopped: $?\nstty -a | grep -o " .icanon\\| icanon"\nfg >/dev/null\necho left: $?\n')
    local rc = cli.write(home, "rc.lua", "function prompt() return 'down> ' end")
    local terminal = pty.spawn({ "sh", "-c", '. "$2"', cli.binary, cluster, script },
      { env = { HOME = home, LUNASHARD_REPLRC = rc } })
    terminal:see("down>")
    terminal:type("12 + ")
    terminal:see("down> 12 +")
    terminal:type("\26")
    terminal:see("stopped: 148\n icanon\n")
    terminal:wait_until("it is back", function()
      return terminal.view:line():find("^down> 12 %+")
    end)
    terminal:type("30\r")
    terminal:see("down> 12 + 30\n42\n")
    terminal:type("\4")
    terminal:see("left: 0")
    terminal:wait()
    assert.is_true(terminal:is_sane())
    terminal:close()
  end)

  it("is taken again after SIGSTOP and SIGCONT, which nobody can prepare for", function()
    local terminal = repl.start()
    terminal:type("6 * ")
    terminal:see("6 *")
    terminal:signal("STOP")
    terminal:signal("CONT")
    terminal:expect("\27[?2004h")
    terminal:type("7\r")
    terminal:see("6 * 7\n42\n")
  end)

  for _, columns in ipairs({ 20, 400 }) do
    it(("may have %d columns"):format(columns), function()
      local terminal = repl.start({ columns = columns, rows = 50, prompt = columns == 20 and "down>" })
      local text = "assert '" .. ("0123456789"):rep(5) .. "'"
      terminal:type(text)
      local shown = ("down> " .. text):gsub(("."):rep(columns), "%0\n")
      terminal:see(shown)
      terminal:type("\1X")
      terminal:see("down> Xassert")
      terminal:type("\8\5\r")
      terminal:see((('"' .. ("0123456789"):rep(5)):gsub(("."):rep(columns), "%0\n")))
    end)
  end

  it("may change its size in the middle of a line", function()
    local terminal = repl.start({ columns = 80, rows = 30 })
    terminal:type("assert 'a line that is long enough for three rows of a narrow terminal'")
    terminal:see("narrow terminal'")
    terminal:resize(30, 30)
    terminal:type("\27OD ")
    terminal:see("down> assert 'a line that is l\nong enough for three rows of a\n narrow terminal '")
    terminal:resize(100, 30)
    terminal:type("\127")
    terminal:see("down> assert 'a line that is long enough for three rows of a narrow terminal'")
    assert.is_nil(terminal.view:text():find("down>.*down>"), terminal.view:text())
    terminal:type("\r")
    terminal:see('\n"a line that is long enough for three rows of a narrow terminal"\n')
  end)

  it("shows wide, combining and right-to-left characters, and the cursor among them", function()
    local terminal = repl.start({ columns = 20 })
    terminal:type("assert '日本語日本語é שלום x'")
    terminal:see("down> assert '日本語\n日本語é שלום x'")
    terminal:type("\27[D\27[D!")
    terminal:see("日本語é שלום !x'")
    terminal:type(("\27[D"):rep(7) .. "\8")
    terminal:see("\n日本語 שלום !x'")
    terminal:type("\r")
    terminal:see('"日本語日本語 שלום !\nx"')
  end)

  it("is asked for nothing but lines when there is no TERM, or a dumb one", function()
    for _, term in ipairs({ false, "dumb" }) do
      local terminal = repl.start({ env = { TERM = term }, prompt = false })
      terminal:see("down>")
      terminal:type("for i = 1, 2 do\r")
      terminal:see("for i = 1, 2 do\n")
      terminal:see("> ")
      terminal:type("\3")
      terminal:wait_until("a new prompt is there", function()
        return terminal.view:line() == "down>"
      end)
      terminal:type("20 + 1\r")
      terminal:see("\n21\ndown>")
      assert.is_nil(terminal.output:find("\27", 1, true))
      terminal:type("\4")
      check_end(terminal, 0)
    end
  end)

  it("gets what a line has written without a newline in full", function()
    local terminal = repl.start()
    terminal:type("x = io.write('no newline')\r")
    terminal:see("no newline%\n")
    terminal:see("\ndown>")
  end)

  it("that hangs up ends the program", function()
    local terminal = repl.start()
    local pid = terminal.pid
    terminal:close()
    cli.wait_until("it is gone", function()
      return not process.is_alive(pid)
    end)
  end)
end)
