local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")
local scripts = require("spec.support.scripts")
local system = require("lunashard.core.system")

local COLUMNS = [[(user_id int8 PRIMARY KEY, name text, note jsonb, seen timestamptz, bytes bytea, score numeric(12, 2),
  tags text[])]]

describe("scripts/backfill.lua", function()
  local router, cluster, old, dir

  setup(function()
    router = scripts.connect()
    dir = cli.directory()
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS ops_members, ops_old; CREATE TABLE ops_members " .. COLUMNS))
    -- The old database is that of the second shard, in other types where that may be.
    assert(router:execute_on_all_shards([[
      CREATE TABLE ops_old (user_id int4 PRIMARY KEY, name varchar(40), note jsonb, seen timestamptz, bytes bytea,
        score numeric(12, 2), tags text[], legacy int);
      INSERT INTO ops_old SELECT i, nullif('name ' || i, 'name 7'), jsonb_build_object('n', i, 'quoted', '"'), now(),
        decode(lpad(to_hex(i), 8, '0'), 'hex'), i / 7.0, ARRAY['a,b', NULL, 'c' || i] FROM generate_series(1, 2000) AS i]],
      { shard_ids = { "shard2" } }))
    cluster = scripts.cluster_file({ lines = 'tables = { ops_members = { shard_key = "user_id", type = "int8" } }' })
    old = cli.write(dir, "old.lua", ([[
      local shard = dofile(%q).shards[2]
      shard.passfile = %q
      return { shards = { shard } }]]):format(sandbox.shared().cluster_file, sandbox.shared().passfile))
  end)

  before_each(function()
    assert(router:execute_on_all_shards("TRUNCATE ops_members"))
    os.remove(dir .. "/state")
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS ops_members, ops_old"))
    scripts.release()
  end)

  local ARGUMENTS = { "ops_members", "--from", "OLD", "--source-table", "ops_old", "--state", "STATE" }

  local function backfill(arguments, options)
    local all = {}
    for i, argument in ipairs(ARGUMENTS) do
      all[i] = argument == "OLD" and old or argument == "STATE" and dir .. "/state" or argument
    end
    for _, argument in ipairs(arguments or {}) do
      all[#all + 1] = argument
    end
    options = options or {}
    options.cluster = options.cluster or cluster
    return scripts.run("backfill", all, options)
  end

  local function count()
    local n = 0
    for _, result in pairs(assert(router:execute_on_all_shards("SELECT count(*) AS n FROM ops_members")).shard_results) do
      n = n + tonumber(result.rows[1].n)
    end
    return n
  end

  it("copies every row to its shard, whatever is in it, and finds both sides the same", function()
    local dry = backfill({ "--dry-run" })
    assert.equal(0, dry.code, dry.stderr)
    assert.equal(0, count())
    local result = backfill({ "--json", "--batch", "300" })
    assert.equal(0, result.code, result.stderr)
    assert.same({ 2000, 2000, 0 }, { result.json.result.copied, result.json.result.written,
      result.json.result.verified.differences })
    local _, manager = scripts.connect(cluster)
    local row = assert(router:execute("SELECT name IS NULL AS empty, tags[2] IS NULL AS hole, tags[1] AS tag, score::text "
      .. "FROM ops_members WHERE user_id = 7", nil, { shard_id = manager:get_shard_for_write(7).shard_id })).rows[1]
    assert.same({ empty = true, hole = true, tag = "a,b", score = "1.00" }, row)
    assert.is_nil(system.stat(dir .. "/state"))
    local again = backfill({ "--json" })
    assert.same({ 2000, 0 }, { again.json.result.copied, again.json.result.written })
  end)

  it("goes on from its last batch after kill -9, and after a shard that was down", function()
    local first = backfill({ "--batch", "100", "--throttle-ms", "200" }, { spawn = true })
    cli.wait_until("some batches were written", function()
      return count() >= 300
    end)
    first:kill()
    first:wait(10)
    first:close()
    assert.is_true(count() < 2000)
    local down = backfill({}, { cluster = scripts.cluster_file({ down = 3,
      lines = 'tables = { ops_members = { shard_key = "user_id", type = "int8" } }' }) })
    assert.equal(4, down.code, down.stderr)
    assert.matches("next: run the same again: it goes on where .*/state says", down.stderr)
    local second = backfill({ "--json" })
    assert.equal(0, second.code, second.stderr)
    assert.matches("goes on after %d+00 rows", second.stderr)
    assert.equal(2000, second.json.result.copied)
    assert.equal(2000, count())
  end)

  it("fails when a row that was there already is another one, and says how to see it", function()
    local _, manager = scripts.connect(cluster)
    assert(router:execute("INSERT INTO ops_members (user_id, name) VALUES (42, 'older')", nil,
      { shard_id = manager:get_shard_for_write(42).shard_id }))
    local result = backfill()
    assert.equal(1, result.code)
    assert.matches("2000 rows read, 1999 written %(1 were there already%)", result.stderr)
    assert.matches("different | 42 +| shard%d", result.stdout)
    assert.matches("1 rows differ: 0 missing, 0 extra, 1 different", result.stderr)
    assert.matches("next: lunashard run .*dual_write_compare%.lua ops_members", result.stderr)
    assert.equal(0, backfill({ "--on-conflict", "update", "--restart" }).code)
  end)

  it("ends with 2 for what does not fit, before anything is copied", function()
    assert(system.write_file(dir .. "/state", "{ half", 384))
    local broken = backfill()
    assert.equal(2, broken.code)
    assert.matches("is no state of a run", broken.stderr)
    os.remove(dir .. "/state")
    for message, arguments in pairs({
      ["there is no table ops_nothing in the database of %-%-from"] = { "--source-table", "ops_nothing" },
      ["ops_members has no column nme; did you mean name%?"] = { "--columns", "user_id,nme" },
      ["the column user_id of its primary key is not among the columns"] = { "--columns", "name" },
      ["state file .*/nowhere/state"] = { "--state", dir .. "/nowhere/state" },
      ["expected a cluster file with one shard"] = { "--from", sandbox.shared().cluster_file },
    }) do
      local result = backfill(arguments)
      assert.equal(2, result.code, result.stderr)
      assert.matches(message, result.stderr)
    end
    assert.equal(0, count())
  end)
end)
