local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local lock = require("lunashard.lock")
local manual = require("lunashard.cli.manual")
local sandbox = require("spec.support.sandbox")

-- One spec for each line of the table; each asks several commands, for they share it.
describe("exit code", function()
  local dir, path, down, router, manager

  setup(function()
    dir = cli.directory()
    path = sandbox.shared().cluster_file
    down = cli.write(dir, "down.lua", ([[
      local given = dofile(%q)
      given.shards[2].port, given.retries = 1, 0
      return given]]):format(path))
    router, manager = cluster.connect()
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS codes; CREATE TABLE codes (user_id int8)"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS codes, only_here"))
    cluster.release()
    cli.remove_all()
  end)

  local function code_of(argv, file, stdin)
    local result = cli.run(argv, { stdin = stdin, env = { LUNASHARD_CLUSTER = file or path } })
    return result.code, result.stderr
  end

  local function all_end_with(code, lines, file)
    for _, argv in ipairs(lines) do
      local got, stderr = code_of(argv, file, argv.stdin)
      assert.equal(code, got, table.concat(argv, " ") .. "\n" .. stderr)
    end
  end

  it("0 is for what was done", function()
    all_end_with(0, { { "sql", "--shard", "shard1", "SELECT 1" }, { "status" }, { "route", "42" }, { "explain", "--key", "42" },
      { "schema", "diff", "--exit-code" }, { "run", "-", stdin = "return true" }, { "--version" } })
  end)

  it("1 is for what failed", function()
    all_end_with(1, { { "sql", "SELECT nothing FROM nowhere", "--shard", "shard1" }, { "sql", "DELETE FROM codes", "--dry-run" },
      { "run", "-", stdin = "error('no')" }, { "run", "-", stdin = "return nil, 'no'" }, { "sandbox", "status", "--dir", dir } })
  end)

  it("2 is for a command line, a value or a file that cannot be used", function()
    all_end_with(2, { {}, { "sqll", "SELECT 1" }, { "sql" }, { "sql", "--fromat", "csv", "SELECT 1" }, { "route", "x" },
      { "sql", "--all", "TRUNCATE codes", stdin = "" }, { "schema", "apply", dir .. "/none.sql" }, { "run" } })
    all_end_with(2, { { "status" }, { "check" }, { "sql", "SELECT 1" } }, dir .. "/none.lua")
  end)

  it("2 comes with JSON for those who read JSON", function()
    for _, argv in ipairs({ { "status", "--json", "--intervall", "3" }, { "sql", "--json", "--each", "SELECT 1" } }) do
      local result = cli.run(argv)
      assert.equal(2, result.code)
      assert.equal("INVALID", assert(cjson.decode(result.stdout)).error.code)
    end
  end)

  it("3 is for differences, with --exit-code alone", function()
    assert(router:execute_on_all_shards("CREATE TABLE only_here (x int)", { shard_ids = { "shard3" } }))
    local keys = cli.write(dir, "keys", "1\n2\n3\n4\n")
    local earlier = cli.write(dir, "earlier.lua", ('local given = dofile(%q); given.strategy[1] = "rendezvous"; return given')
      :format(path))
    all_end_with(3, { { "schema", "diff", "--exit-code" }, { "check", "--exit-code" },
      { "distribution", "--keys", keys, "--table", "users", "--against", earlier, "--exit-code" } })
    all_end_with(0, { { "schema", "diff" }, { "check" } })
    assert(router:execute_on_all_shards("DROP TABLE only_here", { shard_ids = { "shard3" } }))
  end)

  it("4 is for what failed on some of the shards", function()
    local script = cli.write(dir, "some.sql", "DO $$ BEGIN IF current_database() LIKE '%3' THEN RAISE 'no'; END IF; END $$")
    all_end_with(4, { { "schema", "apply", script }, { "sql", "--all", "COMMENT ON TABLE codes IS 'x'; " .. [[
      DO $$ BEGIN IF current_database() LIKE '%2' THEN RAISE 'no'; END IF; END $$]] } })
    all_end_with(4, { { "status" }, { "schema", "diff" }, { "sql", "SELECT count(*) FROM codes" } }, down)
  end)

  it("5 is for a lock that another run holds", function()
    local held = assert(lock.acquire(manager, "schema"))
    all_end_with(5, { { "run", "--lock", "schema", "-", stdin = "return true" },
      { "schema", "apply", cli.write(dir, "any.sql", "SELECT 1") } })
    held:release()
  end)

  it("130 is for Ctrl-C and 143 for SIGTERM, and the server stops what it was doing", function()
    for signal, code in pairs({ INT = 130, TERM = 143 }) do
      local mark = "SELECT pg_sleep(60), '" .. signal .. "'"
      local child = cli.spawn({ "sql", "--shard", "shard1", mark }, { env = { LUNASHARD_CLUSTER = path } })
      local function runs()
        return assert(router:execute("SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query = $1", { mark },
          { shard_id = "shard1" })).rows[1].n > 0
      end
      cli.wait_until("the statement runs", runs)
      child:signal(signal)
      assert.equal(code, assert(child:wait(20)).code)
      child:close()
      cli.wait_until("the server has stopped it", function()
        return not runs()
      end)
    end
  end)

  it("is described in the manual for each of these", function()
    local codes = {}
    for i, one in ipairs(manual.EXIT_CODES) do
      codes[i] = one[1]
    end
    assert.same({ 0, 1, 2, 3, 4, 5, 130 }, codes)
  end)
end)
