local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local sandbox = require("spec.support.sandbox")

describe("lunashard check of a cluster", function()
  local dir, router

  -- A cluster file of the sandbox's shards.
  local function cluster_file(more)
    return cli.write(dir, "cluster.lua", ([[
      local given = dofile(%q)
      given.name, given.tables = "shop", {}
      %s
      return given]]):format(sandbox.shared().cluster_file, more or ""))
  end

  setup(function()
    dir = cli.directory()
    router = cluster.connect()
  end)

  before_each(function()
    assert(router:execute_on_all_shards("DROP SCHEMA IF EXISTS k CASCADE; CREATE SCHEMA k"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA IF EXISTS k CASCADE"))
    cluster.release()
    cli.remove_all()
  end)

  local function check(path, ...)
    local result = cli.run({ "check", "--json", "-c", path, ... })
    local plain = assert(cjson.decode(result.stdout), result.stdout .. result.stderr)
    return plain, result
  end

  -- The finding that says this; every one has a remedy.
  local function finding(plain, text)
    for _, one in ipairs(plain.findings) do
      assert(#one.remedy > 10 and (one.level == "error" or one.level == "warning"), one.what)
      if one.what:find(text, 1, true) then
        return one
      end
    end
    error(("no finding says %q: %s"):format(text, cjson.encode(plain.findings)), 2)
  end

  it("finds nothing wrong where nothing is, and shows findings with what to do, one below the other", function()
    assert(router:execute_on_all_shards("CREATE TABLE k.good (user_id int8 PRIMARY KEY, name text)"))
    local path = cluster_file('given.tables["k.good"] = { shard_key = "user_id", type = "int8" }')
    local result = cli.run({ "check", "-c", path, "--exit-code" })
    assert.equal(0, result.code, result.stdout .. result.stderr)
    assert.same({ "", true }, { result.stdout, result.stderr:find("check: 0 errors, 0 warnings", 1, true) ~= nil })
    assert.equal('{"errors":0,"findings":[],"ok":true,"warnings":0}\n', select(2, check(path)).stdout)
    assert(router:execute_on_all_shards("ALTER TABLE k.good DROP CONSTRAINT good_pkey, ALTER user_id DROP NOT NULL"))
    result = cli.run({ "check", "-c", path, "--exit-code" })
    assert.equal(3, result.code)
    assert.is_truthy(result.stdout:find("warning  keys     shard1, shard2, shard3: k.good.user_id may be NULL", 1, true),
      result.stdout)
    assert.is_truthy(result.stdout:find("\n                  -> ALTER TABLE k.good ALTER COLUMN user_id SET NOT NULL\n", 1, true))
    assert.is_truthy(result.stdout:find("no index of k.good begins with the shard key user_id", 1, true))
    assert.equal(0, cli.run({ "check", "-c", path }).code)
  end)

  it("names the anti-patterns of shard keys", function()
    assert(router:execute_on_all_shards([[
      CREATE TABLE k.few (country text NOT NULL, id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
      INSERT INTO k.few SELECT 'country ' || g % 7 FROM generate_series(1, 600) g;
      CREATE TABLE k.times (at timestamptz NOT NULL, email text);
      CREATE INDEX ON k.times (at);
      ANALYZE k.few]]))
    local plain = check(cluster_file([[
      given.tables["k.few"] = { shard_key = "country", type = "text" }
      given.tables["k.times"] = { shard_key = "at", type = "date" }]]))
    assert.equal("warning", finding(plain, "few.country has about").level)
    assert.matches("^k.few.country has about 7 distinct values in 1800 rows", (finding(plain, "has about").what:gsub(
      "about %d+ distinct", function(text)
        return tonumber(text:match("%d+")) <= 21 and "about 7 distinct" or text -- each shard has the same seven
      end)))
    assert.same({ "shard1", "shard2", "shard3" }, finding(plain, "k.times.at is a time under the strategy hash").shards)
    finding(plain, "k.few.id is counted on each shard for itself")
    plain = check(cluster_file('given.tables["k.times"] = { shard_key = "email", type = "text" }'))
    finding(plain, "times.email is likely to change")
  end)

  it("compares the cluster file with the servers: tables, key columns and types, schemas, passwords in the file", function()
    assert(router:execute_on_all_shards("CREATE TABLE k.one (user_id text PRIMARY KEY)"))
    assert(router:execute_on_all_shards("CREATE TABLE k.two (user_id int8 PRIMARY KEY)", { shard_ids = { "shard1", "shard3" } }))
    local password = sandbox.shared().shards[1].password
    local path = cluster_file(([[
      given.tables["k.one"] = { shard_key = "user_id", type = "int8" }
      given.tables["k.two"] = { shard_key = "usr_id", type = "int8" }
      given.tables["k.three"] = { shard_key = "user_id", type = "int8" }
      given.shards[1].password = %q]]):format(password))
    local plain, result = check(path)
    assert.equal(1, result.code)
    assert.is_false(plain.ok)
    assert.equal("error", finding(plain, "k.one.user_id is declared as int8 and is text on the server").level)
    assert.same({ "error", { "shard2" } }, { finding(plain, "table k.two").level, finding(plain, "table k.two").shards })
    finding(plain, "k.two has no column usr_id")
    assert.equal("warning", finding(plain, "k.three of the cluster file is on no shard").level)
    assert.same({ "shard2" }, finding(plain, "its schema differs from shard1's in 1 place: missing table k.two").shards)
    finding(plain, "gives passwords, and others may read it")
    assert.is_nil((result.stdout .. result.stderr):find(password, 1, true))
  end)

  it("names servers that do not answer and logins that are refused, and checks the others", function()
    assert(router:execute_on_all_shards("CREATE TABLE k.good (user_id int8)"))
    local plain, result = check(cluster_file([[
      given.shards[2].port = 1
      given.shards[3].user = "nobody"
      given.tables["k.good"] = { shard_key = "user_id", type = "int8" }]]))
    assert.equal(1, result.code)
    assert.same({ "shard2" }, finding(plain, "Connection refused").shards)
    local refused = finding(plain, "AUTH")
    assert.same({ "shard3" }, refused.shards)
    assert.matches("pg_hba.conf", refused.remedy)
    assert.same({ "shard1" }, finding(plain, "k.good.user_id may be NULL").shards)
  end)

  it("names rights that are missing and too many", function()
    local server = sandbox.shared().shards[1]
    assert(router:execute_on_all_shards("CREATE TABLE k.mine (user_id int8 PRIMARY KEY)"))
    local plain = check(cluster_file(([[
      given.tables["k.mine"] = { shard_key = "user_id", type = "int8" }
      given.shards[1].user, given.shards[1].password = %q, %q]]):format(server.superuser, server.superuser_password)))
    assert.same({ "shard1" }, finding(plain, "is a superuser").shards)
    assert(router:execute_on_all_shards("REVOKE ALL ON k.mine FROM app", { shard_ids = { "shard2" } }))
    plain = check(cluster_file('given.tables["k.mine"] = { shard_key = "user_id", type = "int8" }'))
    assert.same({ "shard2" }, finding(plain, "SELECT, INSERT, UPDATE, DELETE on k.mine is not granted").shards)
  end)

  it("ends with 2 for a cluster file that is wrong, also as JSON", function()
    local plain, result = check(cluster_file("given.shrads = {}"))
    assert.equal(2, result.code)
    assert.equal("INVALID", plain.error.code)
    assert.matches('"shards"', plain.error.message)
    assert.equal(2, cli.run({ "check", "--shards", "3", "-c", cluster_file() }).code)
  end)
end)
