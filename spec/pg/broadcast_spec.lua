local cluster = require("spec.support.cluster")
local task = require("lunashard.task")

local failure = cluster.failure

describe("router:execute_on_all_shards", function()
  local router

  setup(function()
    router = cluster.connect()
  end)

  before_each(function()
    assert(router:execute_on_all_shards("DROP SCHEMA IF EXISTS e_broadcast CASCADE; CREATE SCHEMA e_broadcast"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA IF EXISTS e_broadcast CASCADE"))
    cluster.release()
  end)

  -- Which shards have the table e_broadcast.<name>?
  local function with_table(name)
    local result = assert(router:scatter_gather("SELECT to_regclass($1) IS NOT NULL AS there", { "e_broadcast." .. name }))
    local list = {}
    for i, row in ipairs(result.rows) do
      list[#list + 1] = row.there and i or nil
    end
    return list
  end

  -- Fails on shard2 only.
  local function create(name)
    return "CREATE TABLE e_broadcast." .. name .. [[ (a int);
      DO $$ BEGIN IF current_database() LIKE '%2' THEN RAISE 'not here'; END IF; END $$]]
  end

  it("runs several statements in one string on every shard", function()
    local result = assert(router:execute_on_all_shards([[
      CREATE TABLE e_broadcast.a (a int); CREATE INDEX ON e_broadcast.a (a); INSERT INTO e_broadcast.a VALUES (1), (2)]]))
    assert.is_true(result.success)
    assert.is_true(result.complete)
    assert.same({ "shard1", "shard2", "shard3" }, result.done)
    assert.is_nil(result.error_message)
    for _, one in pairs(result.shard_results) do
      assert.is_true(one.success)
    end
    assert.same({ 1, 2, 3 }, with_table("a"))
  end)

  it("undoes all statements on a shard when one fails there, and tells where it is done", function()
    local err = failure("SHARDS_FAILED", router:execute_on_all_shards(create("b")))
    assert.same({ 1, 3 }, with_table("b"))
    assert.same({ "shard1", "shard3" }, err.done)
    assert.equal("shard2", err.failed[1].shard_id)
    assert.is_true(err.shard_results.shard1.success)
    assert.is_truthy(err.message:find("done on shard1, shard3", 1, true), err.message)
    assert.is_truthy(tostring(err):find("not here", 1, true))
  end)

  it("returns the outcome as a result when asked, as in the guide", function()
    local result = assert(router:execute_on_all_shards(create("c"), { on_failure = "partial" }))
    assert.is_false(result.success)
    assert.is_false(result.complete)
    assert.is_truthy(result.error_message:find("not here", 1, true))
    assert.is_false(result.shard_results.shard2.success)
  end)

  it("asks the canary first, and nobody else when it fails", function()
    local err = failure("SHARDS_FAILED", router:execute_on_all_shards(create("d"), { canary = "shard2" }))
    assert.same({}, with_table("d"))
    assert.same({ "shard1", "shard3" }, err.skipped)
    assert.is_truthy(err.message:find("not run on shard1, shard3", 1, true), err.message)
    assert(router:execute_on_all_shards("CREATE TABLE e_broadcast.d2 (a int)", { canary = "shard2" }))
    assert.same({ 1, 2, 3 }, with_table("d2"))
  end)

  it("refuses a canary that is no shard", function()
    failure("NO_SHARD", router:execute_on_all_shards("SELECT 1", { canary = "shard9" }))
  end)

  it("refuses a canary that the call leaves out", function()
    failure("INVALID", router:execute_on_all_shards(create("c2"), { canary = "shard3", shard_ids = { "shard1" } }))
    assert.same({}, with_table("c2"))
  end)

  it("stops after the first failure when asked, one shard after the other", function()
    local err = failure("SHARDS_FAILED", router:execute_on_all_shards(create("e"), { parallel = false, stop_on_error = true }))
    assert.same({ 1 }, with_table("e"))
    assert.same({ "shard3" }, err.skipped)
  end)

  it("goes on after a failure unless told to stop", function()
    failure("SHARDS_FAILED", router:execute_on_all_shards(create("f"), { parallel = false }))
    assert.same({ 1, 3 }, with_table("f"))
  end)

  it("runs at the same time, or as many at a time as it is told", function()
    local function seconds(parallel)
      local started = task.now()
      assert(router:execute_on_all_shards("SELECT pg_sleep(0.3)", { parallel = parallel }))
      return task.now() - started
    end
    assert.is_true(seconds(true) < 0.8)
    assert.is_true(seconds(false) >= 0.9)
    assert.is_true(seconds(2) >= 0.6)
  end)

  it("keeps to shards that are named", function()
    assert(router:execute_on_all_shards("CREATE TABLE e_broadcast.g (a int)", { shard_ids = { "shard3" } }))
    assert.same({ 3 }, with_table("g"))
  end)

  it("lets a script manage its own transactions, and leaves no session state behind", function()
    assert(router:execute_on_all_shards("BEGIN; CREATE TABLE e_broadcast.h (a int); COMMIT; SET work_mem = '123kB'"))
    assert.same({ 1, 2, 3 }, with_table("h"))
    failure("SHARDS_FAILED", router:execute_on_all_shards("BEGIN; CREATE TABLE e_broadcast.i (a int); SELECT 1 / 0; COMMIT"))
    assert(router:execute_on_all_shards("BEGIN; CREATE TABLE e_broadcast.j (a int)"))
    assert.same({}, with_table("i"))
    assert.same({}, with_table("j"))
    for _ = 1, 5 do
      local rows = assert(router:scatter_gather("SELECT current_setting('work_mem') AS m")).rows
      for _, row in ipairs(rows) do
        assert.is_not.equal("123kB", row.m)
      end
    end
  end)

  it("raises for wrong options", function()
    for _, opts in ipairs({ { parallel = 0 }, { parallel = "yes" }, { on_failure = "x" }, { params = {} } }) do
      assert.has_error(function() router:execute_on_all_shards("SELECT 1", opts) end)
    end
    assert.has_error(function() router:execute_on_all_shards(nil) end)
  end)
end)
