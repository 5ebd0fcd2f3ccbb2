local process = require("lunashard.process")
local system = require("lunashard.core.system")

local BINARY = assert(system.realpath("/proc/self/exe"))

-- The checker of the examples, on an example with this text.
local function check(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  local result = assert(process.run({
    argv = { BINARY, "run", "scripts/dev/check_examples.lua", path },
    env = { LUNASHARD_CLUSTER = false },
    timeout = 30,
  }))
  os.remove(path)
  return result
end

local HEAD = "-- Shows something.\n-- runs without a cluster\n"

describe("the checker of the examples", function()
  it("passes an example that prints what it should, in order, with each set of arguments", function()
    local result = check(HEAD .. [[
      print("first"); print("second", arg[1])
      if arg[1] == "bad" then os.exit(2) end
-- expect: ^first\nsecond
-- run: 42 x
-- expect: first
-- expect: second%s+42
-- run: bad
-- exit: 2
]])
    assert.equal("", result.stderr)
    assert.equal(0, result.code)
    assert.truthy(result.stdout:find("\n1 passed, 0 failed\n$"))
  end)

  it("fails an example that prints something else, and shows both", function()
    local result = check(HEAD .. 'print("Total: 41")\n-- expect: Total: 42\n')
    assert.equal(1, result.code)
    assert.truthy(result.stdout:find('expected "Total: 42" in', 1, true))
    assert.truthy(result.stdout:find("Total: 41", 1, true))
    assert.truthy(result.stdout:find("\n0 passed, 1 failed\n$"))
  end)

  it("fails an example that prints the right lines in the wrong order", function()
    local result = check(HEAD .. 'print("b"); print("a")\n-- expect: a\n-- expect: b\n')
    assert.equal(1, result.code)
  end)

  it("fails an example that ends with another exit code, though it printed everything", function()
    local result = check(HEAD .. 'print("done"); os.exit(7)\n-- expect: done\n')
    assert.equal(1, result.code)
    assert.truthy(result.stdout:find("exit code 7 instead of exit code 0", 1, true))
  end)

  it("fails an example that complains on stderr", function()
    local result = check(HEAD .. 'print("done"); io.stderr:write("something is odd\\n")\n-- expect: done\n')
    assert.equal(1, result.code)
    assert.truthy(result.stdout:find("stderr: something is odd", 1, true))
  end)

  it("fails an example that can run only once", function()
    local marker = os.tmpname()
    os.remove(marker)
    local result = check(HEAD .. ([[
      local path = %q
      local seen = io.open(path)
      assert(not seen, "there is something left of the first run")
      io.open(path, "w"):close()
      print("done")
-- expect: done
]]):format(marker))
    os.remove(marker)
    assert.equal(1, result.code)
    assert.truthy(result.stdout:find("the second time: exit code 1", 1, true))
  end)

  it("fails an example that does not say what to expect, or what it shows, or that has no cluster", function()
    for text, problem in pairs({
      [HEAD .. 'print("done")\n'] = "it has no line `-- expect: <pattern>`",
      ['print("done")\n-- runs without a cluster\n-- expect: done\n'] = "its first line must be a comment",
      ['-- Shows something.\nprint("done")\n-- expect: done\n'] = "it needs a cluster",
    }) do
      local result = check(text)
      assert.equal(1, result.code)
      assert.truthy(result.stdout:find(problem, 1, true), result.stdout)
    end
  end)
end)
