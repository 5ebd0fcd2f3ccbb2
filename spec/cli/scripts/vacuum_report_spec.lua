local cli = require("spec.support.cli")
local scripts = require("spec.support.scripts")

describe("scripts/vacuum_report.lua", function()
  local router, manager

  setup(function()
    router, manager = scripts.connect()
    assert(router:execute_on_all_shards([[
      DROP TABLE IF EXISTS ops_vacuum;
      CREATE TABLE ops_vacuum (user_id int8 PRIMARY KEY, n int) WITH (autovacuum_enabled = off);
      INSERT INTO ops_vacuum SELECT i, 0 FROM generate_series(1, 100) AS i]]))
    assert(router:transaction({ shard_id = "shard2" }, function(tx)
      assert(tx:execute("UPDATE ops_vacuum SET n = 1"))
      return tx:execute("SELECT pg_stat_force_next_flush()")
    end))
    cli.wait_until("the servers have counted", function()
      local row = assert(router:execute("SELECT n_live_tup, n_dead_tup FROM pg_stat_user_tables WHERE relname = 'ops_vacuum'",
        nil, { shard_id = "shard2" })).rows[1]
      return row.n_live_tup == 100 and row.n_dead_tup == 100
    end)
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE ops_vacuum"))
    scripts.release()
  end)

  local function report(...)
    return scripts.run("vacuum_report", { "--json", "--min-dead", "50", ... })
  end

  it("finds the shard with dead rows, and what to do about it", function()
    local document = report().json
    assert.equal(1, #document.result.tables)
    local found = document.result.tables[1]
    assert.same({ "shard2", "ops_vacuum", 100, 50 }, { found.shard, found.table, found.dead, found.dead_percent })
    assert.equal(3, #document.result.databases)
    assert.is_true(document.result.databases[1].xid_age > 0)
    assert.matches("VACUUM %(VERBOSE%) ops_vacuum", document.next)
    assert.equal(3, report("--exit-code").code)
  end)

  it("names the session that holds vacuum up", function()
    assert(router:transaction({ shard_id = manager.shards[1].shard_id, isolation = "repeatable read" }, function(tx)
      local pid = assert(tx:execute("SELECT pg_backend_pid() AS pid")).rows[1].pid
      local result = scripts.run("vacuum_report", { "--min-age", "0", "--min-dead", "1000000" })
      assert.equal(0, result.code, result.stderr)
      assert.matches(("shard1 | session %d +| idle in transaction"):format(pid), result.stdout)
      assert.matches("next: lunashard run .*kill_long_queries", result.stderr)
      return true
    end))
  end)

  it("reports what the other shards have to say when one is down, and ends with 4", function()
    local result = scripts.run("vacuum_report", { "--json" }, { cluster = scripts.cluster_file({ down = 1 }) })
    assert.same({ 4, 1, 2 }, { result.code, result.json.counts.unreachable, #result.json.result.databases })
  end)
end)
