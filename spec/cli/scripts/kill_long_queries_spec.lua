local lunashard = require("lunashard")
local scripts = require("spec.support.scripts")
local cli = require("spec.support.cli")

describe("scripts/kill_long_queries.lua", function()
  local router

  setup(function()
    router = scripts.connect(nil, { application_name = "ops_kill" })
  end)

  teardown(scripts.release)

  local function sleeper(shard_id, other)
    local task = lunashard.spawn(function()
      return { (other or router):execute("SELECT pg_sleep(60) -- ops_kill", nil, { shard_id = shard_id, timeout = 60 }) }
    end)
    cli.wait_until("it sleeps", function()
      return assert(router:execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%ops_kill'"
        .. " AND state = 'active'", nil, { shard_id = shard_id })).row_count == 1
    end)
    return task
  end

  local ARGUMENTS = { "--json", "--longer", "0", "--application", "ops_kill", "--like", "%PG_SLEEP%" }

  it("says which statements it would cancel, cancels them, and leaves the others alone", function()
    local first, other = sleeper("shard1"), sleeper("shard3")
    local dry = scripts.run("kill_long_queries", { "--dry-run", unpack(ARGUMENTS) })
    assert.equal(0, dry.code, dry.stderr)
    assert.equal(2, #dry.json.result.sessions)
    assert.equal("would cancel", dry.json.result.sessions[1].action)
    assert.same({ 0, 3 }, { dry.json.counts.changed, dry.json.counts.ok })

    local done = scripts.run("kill_long_queries", { "--shard", "shard3", unpack(ARGUMENTS) })
    assert.equal("cancelled", done.json.result.sessions[1].action)
    assert.equal(1, done.json.counts.changed)
    local _, result = other:join(10)
    assert.equal("57014", result[2].sqlstate)
    assert.equal("waiting", first:status())

    local ended = scripts.run("kill_long_queries", { "--terminate", "--exit-code", unpack(ARGUMENTS) })
    assert.equal(3, ended.code)
    _, result = first:join(10)
    assert.equal("57P01", result[2].sqlstate)
  end)

  it("terminates transactions that sit idle", function()
    local none, err = router:transaction({ shard_id = "shard2" }, function(tx)
      assert(tx:execute("SELECT 1"))
      local result = scripts.run("kill_long_queries", { "--idle-in-transaction", "0", "--application", "ops_kill" })
      assert.equal(0, result.code, result.stderr)
      assert.matches("| idle in transaction |.*| terminated |", result.stdout)
      return tx:execute("SELECT 2")
    end)
    assert.is_nil(none)
    assert.equal("SHARD_DOWN", err.code)
  end)

  it("ends with 4 and says which right is missing where it may not cancel", function()
    local admin = scripts.connect(scripts.cluster_file({ lines = 'user = "postgres"' }), { application_name = "ops_kill" })
    local task = sleeper("shard2", admin)
    local result = scripts.run("kill_long_queries", ARGUMENTS)
    assert.equal(4, result.code, result.stderr)
    assert.matches("shard2 failed: SQL: must be .*superuser.*GRANT pg_signal_backend", result.stderr)
    assert.equal("failed", result.json.result.sessions[1].action)
    task:cancel()
    task:join(10)
  end)

  it("wants to know how long is long, in numbers", function()
    local result = scripts.run("kill_long_queries", {})
    assert.equal(2, result.code)
    assert.matches("say which: %-%-longer SECONDS", result.stderr)
    result = scripts.run("kill_long_queries", { "--longer", "soon" })
    assert.equal(2, result.code)
    assert.matches('expected a number of seconds, got "soon"', result.stderr)
  end)
end)
