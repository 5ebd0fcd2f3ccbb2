local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")
local support = require("spec.support.catalog")

local FILE = [[
local options = dofile(%q)
options.name = "catalogued"
options.strategy = { "range", shard_key = "id", ranges = {
  shard1 = { { nil, 99 }, { 300, 399 } }, shard2 = { { 100, 199 }, { 400, 499 } }, shard3 = { { 200, 299 }, { 500 } } } }
options.tables = { cat_accounts = { shard_key = "id", type = "int8" } }
return options
]]

describe("lunashard cluster", function()
  local path

  setup(function()
    support.fill(600)
    path = cli.write(cli.directory(), "cluster.lua", FILE:format(sandbox.shared().cluster_file))
  end)

  teardown(function()
    cli.remove_all()
    support.release()
  end)

  local function run(...)
    return cli.run({ "cluster", (...), "-c", path, select(2, ...) })
  end

  it("has no status without a catalog, in JSON too, and says how to get one", function()
    local result = run("status", "--json")
    assert.equal(2, result.code)
    assert.equal("INVALID", cjson.decode(result.stdout).error.code)
    assert.truthy(result.stderr:find("run `lunashard cluster init`", 1, true))
  end)

  it("installs a catalog, shows it, finds what is misplaced and goes away again", function()
    local result = run("init", "--dry-run")
    assert.equal(0, result.code)
    assert.truthy(result.stderr:find("would record 6 buckets of the group int8 (cat_accounts)", 1, true))
    assert.truthy(result.stderr:find("a dry run: nothing was changed", 1, true))
    result = run("init", "--json")
    assert.equal(0, result.code, result.stderr)
    local said = cjson.decode(result.stdout)
    assert.is_true(said.changed)
    assert.equal(600, said.verified.rows)
    result = run("status")
    assert.equal(0, result.code)
    assert.truthy(result.stdout:find("cluster catalogued (" .. said.cluster .. "): map 1, guards off", 1, true))
    assert.truthy(result.stdout:find("int8  | range    |       6 | cat_accounts", 1, true))
    local pool = support.install().by_id.shard2.primary.pool
    assert(pool:execute("INSERT INTO cat_accounts VALUES (1, 'astray')"))
    result = run("verify", "--exit-code")
    assert.equal(3, result.code)
    assert.truthy(result.stderr:find("cat_accounts: 1 rows on shard2 belong to shard1, in 1 buckets (..99)", 1, true))
    assert.truthy(result.stderr:find('on shard1: COPY "cat_accounts" FROM STDIN', 1, true))
    assert(pool:execute("DELETE FROM cat_accounts WHERE id = 1"))
    result = run("verify", "--exit-code", "--json")
    assert.equal(0, result.code)
    assert.truthy(result.stdout:find('"ownership":[]', 1, true), result.stdout)
    assert.truthy(result.stdout:find('"misplaced":[]', 1, true), result.stdout)
    assert.truthy(run("status", "--json").stdout:find('"jobs":[]', 1, true))
    result = run("remove")
    assert.equal(2, result.code)
    assert.truthy(result.stderr:find("say so with --yes catalogued", 1, true))
    assert.equal(0, run("remove", "--yes", "catalogued").code)
    assert.equal(2, run("verify").code)
  end)

  it("is left by programs that end without a lease that others would wait for", function()
    assert.equal(0, run("init").code)
    local pool = support.install().by_id.shard1.primary.pool
    local script = cli.write(cli.directory(), "routes.lua", [[
      assert(router:execute("SELECT name FROM cat_accounts WHERE id = $1", { 7 }))
      local rows = assert(router:execute("SELECT count(*) AS n FROM lunashard_catalog.router", nil, { shard_id = "shard1" })).rows
      print(rows[1].n)
      if arg[2] then assert(io.open(arg[2], "w")):close() end
      if arg[1] == "raise" then error("as asked") elseif arg[1] == "exit" then os.exit(7) end
      if arg[1] == "stop" then lunashard.sleep(60) end]])
    for what, code in pairs({ well = 0, raise = 1, exit = 7, stop = 130 }) do
      local sign = cli.directory() .. "/runs"
      local command = { "run", "-c", path, script, what, sign }
      local result
      if what == "stop" then
        local running = cli.spawn(command)
        cli.wait_until("it has its lease and runs", function()
          return io.open(sign)
        end)
        running:signal("INT")
        result = assert(running:wait(20))
        running:close()
      else
        result = cli.run(command)
      end
      assert.equal(code, result.code, result.stderr)
      assert.truthy(what == "stop" or result.stdout == "1\n", result.stdout)
      assert.equal(0, assert(pool:execute("SELECT count(*) AS n FROM lunashard_catalog.router")).rows[1].n, what)
    end
    assert.equal(0, run("remove", "--yes", "catalogued").code)
  end)

  it("knows its actions and options", function()
    local result = cli.run({ "cluster", "iinit", "-c", path })
    assert.equal(2, result.code)
    assert.truthy(result.stderr:find("init", 1, true))
    assert.equal(2, cli.run({ "cluster", "init", "--dry", "-c", path }).code)
  end)
end)
