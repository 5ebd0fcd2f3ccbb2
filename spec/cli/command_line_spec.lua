local cli = require("spec.support.cli")

describe("the command line", function()
  it("prints its help on stdout with --help and nothing on stderr", function()
    local result = cli.run({ "--help" })
    assert.equal(0, result.code)
    assert.equal("", result.stderr)
    for _, command in ipairs({ "explain", "run", "sandbox", "test" }) do
      assert.matches("\n  " .. command .. " ", result.stdout)
    end
  end)

  it("prints its version", function()
    local result = cli.run({ "--version" })
    assert.equal(0, result.code)
    assert.matches("^lunashard %d+%.%d+%.%d+\n$", result.stdout)
  end)

  it("ends with 2 and the help on stderr when there is no command", function()
    local result = cli.run({})
    assert.equal(2, result.code)
    assert.equal("", result.stdout)
    assert.matches("Usage: lunashard COMMAND", result.stderr)
  end)

  it("names the nearest command for one that does not exist", function()
    local result = cli.run({ "sandbx" })
    assert.equal(2, result.code)
    assert.equal("", result.stdout)
    assert.matches('^lunashard: unknown command "sandbx"; did you mean "sandbox"%?[^\n]*\n$', result.stderr)
  end)

  it("lists the commands for one that is like no other", function()
    local result = cli.run({ "zzzzzzzz" })
    assert.equal(2, result.code)
    assert.matches("commands are: .*run, sandbox, .*test", result.stderr)
  end)

  it("refuses an option where a command is expected", function()
    local result = cli.run({ "--verbose" })
    assert.equal(2, result.code)
    assert.matches('unknown option "%-%-verbose"', result.stderr)
  end)

  it("gives every command and action a help that exits with 0", function()
    local lines = {
      { "explain" },
      { "run" },
      { "sandbox" },
      { "test" },
      { "sandbox", "start" },
      { "sandbox", "stop" },
      { "sandbox", "status" },
      { "sandbox", "destroy" },
      { "sandbox", "kill" },
      { "sandbox", "promote" },
    }
    for _, argv in ipairs(lines) do
      local words = table.concat(argv, " ")
      table.insert(argv, "--help")
      local result = cli.run(argv)
      assert.equal(0, result.code, words)
      assert.equal("", result.stderr, words)
      assert.is_truthy(result.stdout:find("Usage: lunashard " .. words, 1, true), words .. ": " .. result.stdout)
    end
  end)

  it("names the nearest option of a command for one that does not exist", function()
    local result = cli.run({ "run", "--tiemout", "3", "x.lua" })
    assert.equal(2, result.code)
    assert.matches("^lunashard: run: unknown option '%-%-tiemout'; did you mean '%-%-timeout'%?[^\n]*\n$", result.stderr)
    result = cli.run({ "sandbox", "start", "--shrads", "3" })
    assert.equal(2, result.code)
    assert.matches("unknown option '%-%-shrads'; did you mean '%-%-shards'%?", result.stderr)
  end)

  it("refuses a missing argument, a value out of range and one that is no number, each in one line", function()
    local wrong = {
      [{ "run" }] = "missing argument 'script'",
      [{ "run", "--timeout", "soon", "x.lua" }] = '"soon" is not a number of seconds',
      [{ "run", "--timeout", "0", "x.lua" }] = '"0" is not a number of seconds',
      [{ "sandbox" }] = "a command is required",
      [{ "sandbox", "start", "--shards", "0" }] = "shards must be 1 to 64, got 0",
      [{ "sandbox", "start", "--shards", "many" }] = '"many" is not a whole number',
      [{ "sandbox", "start", "--replicas", "9" }] = "replicas must be 0 to 8, got 9",
      [{ "sandbox", "start", "--name", "a/b" }] = 'a name has letters, digits, _ and -, got "a/b"',
      [{ "sandbox", "kill" }] = "missing argument 'server'",
    }
    for argv, message in pairs(wrong) do
      local result = cli.run(argv)
      assert.equal(2, result.code, message)
      assert.equal("", result.stdout)
      assert.is_truthy(result.stderr:find(message, 1, true), result.stderr)
      assert.matches("^[^\n]+\n$", result.stderr)
    end
  end)
end)
