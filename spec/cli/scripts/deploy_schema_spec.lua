local cli = require("spec.support.cli")
local scripts = require("spec.support.scripts")

describe("scripts/deploy_schema.lua", function()
  local router, cluster, dir

  setup(function()
    scripts.database("ops_deploy")
    cluster, dir = scripts.cluster_file({ database = "ops_deploy" }), cli.directory()
    router = scripts.connect(cluster)
  end)

  teardown(scripts.release)

  local function deploy(text, ...)
    return scripts.run("deploy_schema", { cli.write(dir, "change.sql", text), ... }, { cluster = cluster })
  end

  local function columns_of(shard_id, name)
    local result = assert(router:execute("SELECT string_agg(attname, ',' ORDER BY attnum) AS names FROM pg_attribute "
      .. "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped", { name }, { shard_id = shard_id }))
    return result.rows[1].names
  end

  it("says what it would do, does it on every shard, and the second time finds it done", function()
    local text = "CREATE TABLE one (user_id int8 PRIMARY KEY);\nCREATE INDEX CONCURRENTLY one_id ON one (user_id);"
    local dry = deploy(text, "--dry-run", "--json")
    assert.equal(0, dry.code, dry.stderr)
    assert.equal("by itself", dry.json.result.steps[2].how)
    assert.equal(2, dry.json.result.shards[3].pending)
    assert.is_nil(columns_of("shard1", "one"))
    local done = deploy(text)
    assert.equal(0, done.code, done.stderr)
    assert.matches("shard2 | changed +| +2 | +2 |", done.stdout)
    assert.equal("user_id", columns_of("shard3", "one"))
    local again = deploy(text, "--json")
    assert.same({ 0, 3 }, { again.code, again.json.counts.ok })
  end)

  it("leaves the others alone when the first shard fails, and goes on from there when it is run again", function()
    local text = "CREATE TABLE two (user_id int8);\nINSERT INTO two SELECT x FROM here;"
    local failed = deploy(text, "--canary", "shard2")
    assert.equal(1, failed.code)
    assert.matches('shard2 failed: SQL: change%.sql:2: INSERT: relation "here" does not exist', failed.stderr)
    assert.matches("1 shard failed, 2 skipped", failed.stderr)
    assert.is_nil(columns_of("shard1", "two"))
    assert(router:execute("CREATE TABLE here AS SELECT 1 AS x", nil, { shard_id = "shard1" }))
    failed = deploy(text, "--allow-drift", "--json")
    assert.equal(4, failed.code)
    assert.equal(1, failed.json.counts.changed)
    assert(router:execute_on_all_shards("CREATE TABLE IF NOT EXISTS here AS SELECT 1 AS x"))
    local done = deploy(text)
    assert.equal(0, done.code, done.stderr)
    assert.matches("goes on with what an earlier run of this change has left", done.stderr)
    assert.matches("1 shard ok, 2 changed", done.stderr)
  end)

  it("refuses shards that differ to begin with, and says how", function()
    assert(router:execute("CREATE TABLE odd (x int)", nil, { shard_id = "shard3" }))
    local result = deploy("CREATE TABLE three (x int)")
    assert(router:execute("DROP TABLE odd", nil, { shard_id = "shard3" }))
    assert.equal(1, result.code)
    assert.matches("shard3: table public.odd is extra there, beside shard1", result.stderr)
    assert.matches("the shards' schemas differ before anything was done", result.stderr)
    assert.is_nil(columns_of("shard1", "three"))
  end)

  it("wants the cluster's name before it destroys anything", function()
    assert(router:execute_on_all_shards("CREATE TABLE IF NOT EXISTS four (x int)"))
    local name = assert(dofile(cluster)).name
    local refused = deploy("DROP TABLE four")
    assert.equal(2, refused.code, refused.stderr)
    assert.matches("this would destroy what change%.sql says", refused.stderr)
    assert.equal("x", columns_of("shard1", "four"))
    assert.equal(0, deploy("DROP TABLE four", "--yes", name).code)
    assert.is_nil(columns_of("shard1", "four"))
  end)

  it("ends with 2 for a file that is missing or no SQL, with 4 when a shard is down", function()
    local result = scripts.run("deploy_schema", { dir .. "/nothing.sql" }, { cluster = cluster })
    assert.equal(2, result.code)
    assert.matches("nothing%.sql: No such file or directory", result.stderr)
    result = deploy("CREATE TABEL five (x int)")
    assert.equal(2, result.code)
    assert.matches('change%.sql:1: .*"TABEL"', result.stderr)
    result = scripts.run("deploy_schema", { cli.write(dir, "six.sql", "CREATE TABLE six (x int)"), "--json" },
      { cluster = scripts.cluster_file({ database = "ops_deploy", down = 3 }) })
    assert.same({ 4, 2, 1 }, { result.code, result.json.counts.changed, result.json.counts.unreachable })
  end)
end)
