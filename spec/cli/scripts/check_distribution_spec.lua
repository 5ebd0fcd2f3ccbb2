local scripts = require("spec.support.scripts")

describe("scripts/check_distribution.lua", function()
  local router, cluster

  setup(function()
    local manager
    router, manager = scripts.connect()
    assert(router:execute_on_all_shards([[
      DROP TABLE IF EXISTS ops_even, ops_skewed;
      CREATE TABLE ops_even (user_id int8 PRIMARY KEY);
      CREATE TABLE ops_skewed (user_id int8, n int8)]]))
    local even, skewed = {}, {}
    for i = 1, 600 do
      even[i], skewed[i] = { i }, { i <= 200 and 4711 or i, i }
    end
    assert(router:execute_many("INSERT INTO ops_even VALUES ($1)", even, { key = 1 }))
    assert(router:execute_many("INSERT INTO ops_skewed VALUES ($1, $2)", skewed, { key = 1 }))
    assert(manager)
    cluster = scripts.cluster_file({ lines = [[tables = {
      ops_even = { shard_key = "user_id", type = "int8" },
      ops_skewed = { shard_key = "user_id", type = "int8" },
      ops_countries = { reference = true },
    }]] })
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE ops_even, ops_skewed"))
    scripts.release()
  end)

  it("says what share each shard has of each table, and which key makes one of them large", function()
    local result = scripts.run("check_distribution", { "--exact", "--hot", "1", "--exit-code", "--json" }, { cluster = cluster })
    assert.equal(3, result.code, result.stderr)
    local rows, sum = result.json.result.tables, 0
    assert.equal(6, #rows)
    for i = 1, 3 do
      assert.equal("ops_even", rows[i].table)
      assert.is_true(rows[i].times_even > 0.8 and rows[i].times_even < 1.2 and rows[i].bytes > 0)
      sum = sum + rows[i].rows
    end
    assert.equal(600, sum)
    local hottest
    for _, row in ipairs(result.json.result.hot_keys) do
      hottest = hottest or row.table == "ops_skewed" and row or nil
    end
    assert.same({ "4711", 200 }, { hottest.key, hottest.rows })
    assert.matches(("ops_skewed: %s has 1%%.%%d+ times its share of the rows"):format(hottest.shard), result.stderr)
    assert.matches("lunashard distribution .* %-%-table ops_skewed$", result.json.next)
  end)

  it("takes the servers' estimates when it may not read the tables", function()
    assert(router:execute_on_all_shards("ANALYZE ops_even"))
    local result = scripts.run("check_distribution", { "--table", "ops_even", "--exit-code" }, { cluster = cluster })
    assert.equal(0, result.code, result.stderr)
    assert.matches("ops_even | shard1 | +%d%d%d | +3%d", result.stdout)
  end)

  it("refuses tables that there are not, and those that every shard has", function()
    local result = scripts.run("check_distribution", { "--table", "ops_evn" }, { cluster = cluster })
    assert.equal(2, result.code)
    assert.matches("there is no table ops_evn on shard1; did you mean ops_even%?", result.stderr)
    result = scripts.run("check_distribution", { "--table", "ops_countries" }, { cluster = cluster })
    assert.equal(2, result.code)
    assert.matches("ops_countries is a reference table", result.stderr)
  end)
end)
