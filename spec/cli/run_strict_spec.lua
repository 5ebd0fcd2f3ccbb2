local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")

local dir, servers

local function run(content, ...)
  local path = cli.write(dir, "strict.lua", content)
  local argv = { "run", "-c", servers.cluster_file, ... }
  argv[#argv + 1] = path
  return cli.run(argv)
end

describe("lunashard run", function()
  setup(function()
    dir = cli.directory()
    servers = sandbox.shared()
  end)

  teardown(function()
    cli.remove_all()
    sandbox.release()
  end)

  it("names the script's line, and none of ours, when the script misuses the router", function()
    for what, call in pairs({
      ["execute: expected SQL as a string"] = "router:execute(1)",
      ["SQL cannot hold a NUL byte"] = 'router:execute("SELECT 1\\0")',
      ['unknown option "tabel" of scatter_gather'] = 'router:scatter_gather("SELECT 1", nil, { tabel = 1 })',
      ["transaction: expected a function"] = "router:transaction({ routing_key = 1 })",
      ["execute_many: expected a list"] = 'router:execute_many("SELECT $1")',
      ["copy_in: columns: expected a list"] = 'router:copy_in("t")',
    }) do
      local result = run("\nlocal result = " .. call .. "\nprint(result)")
      assert.equal(1, result.code)
      assert.is_truthy(result.stderr:find("strict.lua:2: ", 1, true), result.stderr)
      assert.is_truthy(result.stderr:find(what, 1, true), result.stderr)
    end
  end)

  describe("with an error that the script was given", function()
    local DROPPED = 'router:execute("SELEC 1", nil, { routing_key = 1 })\nprint("on")'

    it("warns, with place and text, when nobody looked at it", function()
      local result = run(DROPPED)
      assert.equal(0, result.code)
      assert.equal("on\n", result.stdout)
      assert.matches("1 error was returned and not looked at; .*strict%.lua:1: SQL: syntax error", result.stderr)
    end)

    it("fails for it with --strict, and not without it", function()
      assert.equal(1, run(DROPPED, "--strict").code)
    end)

    for what, look in pairs({
      ["its code was compared"] = "assert(err.code == 'SQL')",
      ["it was printed"] = "print(tostring(err))",
      ["errors.is asked for its kind"] = "assert(require('lunashard').errors.is(err, 'SQL'))",
      ["a field was set"] = "err.note = 'mine'",
      ["a transaction passed it on and that was looked at"] =
        "local _, outer = router:transaction({ routing_key = 1 }, function() return nil, err end)\n"
          .. "assert(outer.code == 'SQL' and outer.sqlstate == '42601', tostring(outer))",
    }) do
      it("says nothing when " .. what, function()
        local result = run('local _, err = router:execute("SELEC 1", nil, { routing_key = 1 })\n' .. look, "--strict")
        assert.equal(0, result.code, result.stderr)
        assert.not_matches("not looked at", result.stderr)
      end)
    end

    it("gives it whole to whoever looks late", function()
      local result = run('local _, err = router:execute("SELEC 1", nil, { routing_key = 1 })\n'
        .. "print(err.position, err.retryable, err.sqlstate)")
      assert.equal("1\tfalse\t42601\n", result.stdout)
    end)
  end)

  it("ends with 1 when a task that nobody joined has raised", function()
    local result = run('local l = require("lunashard")\nl.spawn(function() error("in the dark") end)\nl.sleep(0.05)')
    assert.equal(1, result.code)
    assert.matches("in the dark", result.stderr)
  end)

  describe("--lock", function()
    local HOLD = "io.write('on\\n') io.flush()\nrequire('lunashard').sleep(60)"

    local function holder(name)
      local path = cli.write(dir, "holder.lua", HOLD)
      local child = cli.spawn({ "run", "-c", servers.cluster_file, "--lock", name, path })
      cli.wait_until("the first run holds the lock", function()
        return child:output() == "on\n"
      end)
      return child
    end

    it("ends with 5, saying who holds it, while another run has it", function()
      local child = holder("nightly")
      local result = run("print('never')", "--lock", "nightly")
      assert.equal(5, result.code)
      assert.equal("", result.stdout)
      assert.matches('the lock "nightly" is held by another run %(lunashard from 127%.0%.0%.1, server process %d+',
        result.stderr)
      child:signal("TERM")
      assert(child:wait(5))
      child:close()
    end)

    it("lets runs with other names go on", function()
      local child = holder("one")
      assert.equal(0, run("print('mine')", "--lock", "two").code)
      child:signal("TERM")
      assert(child:wait(5))
      child:close()
    end)

    it("is free again after kill -9 of its holder, and after an ordinary end", function()
      local child = holder("killed")
      child:signal("KILL")
      assert(child:wait(5))
      child:close()
      cli.wait_until("the server has noticed", function()
        return run("print('mine')", "--lock", "killed").code == 0
      end)
      assert.equal(0, run("print('mine')", "--lock", "killed").code)
    end)

    it("wants a cluster", function()
      local result = cli.run({ "run", "--lock", "x", cli.write(dir, "none.lua", "print(1)") })
      assert.equal(2, result.code)
      assert.matches("%-c or LUNASHARD_CLUSTER", result.stderr)
    end)
  end)
end)
