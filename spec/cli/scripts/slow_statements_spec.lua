local cli = require("spec.support.cli")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")
local scripts = require("spec.support.scripts")

describe("scripts/slow_statements.lua", function()
  local router

  setup(function()
    router = scripts.connect()
  end)

  teardown(scripts.release)

  it("sees what runs on which shard, without values, as one statement", function()
    local tasks = {}
    for i, seconds in ipairs({ 30.25, 30.5 }) do
      tasks[i] = lunashard.spawn(function()
        return router:execute("SELECT pg_sleep(" .. seconds .. "), 'ops_slow'", nil, { shard_id = "shard2", timeout = 60 })
      end)
    end
    local result = scripts.run("slow_statements", { "--sample", "0.8", "--json" })
    assert.equal(0, result.code, result.stderr)
    local first = result.json.result.statements[1]
    assert.equal("SELECT pg_sleep(?), ?", first.statement)
    assert.same({ 2, "shard2" }, { first.calls, first.most_on })
    assert.is_true(first.seconds > 1 and first.longest_ms > 500)
    local none = scripts.run("slow_statements", { "--sample", "0.2", "--longer", "3000", "--exit-code" })
    assert.equal(0, none.code)
    assert.equal("", none.stdout)
    for _, task in ipairs(tasks) do
      task:cancel()
      task:join(10)
    end
  end)

  it("asks the shards that are there when one is down", function()
    local result = scripts.run("slow_statements", { "--sample", "0.1", "--json" },
      { cluster = scripts.cluster_file({ down = 2 }) })
    assert.same({ 4, 2, 1 }, { result.code, result.json.counts.ok, result.json.counts.unreachable })
    assert.equal("sampled", result.json.shards[1].detail.source)
  end)

  it("asks pg_stat_statements where that is loaded #long", function()
    local own = sandbox.start({ shards = 1 })
    local admin = cli.write(cli.directory(), "admin.lua", ([[
      local options = dofile(%q)
      options.shards[1].user, options.shards[1].passfile = "postgres", %q
      return options]]):format(own.cluster_file, own.passfile))
    local superuser, manager = scripts.connect(admin)
    assert(superuser:execute_on_all_shards("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'"))
    manager:shutdown()
    own:stop()
    own:start()
    superuser, manager = scripts.connect(admin)
    assert(superuser:execute_on_all_shards("CREATE EXTENSION pg_stat_statements"))
    for i = 1, 20 do
      assert(superuser:execute("SELECT pg_sleep(0.01), " .. i .. " AS own", nil, { shard_id = "shard1" }))
    end
    manager:shutdown()
    local result = scripts.run("slow_statements", { "--json" }, { cluster = own.cluster_file })
    own:destroy()
    assert.equal(0, result.code, result.stderr)
    assert.equal("pg_stat_statements", result.json.shards[1].detail.source)
    local found
    for _, one in ipairs(result.json.result.statements) do
      found = one.statement == "SELECT pg_sleep(?), ? AS own" and one or found
    end
    assert.equal(20, found.calls)
    assert.is_true(found.seconds >= 0.2 and found.mean_ms >= 10)
  end)

  it("ends with 2 for what is no number", function()
    local result = scripts.run("slow_statements", { "--top", "many" })
    assert.equal(2, result.code)
    assert.matches('expected a whole number from 1, got "many"', result.stderr)
  end)
end)
