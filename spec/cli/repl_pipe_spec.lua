local cli = require("spec.support.cli")
local process = require("lunashard.process")

local CLUSTER = [[
return { name = "down", shards = { { shard_id = "shard1", host = "127.0.0.1", port = 1, database = "app", user = "app" } },
  strategy = { "hash", shard_key = "user_id" } }
]]

describe("the REPL without a terminal", function()
  local cluster, dir

  before_each(function()
    dir = cli.directory()
    cluster = cli.write(dir, "cluster.lua", CLUSTER)
  end)

  after_each(cli.remove_all)

  local function run(input, options)
    options = options or {}
    options.stdin = input
    options.env = { HOME = dir, LUNASHARD_REPLRC = options.rc or false }
    options.rc = nil
    return cli.run({ "repl", "-c", cluster }, options)
  end

  it("runs each statement of a pipe, of one line or several, and shows no prompt", function()
    local result = run("x = 20\n\nfor i = 1, 2 do\n  print(x + i)\nend\nx * 2")
    assert.equal(0, result.code)
    assert.equal("21\n22\n40\n", result.stdout)
    assert.is_nil(result.all_stderr:find(">", 1, true))
    assert.is_nil(require("lunashard.core.system").stat(dir .. "/.lunashard_history"))
  end)

  it("stops at the first that fails, and says in which line it began", function()
    local result = run("print('one')\nprint('two')\nfunction f()\n  error('no more')\nend\nf()\nprint('three')\n")
    assert.equal(1, result.code)
    assert.equal("one\ntwo\n", result.stdout)
    assert.matches("no more", result.stderr)
    assert.matches("line 6 of the input", result.stderr)
  end)

  it("fails for what is not complete at the end of the input", function()
    local result = run("print('one')\nfor i = 1, 2 do\n")
    assert.equal(1, result.code)
    assert.equal("one\n", result.stdout)
    assert.matches("line 2 of the input", result.stderr)
  end)

  it("runs a file of 100,000 statements in the memory of ten", function()
    local function peak(count)
      local path = cli.write(dir, "statements", ("x = (x or 0) + 1\n"):rep(count)
        .. "x\nprint(io.open('/proc/self/status'):read('*a'):match('VmHWM:%s+(%d+)'))\n")
      local result = assert(process.run({ argv = { "sh", "-c", 'exec "$0" repl -c "$1" <"$2"', cli.binary, cluster, path },
        env = { HOME = dir }, timeout = 120 }))
      assert.equal(0, result.code, result.stderr)
      local x, memory = result.stdout:match("^(%d+)\n(%d+)\n$")
      assert.equal(count, tonumber(x))
      return tonumber(memory)
    end
    local room = cli.binary:find("/asan/", 1, true) and 400000 or 20000 -- KiB; a sanitizer keeps what was freed
    assert.is_true(peak(os.getenv("LUNASHARD_GCSTRESS") and 10000 or 100000) < peak(10) + room)
  end)

  it("does nothing when stdin is closed or empty", function()
    assert.equal(0, run("").code)
    local result = assert(process.run({ argv = { "sh", "-c", 'exec "$0" repl -c "$1" <&-', cli.binary, cluster },
      env = { HOME = dir }, timeout = 60 }))
    assert.is_true(result.code == 0 or result.code == 1, result.stderr)
    assert.is_nil(result.stderr:find("traceback", 1, true))
  end)

  it("fails in a line when its output goes nowhere: a full disk, a closed pipe", function()
    local full = assert(process.run({ argv = { "sh", "-c", 'echo "print(1)" | "$0" repl -c "$1" >/dev/full', cli.binary,
      cluster }, env = { HOME = dir }, timeout = 60 }))
    assert.equal(1, full.code)
    assert.matches("lunashard: repl: cannot write to stdout: No space left on device\n", full.stderr)
    local broken = assert(process.run({ argv = { "sh", "-c",
      'yes "print(1)" | head -n 100000 | { "$0" repl -c "$1"; echo "code $?" >&2; } | head -n 1', cli.binary, cluster },
      env = { HOME = dir }, timeout = 60 }))
    assert.equal("1\n", broken.stdout)
    assert.matches("lunashard: repl: stdout was closed by its reader\ncode 141\n", broken.stderr)
  end)

  it("wants a cluster file, and says so with exit code 2", function()
    local result = cli.run({ "repl" }, { stdin = "1\n", env = { HOME = dir } })
    assert.equal(2, result.code)
    assert.matches("%-c or LUNASHARD_CLUSTER", result.stderr)
  end)

  it("runs the user's replrc.lua first, unless others may write it; what is wrong in it is said", function()
    local rc = cli.write(dir, "replrc.lua", "function twice(x) return 2 * x end\n")
    assert.equal("42\n", run("twice(21)\n", { rc = rc }).stdout)
    assert(require("lunashard.core.system").chmod(rc, 438))
    local result = run("twice == nil\n", { rc = rc })
    assert.equal("true\n", result.stdout)
    assert.matches("replrc.lua is not run: others may write it", result.stderr)
    cli.write(dir, "replrc.lua", "error('broken')\n")
    result = run("1\n", { rc = rc })
    assert.equal("1\n", result.stdout)
    assert.matches("replrc.lua:1: broken", result.stderr)
  end)
end)
