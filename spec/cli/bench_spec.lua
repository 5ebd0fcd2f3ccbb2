local cjson = require("cjson")
local cli = require("spec.support.cli")
local process = require("lunashard.process")

local MAIN = "scripts/dev/bench/main.lua"

-- Every line of the table that was promised: what is measured against whom.
local ROWS = {
  "reads32", "reads32_asyncpg", "reads32_bare", "cpu32", "p99_32", "reads128", "reads128_syncs",
  "reads128_syncs_bare", "reads128_pgbouncer", "inserts128", "scatter3", "scatter16", "count_plproxy", "count_fdw",
  "stream_fdw", "stream_asyncpg", "stream_bare", "stream_memory", "load_psql", "load_asyncpg", "load_asyncpg_routed",
  "route_c_16", "route_c_256", "route_lua_16", "route_lua_256", "idle",
}

local function bench(...)
  return cli.run({ "run", MAIN, ... })
end

describe("the benchmarks", function()
  after_each(cli.remove_all)

  it("name every row, in the list and in the help", function()
    for _, flag in ipairs({ "--list", "--help" }) do
      local result = bench(flag)
      assert.equal(0, result.code, result.stderr)
      for _, name in ipairs(ROWS) do
        assert.truthy((" " .. result.stdout:gsub("%s", " ")):find(" " .. name .. " ", 1, true), flag .. ": " .. name)
      end
    end
  end)

  it("run only what is asked for, print a table, write all figures as JSON, and show them again", function()
    local path = cli.directory() .. "/figures.json"
    local result = bench("--only", "idle", "--rounds", "3", "--seconds", "1", "--json", path)
    assert.equal(0, result.code, result.stderr)
    assert.truthy(result.stdout:find("holds", 1, true))
    assert.truthy(result.stdout:find("of a task that waits", 1, true))
    assert.falsy(result.stdout:find("point reads", 1, true))
    local file = assert(io.open(path))
    local run = cjson.decode(file:read("*a"))
    file:close()
    assert.equal(1, #run.rows)
    local row = run.rows[1]
    assert.equal("idle", row.name)
    assert.equal(3, #run.figures.idle.ours)
    assert.is_true(row.ours.min <= row.ours.median and row.ours.median <= row.ours.max)
    assert.is_boolean(row.holds)
    local shown = bench("--show", "--json", path)
    assert.equal(result.stdout, shown.stdout)
    local markdown = bench("--show", "--markdown", "--json", path)
    assert.truthy(markdown.stdout:find("\n|---|", 1, true))
  end)

  it("stop their servers and remove them when they are interrupted", function()
    local run = assert(process.spawn({
      argv = { "scripts/dev/bench.sh", cli.binary, "--only", "scatter3", "--rounds", "100" },
      env = { LUNASHARD_CLUSTER = false },
    }))
    cli.wait_until("it measures", function()
      local _, stderr = run:output()
      return stderr:find("round 2 of", 1, true)
    end, 60)
    local name = ("bench-%d"):format(run.pid)
    local status = cli.run({ "sandbox", "status", "--json", "--name", name })
    assert.equal(3, #cjson.decode(status.stdout).servers)
    run:signal("TERM")
    local result = assert(run:wait(60))
    assert.equal(143, result.code)
    assert.truthy(result.stderr:find("interrupted", 1, true), result.stderr)
    for _, server in ipairs(cjson.decode(status.stdout).servers) do
      assert.is_false(process.is_alive(server.pid))
    end
    assert.equal(1, cli.run({ "sandbox", "status", "--name", name }).code)
  end)

  it("refuse a name that is none, with the nearest, before anything is started", function()
    local result = bench("--only", "idel")
    assert.equal(2, result.code)
    assert.equal('bench: there is no benchmark "idel"; did you mean idle?\n', result.stderr)
    assert.equal("", result.stdout)
  end)
end)
