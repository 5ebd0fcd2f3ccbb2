local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")
local scripts = require("spec.support.scripts")

describe("scripts/dual_write_compare.lua", function()
  local router, manager, cluster, old

  local function on_owner(key, sql, params)
    return assert(router:execute(sql, params, { shard_id = manager:get_shard_for_write(key).shard_id }))
  end

  setup(function()
    router, manager = scripts.connect(nil, { tables = { ops_both = { shard_key = "user_id", type = "int8" } } })
    assert(router:execute_on_all_shards([[
      DROP TABLE IF EXISTS ops_both, ops_both_old;
      CREATE TABLE ops_both (user_id int8, item text, note text, PRIMARY KEY (user_id, item))]]))
    assert(router:execute_on_all_shards([[
      CREATE TABLE ops_both_old (user_id int8, item text, note text, PRIMARY KEY (user_id, item));
      INSERT INTO ops_both_old SELECT i, 'item ' || j, 'note' FROM generate_series(1, 300) AS i, generate_series(1, 2) AS j]],
      { shard_ids = { "shard1" } }))
    local rows = {}
    for i = 1, 600 do
      rows[i] = { math.ceil(i / 2), "item " .. (i - 1) % 2 + 1, "note" }
    end
    assert(router:execute_many("INSERT INTO ops_both VALUES ($1, $2, $3)", rows, { key = 1 }))
    cluster = scripts.cluster_file({ lines = 'tables = { ops_both = { shard_key = "user_id", type = "int8" } }' })
    old = cli.write(cli.directory(), "old.lua", ([[
      local shard = dofile(%q).shards[1]
      shard.passfile = %q
      return { shards = { shard } }]]):format(sandbox.shared().cluster_file, sandbox.shared().passfile))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS ops_both, ops_both_old"))
    scripts.release()
  end)

  local function compare(...)
    return scripts.run("dual_write_compare", { "ops_both", "--from", old, "--source-table", "ops_both_old", "--chunk", "70",
      "--settle", "0.3", ... }, { cluster = cluster })
  end

  it("finds nothing where both say the same", function()
    local result = compare("--json", "--exit-code")
    assert.equal(0, result.code, result.stderr)
    assert.same({ 600, 600, 9, 0 }, { result.json.result.source_rows, result.json.result.shard_rows,
      result.json.result.ranges, result.json.result.differences })
  end)

  it("names each row that is missing, different, not in the old database, or on two shards, and repairs what it may", function()
    on_owner(10, "DELETE FROM ops_both WHERE user_id = 10 AND item = 'item 2'")
    on_owner(20, "UPDATE ops_both SET note = 'lost' WHERE user_id = 20 AND item = 'item 1'")
    on_owner(1000, "INSERT INTO ops_both VALUES (1000, 'item 1', 'new')")
    local owner = manager:get_shard_for_write(30).shard_id
    local other = owner == "shard1" and "shard2" or "shard1"
    assert(router:execute("INSERT INTO ops_both VALUES (30, 'item 1', 'note')", nil, { shard_id = other }))
    local result = compare("--exit-code")
    assert.equal(3, result.code, result.stderr)
    assert.matches("missing +| 10, item 2 +| NULL", result.stdout)
    assert.matches("different | 20, item 1 +| shard%d[%d, shard]* +| note", result.stdout)
    assert.matches("extra +| 1000, item 1 +| shard%d", result.stdout)
    assert.matches("twice +| 30, item 1 +| shard%d, shard%d", result.stdout)
    assert.matches("1 missing, 1 extra, 1 different, 1 twice", result.stderr)
    local dry = compare("--repair", "--dry-run", "--json")
    assert.equal(4, dry.json.result.differences)
    local repaired = compare("--repair", "--json")
    assert.equal(0, repaired.code, repaired.stderr)
    assert.same({ 0, 0, 1, 1 }, { repaired.json.result.missing, repaired.json.result.different, repaired.json.result.extra,
      repaired.json.result.twice })
    on_owner(1000, "DELETE FROM ops_both WHERE user_id = 1000")
    assert(router:execute("DELETE FROM ops_both WHERE user_id = 30", nil, { shard_id = other }))
  end)

  it("takes a write that is under way for no difference", function()
    assert(router:execute("INSERT INTO ops_both_old VALUES (2000, 'late', 'x')", nil, { shard_id = "shard1" }))
    local run = scripts.run("dual_write_compare", { "ops_both", "--from", old, "--source-table", "ops_both_old", "--exit-code",
      "--settle", "2" }, { cluster = cluster, spawn = true })
    cli.wait_until("it has seen the row on one side", function()
      return select(2, run:output()):find("something differs", 1, true)
    end)
    on_owner(2000, "INSERT INTO ops_both VALUES (2000, 'late', 'x')")
    local result = assert(run:wait(30))
    run:close()
    assert.equal(0, result.code, result.stderr)
    assert.matches("0 missing, 0 extra, 0 different, 0 twice, 1 changed meanwhile", result.stderr)
    on_owner(2000, "DELETE FROM ops_both WHERE user_id = 2000")
    assert(router:execute("DELETE FROM ops_both_old WHERE user_id = 2000", nil, { shard_id = "shard1" }))
  end)

  it("ends with the right code when a shard is down, or the other database is not there", function()
    local down = scripts.run("dual_write_compare", { "ops_both", "--from", old, "--source-table", "ops_both_old", "--json" },
      { cluster = scripts.cluster_file({ down = 3 }) })
    assert.equal(1, down.code)
    assert.same({ 1, "shard3" }, { down.json.counts.unreachable, down.json.shards[1].shard_id })
    assert.matches("SHARD_DOWN", down.stderr)
    local missing = scripts.run("dual_write_compare", { "ops_both", "--from", "/nowhere/old.lua" }, { cluster = cluster })
    assert.equal(2, missing.code)
    assert.matches("cluster file /nowhere/old%.lua: ", missing.stderr)
    local without = scripts.run("dual_write_compare", { "ops_both" }, { cluster = cluster })
    assert.equal(2, without.code)
    assert.matches("missing option '%-%-from'", without.stderr)
  end)
end)
