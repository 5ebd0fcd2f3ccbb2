local cli = require("spec.support.cli")
local scripts = require("spec.support.scripts")
local system = require("lunashard.core.system")

local TABLES = [[tables = {
  ops_placed = { shard_key = "user_id", type = "int8" },
  ops_same = { reference = true },
}]]

describe("scripts/verify_placement.lua", function()
  local router, cluster, dir

  setup(function()
    router = scripts.connect()
    assert(router:execute_on_all_shards([[
      DROP TABLE IF EXISTS ops_placed, ops_same;
      CREATE TABLE ops_placed (user_id int8, n int8);
      CREATE TABLE ops_same (code text PRIMARY KEY, name text);
      INSERT INTO ops_same VALUES ('de', 'Germany'), ('fr', 'France')]]))
    local rows = {}
    for i = 1, 300 do
      rows[i] = { i, i }
    end
    assert(router:execute_many("INSERT INTO ops_placed VALUES ($1, $2)", rows, { key = 1 }))
    cluster, dir = scripts.cluster_file({ lines = TABLES }), cli.directory()
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE ops_placed, ops_same"))
    scripts.release()
  end)

  local function verify(arguments, options)
    return scripts.run("verify_placement", arguments, options or { cluster = cluster })
  end

  it("finds nothing where all is well", function()
    local result = verify({ "--json", "--exit-code" })
    assert.equal(0, result.code, result.stderr)
    local sum = 0
    for _, row in ipairs(result.json.result.tables) do
      sum = sum + row.rows
      assert.equal(0, row.misplaced + row.without_key)
    end
    assert.equal(300, sum)
    assert.is_true(result.json.result.reference_tables[3].same)
  end)

  it("finds rows on the wrong shard, writes their keys, and finds reference tables that differ", function()
    local _, manager = scripts.connect()
    local owner = manager:get_shard_for_write(42).shard_id
    local wrong = owner == "shard1" and "shard2" or "shard1"
    assert(router:execute("INSERT INTO ops_placed VALUES (42, 0), (NULL, 0)", nil, { shard_id = wrong }))
    assert(router:execute("UPDATE ops_same SET name = 'Gaul' WHERE code = 'fr'", nil, { shard_id = "shard3" }))
    local result = verify({ "--exit-code", "--output", dir .. "/misplaced.csv" })
    assert.equal(3, result.code, result.stderr)
    assert.matches(("ops_placed | %s | +%%d+ | +1 | +1 | 42 belongs to %s"):format(wrong, owner), result.stdout)
    assert.matches("ops_same | shard3 | +2 | false", result.stdout)
    assert.matches("the reference table ops_same is not the same on all shards", result.stderr)
    local file = io.open(dir .. "/misplaced.csv")
    assert.equal(("table,key,shard,belongs_to\nops_placed,42,%s,%s\n"):format(wrong, owner), file:read("*a"))
    file:close()
  end)

  it("goes on after shards that it has read already", function()
    local state = dir .. "/state"
    local down = scripts.cluster_file({ lines = TABLES, down = 2 })
    local first = verify({ "--state", state }, { cluster = down })
    assert.equal(4, first.code)
    assert(router:execute_on_all_shards("ALTER TABLE ops_placed RENAME COLUMN n TO m")) -- not looked at
    assert(router:execute("TRUNCATE ops_placed", nil, { shard_id = "shard1" })) -- read before
    local second = verify({ "--state", state, "--json" })
    assert.equal(0, second.code, second.stderr)
    assert.matches("goes on where " .. state:gsub("%p", "%%%0"), second.stderr)
    assert.is_true(second.json.result.tables[1].rows > 0 and second.json.result.tables[2].rows > 0)
    assert.is_nil(system.stat(state))
  end)

  it("ends with 1 when keys cannot be written, with 2 for a table that is not declared", function()
    assert(router:execute("INSERT INTO ops_placed SELECT i, 0 FROM generate_series(1, 20) AS i", nil, { shard_id = "shard1" }))
    local result = verify({ "--output", "/dev/full" })
    assert.equal(1, result.code)
    assert.matches("%-%-output /dev/full: No space left on device", result.stderr)
    result = verify({ "--table", "ops_place" })
    assert.equal(2, result.code)
    assert.matches("the cluster file declares no table ops_place; did you mean ops_placed%?", result.stderr)
  end)
end)
