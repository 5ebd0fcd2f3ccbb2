local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local pools = require("lunashard.pool")
local process = require("lunashard.process")
local sandbox = require("spec.support.sandbox")
local system = require("lunashard.core.system")

local PLUGIN = [[
return {
  api = 1,
  kind = "strategy",
  name = "tiers",
  new = function(_, shards) return { shards = shards } end,
  route = function(state, key) return key == 77 and "s3" or state.shards[tonumber(key %% %d) %% %d + 1].shard_id end,
}
]]

local dir

local function cluster(strategy, more)
  return cli.write(dir, "cluster.lua", ([[
return {
  name = "offline",
  shards = {
    { shard_id = "s1", host = "one.invalid", database = "d" },
    { shard_id = "s2", host = "two.invalid", database = "d" },
    { shard_id = "s3", host = "three.invalid", database = "d" },
  },
  strategy = %s,
  tables = {
    users = { shard_key = "user_id", type = "int8" },
    countries = { reference = true },
  },
  %s
}]]):format(strategy or '{ "hash", shard_key = "user_id" }', more or ""))
end

local function distribution(arguments, options)
  return cli.run({ "distribution", unpack(arguments) }, options)
end

local function numbers(from, to)
  local list = {}
  for key = from, to do
    list[#list + 1] = ("%d"):format(key)
  end
  return table.concat(list, "\n") .. "\n"
end

local function decoded(result)
  return assert(cjson.decode(result.stdout), result.stdout)
end

describe("lunashard distribution", function()
  setup(function()
    dir = cli.directory()
  end)

  teardown(function()
    cli.remove_all()
  end)

  it("counts the keys of a file by shard, without any connection", function()
    local keys = cli.write(dir, "keys", numbers(1, 3000))
    local result = distribution({ "-c", cluster(), "--keys", keys })
    assert.equal(0, result.code, result.stderr)
    assert.matches("strategy hash, keys of type int8: 3000 keys from ", result.stdout)
    local sum = 0
    for count in result.stdout:gmatch("\ns%d +(%d+) +3%d%.%d %%") do
      sum = sum + tonumber(count)
    end
    assert.equal(3000, sum)
    assert.matches("balance: %d%.%d%d to 1%.0%d of an even share, deviation %d%.%d %%", result.stdout)
    assert.equal(("lunashard: cluster offline (%s), not connected\n"):format(dir .. "/cluster.lua"), result.stderr)
  end)

  it("says the same in JSON", function()
    local result = distribution({ "-c", cluster(), "--keys", "-", "--json", "--top", "2" }, { stdin = "42\n42\n7\n" })
    assert.equal(0, result.code, result.stderr)
    local report = decoded(result)
    assert.equal(3, report.keys)
    assert.equal(3, #report.shards)
    local hot = report.hot_buckets[1]
    assert.same({ "s1", 2 }, { hot.shard_id, hot.keys })
    assert.is_true(math.abs(hot.share - 2 / 3) < 1e-9 and math.abs(hot.times_mean - 4 / 3) < 1e-9, result.stdout)
    assert.same({ 2, 16386 }, { report.used_buckets, report.buckets })
    assert.truthy(result.stdout:find('"failures":[]', 1, true), result.stdout)
    assert.equal(2, #report.hot_buckets)
  end)

  it("counts keys without a value, names the lines of those without a shard, and ends with 1 for these", function()
    local keys = cli.write(dir, "keys", "1\n\n\\N\nabc\n99999999999999999999\n")
    local result = distribution({ "-c", cluster(), "--keys", keys, "--json" })
    assert.equal(1, result.code)
    assert.matches("2 without a key %(NULL or empty%)", result.stderr)
    assert.matches('keys:4: routing key "abc" is not an int8', result.stderr)
    assert.matches("keys:5: .*out of range", result.stderr)
    local report = decoded(result)
    assert.same({ 1, 2, 2 }, { report.keys, report.null_keys, report.failed_keys })
    result = distribution({ "-c", cluster(), "--keys", cli.write(dir, "keys", "\n1\n") })
    assert.equal(0, result.code, result.stderr)
  end)

  it("reads a column of CSV", function()
    local keys = cli.write(dir, "keys.csv", 'name,user_id\n"a, b",1\nc,2\n')
    assert.equal(2, decoded(distribution({ "-c", cluster(), "--keys", keys, "--column", "user_id", "--json" })).keys)
    local result = distribution({ "-c", cluster(), "--keys", keys, "--column", "usr_id" })
    assert.equal(2, result.code)
    assert.matches('there is no column "usr_id"; did you mean "user_id"?', result.stderr)
    assert.equal(1, decoded(distribution({ "-c", cluster(), "--keys", keys, "--column", "2", "--json" })).failed_keys)
  end)

  it("says which keys have another shard than in an earlier cluster file", function()
    local before = cluster('{ "consistent_hash", shard_key = "user_id" }')
    local old = dir .. "/old.lua"
    assert(os.rename(before, old))
    local keys = cli.write(dir, "keys", numbers(1, 2000))
    local result = distribution({ "-c", cluster(), "--keys", keys, "--against", old, "--exit-code" })
    assert.equal(3, result.code, result.stderr)
    assert.matches("against .*/old%.lua %(strategy consistent_hash%): %d+ of 2000 keys %(6%d%.%d %%%) have another shard",
      result.stdout)
    assert.matches("\ns%d %-> s%d +%d+\n", result.stdout)
    assert.matches("such as %d+: from s%d to s%d", result.stdout)
    local same = decoded(distribution({ "-c", old, "--keys", keys, "--against", old, "--exit-code", "--json" }))
    assert.equal(0, same.against.moved)
  end)

  it("says which keys a version of a plug-in moves, be it a single one", function()
    assert(system.mkdir(dir .. "/plugins", 448))
    assert(system.mkdir(dir .. "/plugins/strategies", 448))
    cli.write(dir, "plugins/strategies/tiers.lua", PLUGIN:format(2, 2))
    local old = cli.write(dir, "tiers_before.lua", (PLUGIN:format(2, 2):gsub("77", "78")))
    local path = cluster('{ "tiers", shard_key = "user_id" }', 'plugins = "plugins",')
    local keys = cli.write(dir, "keys", numbers(1, 1000))
    local report = decoded(distribution({ "-c", path, "--keys", keys, "--against", old, "--json" }))
    assert.equal(2, report.against.moved)
    assert.equal(1000, report.against.compared)
    assert.equal("tiers", report.against.strategy)
    assert.same({ key = "77", from = "s2", to = "s3" }, report.against.examples[1])
    -- An earlier copy of all of it, whose plug-in has the same name.
    assert(system.mkdir(dir .. "/before", 448))
    assert(system.mkdir(dir .. "/before/strategies", 448))
    cli.write(dir, "before/strategies/tiers.lua", (PLUGIN:format(2, 2):gsub("77", "79")))
    assert(os.rename(cluster('{ "tiers", shard_key = "user_id" }', 'plugins = "before",'), dir .. "/before.lua"))
    path = cluster('{ "tiers", shard_key = "user_id" }', 'plugins = "plugins",')
    local result = distribution({ "-c", path, "--keys", keys, "--against", dir .. "/before.lua", "--json" })
    assert.equal(2, decoded(result).against.moved, result.stderr)
    for _, case in ipairs({
      { "return { api = 1, kind = 'strategy', name = 'tiers' }\n", "broken%.lua:1: strategy tiers: new: expected a function" },
      { "return {\n kind = 'strategy'\n", "broken%.lua:3: " },
      { "error('kind = \"strategy\"')", "broken%.lua:1: " },
      { PLUGIN:format(2, 2):gsub("state%.shards.-end", "(function() while true do end end)() end"), "ran longer than" },
      { PLUGIN:format(2, 2):gsub("tiers", "hash"), "is a shipped one" },
    }) do
      local broken = cli.write(dir, "broken.lua", case[1])
      result = distribution({ "-c", path, "--keys", keys, "--against", broken })
      assert.equal(2, result.code, result.stderr)
      assert.matches(case[2], result.stderr)
      assert.equal("", result.stdout)
    end
  end)

  it("refuses what it cannot count, in one line, and in JSON too", function()
    for _, case in ipairs({
      { { "--keys", dir .. "/nothing" }, "nothing: No such file or directory" },
      { { "--keys", dir }, "Is a directory" },
      { { "--keys", "/dev/null" }, "/dev/null holds no keys" },
      { { "--keys", "/dev/null", "--table", "user" }, 'unknown table "user" of tables; did you mean "users"?' },
      { { "--table", "countries" }, "countries is a reference table" },
      { { "--keys", "/dev/null", "--against", dir .. "/nothing.lua" }, "nothing.lua" },
    }) do
      table.insert(case[1], "--json")
      local result = distribution({ "-c", cluster(), unpack(case[1]) })
      assert.equal(2, result.code, result.stderr)
      assert.is_truthy(result.stderr:find(case[2], 1, true), result.stderr)
      assert.is_truthy(decoded(result).error.message:find(case[2], 1, true), result.stdout)
    end
    for _, case in ipairs({
      { { "-c", cluster() }, "say which keys" },
      { { "--keys", "-" }, "give the cluster's file" },
      { { "-c", cluster(), "--table", "users", "--column", "x" }, "--column goes with --keys" },
      { { "-c", cluster(), "--keys", "-", "--column", "a,,b" }, "--column: expected a column's name" },
      { { "-c", cluster(), "--keys", "-", "--top", "x" }, "is not a whole number" },
      { { "-c", cluster(), "--kyes", "-" }, "kyes" },
    }) do
      local result = distribution(case[1])
      assert.equal(2, result.code)
      assert.equal("", result.stdout)
      assert.is_truthy(result.stderr:find(case[2], 1, true), result.stderr)
    end
    assert.equal(0, distribution({ "--help" }).code)
  end)

  it("ends with a signal while it waits for keys, quietly", function()
    local child = assert(process.spawn({
      argv = { "/bin/sh", "-c", [[
        mkfifo "$1/pipe"
        sleep 60 >"$1/pipe" 2>/dev/null &
        exec "$0" distribution -c "$2" --keys "$1/pipe"
        ]], cli.binary, dir, cluster() },
    }))
    cli.wait_until("it reads", function()
      return select(2, child:output()):find("not connected", 1, true)
    end)
    child:signal("INT")
    local result = child:wait(20)
    child:kill()
    child:close()
    assert.equal(130, assert(result).code)
    assert.is_nil(result.stderr:find("traceback", 1, true), result.stderr)
  end)

  it("needs no more memory for ten times the keys", function()
    local measure = cli.write(dir, "measure.lua", [[
      local command = require("lunashard.cli.distribution")
      local code = command.run({ cluster = arg[1], keys = arg[2], json = true })
      local status = io.open("/proc/self/status"):read("*a")
      io.stderr:write("peak ", status:match("VmHWM:%s*(%d+)"), "\n")
      return code == 0
    ]])
    local function peak(n)
      local keys = cli.write(dir, "keys", numbers(10000000, 10000000 + n))
      local result = cli.run({ "run", measure, cluster(), keys })
      assert.equal(0, result.code, result.stderr)
      return tonumber(result.stderr:match("peak (%d+)"))
    end
    local small, large = peak(50000), peak(500000)
    assert.is_true(large - small < 8192, ("%d kB, then %d kB"):format(small, large))
  end)

  describe("of a table", function()
    local servers, tables

    local function on_shard(number, sql)
      local server = servers.shards[number]
      local pool = pools.new({ host = server.host, port = server.port, database = server.database, user = server.user,
        password = server.password })
      local result, err = pool:execute(sql)
      pool:close()
      return assert(result, tostring(err))
    end

    setup(function()
      servers = sandbox.shared()
      tables = 'tables = { ["distribution_spec.rows"] = { shard_key = "Key", type = "int8" } }'
      for number = 1, 3 do
        on_shard(number, "DROP SCHEMA IF EXISTS distribution_spec CASCADE")
        on_shard(number, "CREATE SCHEMA distribution_spec")
        on_shard(number, 'CREATE TABLE distribution_spec.rows ("Key" int8)')
      end
      local content = ('local options = assert(loadfile(%q))()\noptions.%s\nreturn options\n'):format(servers.cluster_file,
        tables)
      cli.write(dir, "table.lua", content)
      cli.write(dir, "load.lua", [[
        local rows = {}
        for key = 1, 900 do
          rows[key] = { key }
        end
        assert(router:copy_in("distribution_spec.rows", { "Key" }, rows))
      ]])
      local loaded = cli.run({ "run", "-c", dir .. "/table.lua", dir .. "/load.lua" })
      assert.equal(0, loaded.code, loaded.stderr)
    end)

    teardown(function()
      for number = 1, 3 do
        on_shard(number, "DROP SCHEMA IF EXISTS distribution_spec CASCADE")
      end
      sandbox.release()
    end)

    local function of_table(...)
      return distribution({ "-c", dir .. "/table.lua", "--table", "distribution_spec.rows", ... })
    end

    it("counts the rows on each shard, and finds none on the wrong one", function()
      local result = of_table("--json", "--exit-code")
      assert.equal(0, result.code, result.stderr)
      local report = decoded(result)
      assert.equal(900, report.keys)
      assert.equal(0, report.misplaced)
      for number, shard in ipairs(report.shards) do
        local counted = on_shard(number, "SELECT count(*)::int8 AS n FROM distribution_spec.rows").rows[1].n
        assert.same({ counted, counted }, { shard.rows, shard.keys })
      end
    end)

    it("names rows that are on another shard than their key's, and rows without a key", function()
      on_shard(2, "INSERT INTO distribution_spec.rows VALUES (42), (NULL)") -- 42 belongs to shard1
      local result = of_table("--exit-code")
      assert.equal(3, result.code, result.stderr)
      assert.matches("\nshard2 .* 1 %(0%.3 %%%)\n", result.stdout)
      assert.matches("such as 42: on shard2, belongs to shard1", result.stdout)
      assert.matches("1 without a key", result.stderr)
      on_shard(2, 'DELETE FROM distribution_spec.rows WHERE "Key" = 42 OR "Key" IS NULL')
      assert.equal(0, of_table("--exit-code").code)
    end)

    it("counts what can be read when a shard cannot, and ends with 4", function()
      on_shard(3, "ALTER TABLE distribution_spec.rows RENAME TO others")
      local result = of_table("--json")
      on_shard(3, "ALTER TABLE distribution_spec.others RENAME TO rows")
      assert.equal(4, result.code, result.stderr)
      local report = decoded(result)
      assert.equal("shard3", report.failed[1].shard_id)
      assert.is_true(report.keys > 500)
      assert.matches("1 of 3 shards could not be read", result.stderr)
    end)

    it("refuses a table that is not there", function()
      local result = distribution({ "-c", dir .. "/table.lua", "--table", "distribution_spec.row" })
      assert.equal(2, result.code)
      assert.matches('did you mean "distribution_spec.rows"', result.stderr)
    end)
  end)
end)
