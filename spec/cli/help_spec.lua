local cli = require("spec.support.cli")
local tree = require("lunashard.cli.tree")

describe("what commands say of themselves", function()
  local function ok(...)
    local result = cli.run({ ... })
    assert.equal(0, result.code, result.stderr)
    assert.equal("", result.stderr)
    return result.stdout
  end

  it("is the same in the reference and with --help, for every command and action", function()
    local reference = ok("help", "--format", "markdown")
    local n = 0
    tree.walk(tree.root(), function(_, words)
      n = n + 1
      local argv = { unpack(words) }
      argv[#argv + 1] = "--help"
      local block = ("# lunashard %s\n\n```text\n%s```\n"):format(table.concat(words, " "), ok(unpack(argv)))
      assert.is_truthy(reference:find(block, 1, true), table.concat(words, " "))
    end)
    assert.is_true(n > 20)
  end)

  it("has an example for every command", function()
    for _, entry in ipairs(require("lunashard.cli").commands()) do
      local help = require("lunashard.cli.manual").help({ entry[1] })
      assert.matches("Examples?:\n  ", help, 1, false)
      assert.is_truthy(help:find("lunashard " .. entry[1], 1, true), entry[1])
    end
  end)

  it("is had by `lunashard help` too, which names the nearest command", function()
    assert.equal(ok("schema", "apply", "--help"), ok("help", "schema", "apply"))
    assert.equal(ok("--help"), ok("help"))
    local result = cli.run({ "help", "schema", "aply" })
    assert.equal(2, result.code)
    assert.matches('there is no command "schema aply"; did you mean "apply"?', result.stderr, 1, true)
  end)

  it("is a page that man can show", function()
    local page = ok("help", "--format", "man")
    for _, section in ipairs({ "NAME", "SYNOPSIS", "COMMANDS", '"EXIT STATUS"', "ENVIRONMENT" }) do
      assert.is_truthy(page:find("\n.SH " .. section .. "\n", 1, true), section)
    end
    assert.is_truthy(page:find('\n.SS "lunashard schema apply"\n', 1, true))
    for line in page:gmatch("[^\n]+") do -- whatever begins with a dot is one of ours
      assert.is_truthy(line:find("^[^.']") or line:find("^%.TH ") or line:find("^%.S[HS] ") or line:find("^%.TP$")
        or line:find("^%.[BI] ") or line:find("^%.PP$") or line:find("^%.[nf][if]$"), line)
    end
  end)
end)
