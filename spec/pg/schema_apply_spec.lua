local apply = require("lunashard.schema.apply")
local cluster = require("spec.support.cluster")

describe("schema.apply", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect()
  end)

  before_each(function()
    assert(router:execute_on_all_shards("DROP SCHEMA IF EXISTS s_apply CASCADE; CREATE SCHEMA s_apply;"
      .. "DROP TABLE IF EXISTS lunashard.schema_step"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA IF EXISTS s_apply CASCADE; DROP TABLE IF EXISTS lunashard.schema_step"))
    cluster.release()
  end)

  local function plan_of(text)
    return assert(apply.plan(text, "change.sql"))
  end

  local function run(text, opts)
    return assert(apply.run(router, plan_of(text), opts))
  end

  local function outcomes(report)
    local list = {}
    for _, record in ipairs(report.shards) do
      list[#list + 1] = record.shard_id .. " " .. record.outcome
    end
    table.sort(list)
    return list
  end

  -- Which shards give a row for this query?
  local function where(sql)
    local list = {}
    for _, shard in ipairs(manager.shards) do
      local result = assert(router:execute(sql, nil, { shard_id = shard.shard_id }))
      list[#list + 1] = result.row_count > 0 and shard.shard_id or nil
    end
    return list
  end

  local function with_table(name)
    return where(("SELECT 1 WHERE to_regclass('s_apply.%s') IS NOT NULL"):format(name))
  end

  local ALL = { "shard1", "shard2", "shard3" }
  -- Raises on one shard only.
  local FAILS = "DO $$ BEGIN IF current_database() LIKE '%%%d' THEN RAISE 'not here'; END IF; END $$"

  it("changes every shard once: a second run finds it done, and `again` does it all the same", function()
    local text = "CREATE TABLE s_apply.a (x int); INSERT INTO s_apply.a VALUES (1); VACUUM s_apply.a"
    local report = run(text)
    assert.is_true(report.complete)
    assert.same({ "shard1 changed", "shard2 changed", "shard3 changed" }, outcomes(report))
    assert.equal(2, report.shards[1].applied)
    report = run(text)
    assert.same({ "shard1 unchanged", "shard2 unchanged", "shard3 unchanged" }, outcomes(report))
    report = run("INSERT INTO s_apply.a VALUES (2)")
    assert.same({ "shard1 changed", "shard2 changed", "shard3 changed" }, outcomes(report))
    run("INSERT INTO s_apply.a VALUES (2)", { again = true })
    assert.same(ALL, where("SELECT 1 FROM s_apply.a HAVING count(*) = 3"))
  end)

  it("asks the canary first, and leaves the others alone when it fails", function()
    local report = run("CREATE TABLE s_apply.b ();" .. FAILS:format(2), { canary = "shard2" })
    assert.is_false(report.complete)
    assert.same({ "shard1 skipped", "shard2 failed", "shard3 skipped" }, outcomes(report))
    assert.equal("shard2", report.failed[1].shard_id)
    assert.same({}, with_table("b")) -- that of shard2 was undone
  end)

  it("says which line of the script failed, with the server's own error", function()
    local report = run("CREATE TABLE s_apply.c ();\n\nALTER TABLE s_apply.c\n  ADD COLUMN x no_such_type")
    local err = report.shards[1].error
    assert.equal("42704", err.sqlstate)
    assert.matches('^change.sql:4: ALTER TABLE: type "no_such_type" does not exist', err.message)
  end)

  it("goes on where it stopped, with the steps that are done left alone", function()
    local first = "CREATE TABLE s_apply.d (x int); INSERT INTO s_apply.d VALUES (1);\nVACUUM s_apply.d;\n"
    local report = run(first .. FAILS:format(3), { parallel = 1 })
    assert.same({ "shard1 changed", "shard2 changed", "shard3 failed" }, outcomes(report))
    assert.equal(2, report.shards[3].applied)
    report = run(first .. "SELECT 1")
    assert.same({ "shard1 changed", "shard2 changed", "shard3 changed" }, outcomes(report))
    assert.same({ 1, 1, 1 }, { report.shards[1].applied, report.shards[2].applied, report.shards[3].applied })
    assert.same(ALL, where("SELECT 1 FROM s_apply.d HAVING count(*) = 1"))
  end)

  it("starts no more shards after a failure, or all of them with go_on", function()
    local report = run(FAILS:format(2), { parallel = 1 })
    assert.same({ "shard1 changed", "shard2 failed", "shard3 skipped" }, outcomes(report))
    report = run(FAILS:format(2), { parallel = 1, go_on = true, again = true })
    assert.same({ "shard1 changed", "shard2 failed", "shard3 changed" }, outcomes(report))
  end)

  it("removes an index whose build failed, and builds it in the next run", function()
    local build = "CREATE UNIQUE INDEX CONCURRENTLY e_x ON s_apply.e (x)"
    run("CREATE TABLE s_apply.e (x int); INSERT INTO s_apply.e VALUES (1), (1)")
    local report = run(build)
    assert.equal("23505", report.shards[1].error.sqlstate)
    assert.same({ "e_x" }, report.shards[1].cleaned)
    assert.same({}, with_table("e_x"))
    -- What a run that was killed leaves: the index that is not valid, and the step begun.
    assert.has_error(function()
      assert(router:execute(build, nil, { shard_id = "shard2", all_shards = false }))
    end)
    assert.same({ "shard2" }, with_table("e_x"))
    assert(router:execute_on_all_shards("DELETE FROM s_apply.e; INSERT INTO s_apply.e VALUES (1)"))
    report = run(build)
    assert.same({ "shard1 changed", "shard2 changed", "shard3 changed" }, outcomes(report))
    assert.same(ALL, where("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('s_apply.e_x') AND indisvalid"))
  end)

  it("takes an index that a killed run had finished for done, and no other one", function()
    run("CREATE TABLE s_apply.f (x int)")
    local build = "CREATE INDEX CONCURRENTLY f_x ON s_apply.f (x)"
    assert(router:execute_on_all_shards(build))
    for _ = 1, 2 do
      assert.equal("42P07", run(build, { go_on = true }).shards[3].error.sqlstate) -- somebody else's
    end
    assert(router:execute_on_all_shards(("INSERT INTO lunashard.schema_step VALUES ('change.sql', '%s', 1, '', false)"):format(
      plan_of(build).steps[1].digest)))
    assert.is_true(run(build).complete)
  end)

  it("waits for locks no longer than lock_timeout", function()
    run("CREATE TABLE s_apply.g (x int)")
    local lease = assert(manager.members[1].primary.pool:acquire())
    assert(lease:execute("BEGIN; LOCK s_apply.g", nil, { simple = true }))
    local report = run("ALTER TABLE s_apply.g ADD y int", { lock_timeout = 0.1 })
    lease:release()
    assert.equal("55P03", report.shards[1].error.sqlstate)
    assert.matches("lock_timeout", report.shards[1].error.hint)
    assert.is_true(run("DO $$ BEGIN ASSERT current_setting('lock_timeout') = '100ms'; END $$", { lock_timeout = 0.1 }).complete)
  end)

  it("previews without a trace", function()
    local text = "CREATE TABLE s_apply.h (x int); VACUUM s_apply.h"
    local report = assert(apply.preview(router, plan_of(text)))
    assert.same({ "shard1 pending", "shard2 pending", "shard3 pending" }, outcomes(report))
    assert.same({ 1, 2 }, report.shards[1].pending)
    assert.same({}, with_table("h"))
    assert.same({}, where("SELECT 1 WHERE to_regclass('lunashard.schema_step') IS NOT NULL"))
    run(text)
    report = assert(apply.preview(router, plan_of(text)))
    assert.same({ "shard1 unchanged", "shard2 unchanged", "shard3 unchanged" }, outcomes(report))
  end)

  it("names a shard that cannot be reached, and refuses one that there is not", function()
    local broken = cluster.options()
    broken.shards[2].port = 1
    local lunashard = require("lunashard")
    local others = lunashard.manager(broken)
    cluster.warnings(function()
      return assert(others:initialize())
    end)
    local other = lunashard.router({ shard_manager = others })
    local report = assert(apply.run(other, plan_of("CREATE TABLE s_apply.i ()"), { timeout = 20 }))
    others:shutdown()
    assert.same({ "shard1 changed", "shard2 unreachable", "shard3 changed" }, outcomes(report))
    local err = cluster.failure("NO_SHARD", apply.run(router, plan_of("SELECT 1"), { canary = "shard4" }))
    assert.matches('did you mean "shard', err.message)
    assert.has_error(function()
      apply.run(router, plan_of("SELECT 1"), { canry = "shard1" })
    end, 'unknown option "canry" of schema.apply; did you mean "canary"?')
  end)

end)
