local cjson = require("cjson.safe")
local cli = require("spec.support.cli")

describe("lunashard explain", function()
  local dir, path

  setup(function()
    dir = cli.directory()
    path = cli.write(dir, "cluster.lua", [[
      return {
        name = "nowhere",
        shards = {
          { shard_id = "shard1", host = "192.0.2.1", database = "app", user = "app", password = "topsecret" },
          { shard_id = "shard2", host = "192.0.2.2", database = "app", user = "app", password = "topsecret" },
        },
        strategy = { "range", shard_key = "user_id", ranges = { shard1 = { nil, 99 }, shard2 = { 100 } } },
        tables = { users = { shard_key = "user_id", type = "int8" } },
      }]])
  end)

  teardown(function()
    cli.remove_all()
  end)

  local function explain(arguments, options)
    local argv = { "explain", "-c", path }
    for _, argument in ipairs(arguments) do
      argv[#argv + 1] = argument
    end
    return cli.run(argv, options)
  end

  it("says where a statement goes, without any server", function()
    local result = explain({ "SELECT name FROM users WHERE user_id = $1", "--param", "120" })
    assert.equal(0, result.code, result.stderr)
    for _, part in ipairs({ "by_column", "user_id = 120", "shards: shard2", "192.0.2.2:5432", "primary" }) do
      assert.is_truthy(result.stdout:find(part, 1, true), result.stdout)
    end
    assert.is_nil((result.stdout .. result.stderr):find("topsecret", 1, true))
  end)

  it("reads the statement from stdin, takes lists, and gives JSON", function()
    local result = explain({ "-", "--param", "{1,200}", "--json" }, { stdin = "SELECT name FROM users WHERE user_id = ANY ($1)" })
    assert.equal(0, result.code, result.stderr)
    local plain = assert(cjson.decode(result.stdout))
    assert.same({ "shard1", "shard2" }, plain.shards)
    assert.same({ shard1 = 1, shard2 = 1 }, plain.split)
  end)

  it("explains a key alone", function()
    local result = explain({ "--key", "7" })
    assert.equal(0, result.code, result.stderr)
    assert.is_truthy(result.stdout:find("shards: shard1", 1, true), result.stdout)
  end)

  it("fails with the reason in one line, and in JSON when asked", function()
    local result = explain({ "DELETE FROM users", "--json" })
    assert.equal(1, result.code)
    assert.equal("NO_KEY", assert(cjson.decode(result.stdout)).error.code)
    assert.matches("\nlunashard: explain: NO_KEY: ", result.stderr)
    result = explain({ "SELECT FROM WHERE" })
    assert.equal(1, result.code)
    assert.equal("", result.stdout)
    assert.is_truthy(result.stderr:find("syntax error", 1, true), result.stderr)
  end)

  it("wants a cluster file and something to explain", function()
    assert.equal(2, explain({}).code)
    local result = cli.run({ "explain", "SELECT 1" })
    assert.equal(2, result.code)
    assert.is_truthy(result.stderr:find("LUNASHARD_CLUSTER", 1, true), result.stderr)
    result = cli.run({ "explain", "-c", dir .. "/none.lua", "SELECT 1" })
    assert.equal(2, result.code)
    assert.is_truthy(result.stderr:find("none.lua", 1, true), result.stderr)
  end)
end)
