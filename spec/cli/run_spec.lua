local cli = require("spec.support.cli")
local process = require("lunashard.process")
local sandbox = require("spec.support.sandbox")
local pool = require("lunashard.pool")

local dir, servers

local function script(content, name)
  return cli.write(dir, name or "script.lua", content)
end

local function run(content, ...)
  return cli.run({ "run", script(content), ... })
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

  describe("with a script", function()
    it("runs it, passes its arguments and ends with 0", function()
      local result = run("print(arg[0] == ..., #arg, select(2, ...)); print(arg[1], arg[2], arg[3])", "x", "--help", "-c")
      assert.equal("false\t3\t--help\t-c\nx\t--help\t-c\n", result.stdout)
      assert.equal("", result.stderr)
      assert.equal(0, result.code)
    end)

    it("skips a first line with #! and keeps line numbers right", function()
      local result = run("#!/usr/bin/env -S lunashard run\nerror('here')")
      assert.equal(1, result.code)
      assert.matches("script%.lua:2: here", result.stderr)
    end)

    it("is started by the kernel from its #! line", function()
      local path = script("#!" .. cli.binary .. " run\nprint('started', ...)")
      assert(require("lunashard.core.system").chmod(path, 493))
      local result = assert(process.run({ argv = { path, "a" } }))
      assert.equal("started\ta\n", result.stdout)
    end)

    it("reads the script from stdin for -", function()
      local result = cli.run({ "run", "-", "a", "b" }, { stdin = "print('in', ...)\nerror('bad')" })
      assert.equal("in\ta\tb\n", result.stdout)
      assert.matches("stdin:2: bad", result.stderr)
      assert.equal(1, result.code)
    end)

    it("finds modules beside the script, and none by itself in the working directory", function()
      script("return { value = 'beside' }", "beside.lua")
      local result = run("print(require('beside').value)")
      assert.equal("beside\n", result.stdout)
      local other = cli.directory()
      local path = cli.write(other, "other.lua", "require('beside')")
      result = cli.run({ "run", path }, { cwd = dir })
      assert.equal(1, result.code)
      assert.matches("module 'beside' not found", result.stderr)
    end)

    it("lets what it returns decide: false and nil with an error fail, all else is success", function()
      local expected = { ["return false"] = 1, ["return nil, 'no luck'"] = 1, ["return false, 'no luck'"] = 1 }
      for _, good in ipairs({ "return", "return nil", "return true", "return 0", "return 7", "return {}" }) do
        expected[good] = 0
      end
      for content, code in pairs(expected) do
        local result = run(content)
        assert.equal(code, result.code, content)
        if content:find("no luck") then
          assert.matches("script%.lua: no luck\n$", result.stderr)
        end
      end
    end)

    it("says which script is missing", function()
      local result = cli.run({ "run", dir .. "/none.lua" })
      assert.equal(1, result.code)
      assert.equal("", result.stdout)
      assert.equal(("lunashard: cannot read the script: %s/none.lua: No such file or directory\n"):format(dir), result.stderr)
    end)

    it("refuses a directory as a script", function()
      local result = cli.run({ "run", dir })
      assert.equal(1, result.code)
      assert.matches("^lunashard: cannot read the script: [^\n]*Is a directory\n$", result.stderr)
    end)

    it("says where a syntax error is, in one line, before anything runs", function()
      local result = run("print('side effect')\nlocal x = = 1")
      assert.equal(1, result.code)
      assert.equal("", result.stdout)
      assert.matches("^lunashard: [^\n]*script%.lua:2: unexpected symbol near '='\n$", result.stderr)
    end)

    it("refuses bytecode", function()
      local result = run(string.dump(function() end))
      assert.equal(1, result.code)
      assert.matches("attempt to load chunk with wrong mode", result.stderr)
    end)

    it("shows the frames of the script, and no others, when it raises", function()
      local result = run(table.concat({
        "local function inner()",
        "  error('boom')",
        "end",
        "local function outer()",
        "  inner()",
        "end",
        "outer()",
      }, "\n"))
      assert.equal(1, result.code)
      local lines = {}
      for line in result.stderr:gmatch("[^\n]+") do
        lines[#lines + 1] = line:gsub("%S*/script", "script")
      end
      assert.same({
        "lunashard: script.lua:2: boom",
        "  script.lua:2: in function 'inner'",
        "  script.lua:5: in function 'outer'",
        "  script.lua:7: in main chunk",
      }, lines)
    end)

    it("prints raised error objects and tables readably", function()
      local result = run("error(require('lunashard.errors').new('TIMEOUT', { message = 'too slow', shard_id = 's1' }))")
      assert.equal(1, result.code)
      assert.matches("script%.lua: TIMEOUT: too slow %(s1%)\n", result.stderr)
      result = run("error({ 1, why = 'x' })")
      assert.matches('script%.lua: { 1, why = "x" }\n', result.stderr)
      result = run("error()")
      assert.equal(1, result.code)
      assert.matches("script%.lua: nil\n", result.stderr)
    end)

    it("ends with the code of os.exit, closes tasks on the way, and runs nothing after it", function()
      for code, text in pairs({ [0] = "os.exit(0)", [7] = "os.exit(7)", [1] = "os.exit(false)" }) do
        local spawn = "require('lunashard').spawn(function() require('lunashard').sleep(60) end)\n"
        local result = run(spawn .. text .. "\nprint('after')")
        assert.equal(code, result.code)
        assert.equal("", result.stdout)
        assert.is_true(result.duration < 5)
      end
    end)

    it("does not wait for tasks that it left running", function()
      local result = run("require('lunashard').spawn(function() require('lunashard').sleep(60) end)\nprint('end')")
      assert.equal(0, result.code)
      assert.equal("end\n", result.stdout)
      assert.is_true(result.duration < 5)
    end)

    it("ends it with 1 when --timeout is over", function()
      local path = script("print('begun') io.stdout:flush() require('lunashard').sleep(60)")
      local result = cli.run({ "run", "--timeout", "0.3", path })
      assert.equal(1, result.code)
      assert.equal("begun\n", result.stdout)
      assert.matches("script%.lua: timed out after 0%.3s", result.stderr)
      assert.is_true(result.duration < 5)
    end)

    it("says how to get a router when a script uses one without a cluster file", function()
      local result = run("router:execute('SELECT 1')")
      assert.equal(1, result.code)
      local hint = "global 'router' %(a nil value%); it is set when a cluster file is given with %-c or LUNASHARD_CLUSTER"
      assert.matches(hint, result.stderr)
    end)
  end)

  describe("with a cluster", function()
    it("sets the globals, says on stderr what it acts on, and closes the cluster", function()
      local path = script([[
        local result = assert(router:execute("SELECT current_database() AS name", {}, { routing_key = 42 }))
        assert(cluster.manager == manager and cluster.router == router)
        print(result.shard_id, result.rows[1].name)
      ]])
      local result = cli.run({ "run", "-c", servers.cluster_file, path })
      assert.matches("^(shard%d)\tapp_%1\n$", result.stdout)
      local file = servers.cluster_file:gsub("%p", "%%%0")
      assert.matches("^lunashard: cluster [%w_-]+ %(" .. file .. "%), 3 shards\n$", result.stderr)
      assert.equal(0, result.code)
    end)

    it("takes the cluster file from LUNASHARD_CLUSTER, which -c overrides", function()
      local path = script("print(#manager.shards)")
      local result = cli.run({ "run", path }, { env = { LUNASHARD_CLUSTER = servers.cluster_file } })
      assert.equal("3\n", result.stdout)
      result = cli.run({ "run", "-c", servers.cluster_file, path }, { env = { LUNASHARD_CLUSTER = "/none" } })
      assert.equal("3\n", result.stdout)
      assert.equal(0, result.code)
    end)

    it("refuses a missing cluster file in one line and runs nothing", function()
      local result = cli.run({ "run", "-c", dir .. "/none.lua", script("print('ran')") })
      assert.equal(1, result.code)
      assert.equal("", result.stdout)
      assert.matches("^lunashard: cluster file [^\n]*none%.lua: No such file or directory\n$", result.stderr)
    end)

    it("says file and line of a cluster file's syntax error", function()
      local wrong = cli.write(dir, "wrong.lua", "return {\n  shards = {\n  strategy = }\n")
      local result = cli.run({ "run", "-c", wrong, script("print('ran')") })
      assert.equal(1, result.code)
      assert.equal("", result.stdout)
      assert.matches("^lunashard: cluster file[^\n]*wrong%.lua:3: [^\n]+\n$", result.stderr)
    end)

    it("names the nearest option for one that a cluster file gets wrong", function()
      local wrong = cli.write(dir, "wrong.lua", "return { shards = {}, stratgy = { 'hash', shard_key = 'id' } }")
      local result = cli.run({ "run", "-c", wrong, script("print('ran')") })
      assert.equal(1, result.code)
      assert.matches('stratgy[^\n]*did you mean "?strategy', result.stderr)
    end)

    it("prints the failure that a script returns, with shard and SQLSTATE", function()
      local path = script("return router:execute('SELECT * FROM no_such_table', {}, { routing_key = 1 })")
      local result = cli.run({ "run", "-c", servers.cluster_file, path })
      assert.equal(1, result.code)
      local expected = 'script%.lua: SQL: relation "no_such_table" does not exist %(shard%d [%d.:]+, SQLSTATE 42P01%)'
      assert.matches(expected, result.stderr)
    end)
  end)

  describe("that is interrupted in mid-query", function()
    -- Sessions of the script on all shards that still run its query.
    local function running(marker)
      local n = 0
      for _, shard in ipairs(servers.shards) do
        local admin = pool.new({
          shard_id = shard.shard_id,
          host = shard.host,
          port = shard.port,
          database = shard.database,
          user = shard.superuser,
          password = shard.superuser_password,
        })
        local sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE $1 AND state = 'active'"
        n = n + assert(admin:execute(sql, { "%" .. marker .. "%" })).rows[1].n
        admin:close()
      end
      return n
    end

    local function interrupt(signal, code)
      local marker = "interrupted by " .. signal
      local sql = ("SELECT pg_sleep(60) /* %s */"):format(marker)
      local path = script(("router:scatter_gather(%q, {}, { timeout = 60 })\nprint('after')"):format(sql))
      local child = cli.spawn({ "run", "-c", servers.cluster_file, path })
      cli.wait_until("the query runs on every shard", function()
        return running(marker) == 3
      end)
      child:signal(signal)
      local result = assert(child:wait(5))
      child:close()
      assert.equal(code, result.code)
      assert.equal("", result.stdout)
      assert.equal(0, running(marker))
    end

    it("cancels the queries on the servers and ends with 130 for SIGINT", function()
      interrupt("INT", 130)
    end)

    it("cancels the queries on the servers and ends with 143 for SIGTERM", function()
      interrupt("TERM", 143)
    end)

    it("ends within 5 seconds also when the script computes without end", function()
      local child = cli.spawn({ "run", script("io.stdout:write('on\\n') io.stdout:flush()\nwhile true do end") })
      cli.wait_until("the script runs", function()
        return child:output() == "on\n"
      end)
      child:signal("TERM")
      local result = child:wait(6)
      child:close()
      assert.equal(143, result and result.code)
    end)
  end)
end)
