local cli = require("spec.support.cli")
local process = require("lunashard.process")
local sandbox = require("spec.support.sandbox")

-- What becomes of a command whose output nobody takes, or that has no input. Through a shell, for it opens and closes.
describe("the output of a command", function()
  teardown(sandbox.release)

  local function shell(script)
    local result = assert(process.run({
      argv = { "bash", "-c", script },
      env = { L = cli.binary, LUNASHARD_CLUSTER = sandbox.shared().cluster_file },
      timeout = 60,
    }))
    return result.code, result.stderr:gsub("lunashard: everything stood still[^\n]*\n", ""), result.stdout
  end

  it("that is full is told in one line, with exit code 1", function()
    local code, stderr = shell('"$L" status --json >/dev/full')
    assert.equal(1, code)
    assert.matches("\nlunashard: status: cannot write to stdout: No space left on device\n$", stderr)
    assert.equal(1, (shell('"$L" --help >/dev/full')))
    code, stderr = shell('echo "print(1)" | "$L" run - >/dev/full')
    assert.equal(1, code)
    assert.matches("lunashard: run: cannot write to stdout: No space left on device\n$", stderr)
  end)

  it("whose reader has gone is told in one line, with the code of SIGPIPE, and ends what is written", function()
    local code, stderr, stdout = shell('"$L" sql --shard shard1 --format csv "SELECT g FROM generate_series(1, 100000) g" '
      .. "| head -n 2; exit ${PIPESTATUS[0]}")
    assert.equal(141, code)
    assert.equal("g\n1\n", stdout)
    assert.matches("\nlunashard: sql: stdout was closed by its reader\n$", stderr)
    code, stderr = shell('echo "for i = 1, 1e5 do print(i) end" | "$L" run - | head -n 1; exit ${PIPESTATUS[1]}')
    assert.equal(141, code)
    assert.matches("run: stdout was closed by its reader\n$", stderr)
  end)

  it("that is closed is an error, and no connection takes its place", function()
    local code, stderr = shell('"$L" sql --shard shard1 "SELECT 1" >&-')
    assert.equal(1, code)
    assert.matches("lunashard: sql: cannot write to stdout: Bad file descriptor\n$", stderr)
    assert.equal(0, (shell('"$L" sql --shard shard1 "SET work_mem = 100" >/dev/null 2>&-')))
  end)

  it("is nothing when the input is closed, and that is said", function()
    local code, stderr, stdout = shell('"$L" sql - <&-')
    assert.equal(2, code)
    assert.equal("", stdout)
    assert.matches("cannot read the statement from stdin: Bad file descriptor", stderr)
  end)
end)
