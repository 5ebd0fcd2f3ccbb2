local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local sandbox = require("spec.support.sandbox")

describe("lunashard sql", function()
  local dir, path, production, router

  -- A cluster file of the sandbox's shards with a table of this file's own.
  local function cluster_file(name, more)
    return cli.write(dir, name, ([[
      local given = dofile(%q)
      given.name, given.tables = "shop", { q_users = { shard_key = "user_id", type = "int8" } }
      %s
      return given]]):format(sandbox.shared().cluster_file, more or ""))
  end

  setup(function()
    dir = cli.directory()
    path = cluster_file("cluster.lua")
    production = cluster_file("production.lua", 'given.environment = "production"')
    router = cluster.connect({ tables = { q_users = { shard_key = "user_id", type = "int8" } } })
    assert(router:execute_on_all_shards([[DROP TABLE IF EXISTS q_users; CREATE TABLE q_users (user_id int8 PRIMARY KEY,
      name text, big int8, price numeric(9,2), raw bytea, list int[], doc jsonb)]]))
    assert(router:execute([[INSERT INTO q_users (user_id, name, big, price, raw, list, doc) VALUES
      (1, 'Ada "the first", ok', 9007199254740993, 1.50, '\x00ff', '{1,NULL,3}', '{"a": [1]}'),
      (2, '', NULL, NULL, NULL, NULL, NULL),
      (3, NULL, 7, 0, NULL, '{}', 'null')]]))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS q_users"))
    cluster.release()
    cli.remove_all()
  end)

  local function sql(arguments, options)
    local argv = { "sql", "-c", options and options.file or path }
    for _, argument in ipairs(arguments) do
      argv[#argv + 1] = argument
    end
    return cli.run(argv, { stdin = options and options.stdin })
  end

  local function ok(arguments, options)
    local result = sql(arguments, options)
    assert.equal(0, result.code, result.stderr)
    return result.stdout, result.stderr
  end

  it("shows the rows of the shard whose key the statement names, and says on stderr where they are from", function()
    local stdout, stderr = ok({ "SELECT user_id, big FROM q_users WHERE user_id = 1" })
    assert.equal(" user_id |       big\n---------+------------------\n       1 | 9007199254740993\n", stdout)
    assert.matches("^lunashard: cluster shop %(.-%)\nlunashard: sql: 1 row from shard%d in [%d.]+ ms\n$", stderr)
  end)

  it("merges what all shards answer, and takes parameters and stdin", function()
    assert.equal("user_id\n3\n2\n", ok({ "--format", "csv", "-", "--param", "1" },
      { stdin = "SELECT user_id FROM q_users WHERE user_id > $1 ORDER BY 1 DESC" }))
    assert.equal("count\n3\n", ok({ "--format", "csv", "SELECT count(*) FROM q_users" }))
  end)

  it("writes CSV that tells NULL from an empty text", function()
    assert.equal([[user_id,name,big,price,raw,list,doc
1,"Ada ""the first"", ok",9007199254740993,1.50,\x00ff,"{1,NULL,3}","{""a"": [1]}"
2,"",,,,,
3,,7,0.00,,{},null
]], ok({ "--format", "csv", "SELECT * FROM q_users ORDER BY user_id" }))
  end)

  it("writes JSON in which no digit is lost and fields keep their order", function()
    local stdout = ok({ "--json", "SELECT user_id, big, price, raw, list, name FROM q_users ORDER BY 1" })
    assert.is_truthy(stdout:find([[{"user_id":1,"big":"9007199254740993","price":"1.50","raw":"\\x00ff","list":[1,null,3],]],
      1, true), stdout)
    assert.is_truthy(stdout:find('"list":null,"name":""}', 1, true), stdout)
    local plain = assert(cjson.decode(stdout))
    assert.same({ "SELECT", 3, { "shard1", "shard2", "shard3" } }, { plain.command, plain.row_count, plain.shards })
    assert.equal('{"user_id":3,"list":[]}\n', ok({ "--format", "jsonl", "SELECT user_id, list FROM q_users WHERE user_id = 3" }))
  end)

  it("names each shard with --each, and asks one with --key or --shard", function()
    assert.equal("shard,d\nshard1,app_shard1\nshard2,app_shard2\nshard3,app_shard3\n",
      ok({ "--all", "--each", "--format", "csv", "SELECT current_database() AS d" }))
    assert.equal("d\napp_shard2\n", ok({ "--shard", "shard2", "--format", "csv", "SELECT current_database() AS d" }))
    local owner = router.manager:get_shard_for_write(3).database
    assert.equal("d\n" .. owner .. "\n", ok({ "--key", "3", "--format", "csv", "SELECT current_database() AS d" }))
  end)

  it("takes any number of rows from one shard, or from each, as CSV and lines of JSON", function()
    local stdout, stderr = ok({ "--shard", "shard2", "--format", "csv", "SELECT g, NULL AS n FROM generate_series(1, 1200) g" })
    assert.equal(1201, select(2, stdout:gsub("\n", "")))
    assert.matches("^g,n\n1,\n.*\n1200,\n$", stdout)
    assert.matches("sql: 1200 rows in", stderr)
    assert.equal('{"shard":"shard1","g":1}\n{"shard":"shard2","g":1}\n{"shard":"shard3","g":1}\n',
      ok({ "--all", "--each", "--format", "jsonl", "SELECT 1 AS g" }))
    assert.equal("shard,g\n", ok({ "--all", "--each", "--format", "csv", "SELECT 1 AS g WHERE false" }))
    local result = sql({ "--shard", "shard1", "--format", "csv", "SELECT 10 / (5 - g) FROM generate_series(1, 9) g" })
    assert.equal(1, result.code)
    assert.matches("division by zero", result.stderr)
  end)

  it("does what is no query on all shards with --all, and says what was done", function()
    local stdout, stderr = ok({ "--all", "COMMENT ON TABLE q_users IS 'one'; COMMENT ON TABLE q_users IS 'two'" })
    assert.equal("", stdout)
    assert.matches("from shard1, shard2, shard3", stderr)
    stderr = select(2, ok({ "INSERT INTO q_users (user_id, name) VALUES (11, 'x'), (12, 'y')" }))
    assert.matches("sql: INSERT 2 from shard", stderr)
    stderr = select(2, ok({ "--all", "DELETE FROM q_users WHERE user_id > 10" }))
    assert.matches("sql: DELETE 2 from shard1, shard2, shard3", stderr)
  end)

  it("asks before rows are lost, and on production before every write", function()
    local result = sql({ "--all", "DELETE FROM q_users" }, { stdin = "" })
    assert.equal(2, result.code)
    assert.is_truthy(result.stderr:find('this would destroy all rows of q_users on the cluster "shop": say so with --yes shop',
      1, true), result.stderr)
    result = sql({ "UPDATE q_users SET name = 'z' WHERE user_id = 3" }, { stdin = "", file = production })
    assert.equal(2, result.code)
    assert.matches('the production cluster "shop": say so with %-%-yes shop', result.stderr)
    ok({ "UPDATE q_users SET name = NULL WHERE user_id = 3", "--yes", "shop" }, { file = production })
    ok({ "SELECT 1 FROM q_users WHERE user_id = 3" }, { file = production })
    result = sql({ "UPDATE q_users SET name = 'z' WHERE user_id = 3", "--yes", "staging" }, { file = production })
    assert.equal(2, result.code)
    assert.equal("count\n3\n", ok({ "--format", "csv", "SELECT count(*) FROM q_users" }))
  end)

  it("sends nothing in a dry run", function()
    local stdout, stderr = ok({ "--dry-run", "DELETE FROM q_users WHERE user_id = 3" })
    assert.matches("statement: write %(DELETE%).*because:", stdout)
    assert.matches("not connected.*nothing was sent", stderr)
    assert.equal("count\n3\n", ok({ "--format", "csv", "SELECT count(*) FROM q_users" }))
  end)

  it("points at the place of an error, names the nearest table and column, and is JSON on failure too", function()
    local result = sql({ "SELECT user_id\nFROM q_users WHRE user_id = 1" })
    assert.equal(1, result.code)
    assert.matches("\n  FROM q_users WHRE user_id = 1\n                    ^\n", result.stderr, 1, true)
    result = sql({ "SELECT * FROM q_user WHERE user_id = 1", "--shard", "shard1" })
    assert.matches('did you mean "q_users"?', result.stderr, 1, true)
    result = sql({ "SELECT prize FROM q_users WHERE user_id = 1", "--json" })
    assert.matches('reference the column "q_users.price"', result.stderr, 1, true) -- the server's own hint
    local plain = assert(cjson.decode(result.stdout))
    assert.same({ "SQL", "42703", 8 }, { plain.error.code, plain.error.sqlstate, plain.error.position })
    result = sql({ "--shard", "shrad2", "SELECT 1" })
    assert.equal(1, result.code)
    assert.matches('there is no shard shrad2, did you mean "shard2"%?', result.stderr)
  end)

  it("refuses arguments that contradict one another", function()
    for _, case in ipairs({ { { "--key", "1", "--all", "SELECT 1" }, "exclude one another" }, { { "  " }, "is empty" },
      { { "--each", "SELECT 1" }, "--each goes with --all" }, { { "--table", "q_users", "SELECT 1" }, "--table says" },
      { { "--format", "csv", "SELECT 1", "--json" }, "give one of them" }, { { "-" }, "no statement on stdin" },
      { { "--format", "xml", "SELECT 1" }, "'table', 'csv', 'json', 'jsonl'" } }) do
      local result = sql(case[1])
      assert.equal(2, result.code, case[2])
      assert.equal(case[1][4] == "--json", result.stdout ~= "") -- the same as JSON
      assert.is_truthy(result.stderr:find(case[2], 1, true), result.stderr)
    end
  end)
end)
