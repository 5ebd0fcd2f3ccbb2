local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")

describe("lunashard", function()
  local dir, path

  local function cluster_file(name, more)
    return cli.write(dir, name, ([[
      local given = dofile(%q)
      given.name = "shop"
      %s
      return given]]):format(sandbox.shared().cluster_file, more or ""))
  end

  setup(function()
    dir = cli.directory()
    path = cluster_file("cluster.lua")
  end)

  teardown(function()
    cli.remove_all()
    sandbox.release()
  end)

  describe("status", function()
    it("shows every server, and ends with 0 when all shards are healthy", function()
      local result = cli.run({ "status", "-c", path })
      assert.equal(0, result.code, result.stderr)
      assert.matches("^cluster shop: 3 of 3 shards healthy\n", result.stdout)
      for i = 1, 3 do
        assert.matches(("\n shard%d | 127.0.0.1:%%d+ | primary | healthy "):format(i), result.stdout)
      end
    end)

    it("ends with 4 when some are not and with 1 when none is, and says why, with --json as an object", function()
      local result = cli.run({ "status", "-c", cluster_file("some.lua", "given.shards[2].port = 1") })
      assert.equal(4, result.code, result.stderr)
      assert.matches("2 of 3 shards healthy, %d alerts", result.stdout)
      assert.matches("alert: shard2: .*Connection refused", result.stdout)
      result = cli.run({ "status", "--json", "-c", cluster_file("none.lua", "for i = 1, 3 do given.shards[i].port = 1 end") })
      assert.equal(1, result.code)
      local plain = assert(cjson.decode(result.stdout))
      assert.same({ "shop", 0, 3 }, { plain.name, plain.healthy_shards, plain.total_shards })
      assert.equal("unhealthy", plain.shards.shard1.endpoints[1].status)
    end)

    it("looks again and again with --watch", function()
      local result = cli.run({ "status", "--watch", "--interval", "0.05", "--count", "3", "--json", "-c", path })
      assert.equal(0, result.code, result.stderr)
      local n = 0
      for line in result.stdout:gmatch("[^\n]+") do
        n = n + 1
        assert.equal(3, assert(cjson.decode(line)).healthy_shards)
        for _, name in ipairs({ "alerts", "plugins", "replicas" }) do
          assert.truthy(line:find(('"%s":[]'):format(name), 1, true), line)
        end
      end
      assert.equal(3, n)
      assert.equal(2, cli.run({ "status", "--count", "3", "-c", path }).code)
    end)

    it("ends with 130 when it is interrupted while it watches", function()
      local child = cli.spawn({ "status", "--watch", "--interval", "0.05", "-c", path })
      cli.wait_until("it has written", function()
        return child:output():find("healthy", 1, true)
      end)
      child:signal("INT")
      assert.equal(130, assert(child:wait(20)).code)
      child:close()
    end)
  end)

  describe("route", function()
    it("says for each key its bucket, shard and server, as the router finds them", function()
      local result = cli.run({ "route", "-c", path, "42", "'42'", "43" })
      assert.equal(0, result.code, result.stderr)
      local explained = cli.run({ "explain", "-c", path, "--key", "42" }).stdout
      local bucket, shard = explained:match("falls into bucket (%d+), .- places on (%w+)")
      assert.matches(("\n 42   | %s *| %s |"):format(bucket, shard), result.stdout)
      assert.matches(("\n '42' | %s *| %s |"):format(bucket, shard), result.stdout)
      result = cli.run({ "route", "-c", path, "--explain", "42", "--table", "users" })
      assert.matches("user_id = 42 falls into bucket " .. bucket, result.stdout)
    end)

    it("reads keys from stdin, and tells those that belong nowhere with the exit code too", function()
      local result = cli.run({ "route", "--json", "-c", path, "-" }, { stdin = "1\nx\n3\n" })
      assert.equal(2, result.code)
      local keys = assert(cjson.decode(result.stdout)).keys
      assert.same({ "1", "x", "3" }, { keys[1].given, keys[2].given, keys[3].given })
      assert.equal("INVALID", keys[2].error.code)
      assert.matches("^shard%d$", keys[3].shard_id)
      result = cli.run({ "route", "-c", path, "--table", "user", "7" })
      assert.equal(2, result.code)
      assert.matches('did you mean "users"', result.stderr)
      result = cli.run({ "route", "--json", "-c", path, "-" }, { stdin = "" })
      assert.same({ 2, '{"keys":[]}\n' }, { result.code, result.stdout:match("^[^\n]*\n") })
    end)
  end)
end)
