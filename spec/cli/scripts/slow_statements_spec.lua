local lunashard = require("lunashard")
local scripts = require("spec.support.scripts")

describe("scripts/slow_statements.lua", function()
  local router

  setup(function()
    router = scripts.connect()
  end)

  teardown(scripts.release)

  it("sees what runs on which shard, without values, as one statement", function()
    local tasks = {}
    for i, seconds in ipairs({ 4.25, 4.5 }) do
      tasks[i] = lunashard.spawn(function()
        return router:execute("SELECT pg_sleep(" .. seconds .. "), 'ops_slow'", nil, { shard_id = "shard2", timeout = 10 })
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

  it("ends with 2 for what is no number", function()
    local result = scripts.run("slow_statements", { "--top", "many" })
    assert.equal(2, result.code)
    assert.matches('expected a whole number from 1, got "many"', result.stderr)
  end)
end)
