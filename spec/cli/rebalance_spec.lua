-- `lunashard rebalance` as its users run it: plans, jobs, two at once, signals, kill -9, and what it says of mistakes.
local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local moving = require("spec.support.moving")
local pty = require("spec.support.pty")
local sandbox = require("spec.support.sandbox")

local KEYS = 900

describe("lunashard rebalance", function()
  local cluster, three, four

  setup(function()
    cluster = moving.new({ shards = 4, strategy = "hash" })
    three, four = cluster:file(3), cluster:file(4)
    cluster:fill(3, 1, KEYS)
  end)

  teardown(function()
    cluster:destroy()
    sandbox.release()
  end)

  local function rebalance(...)
    return cli.run({ "rebalance", ... })
  end

  local function total()
    local rows = {}
    for i = 1, 4 do
      rows[i] = cluster:on(i, "SELECT count(*) AS n FROM users").rows[1].n
    end
    assert.equal(KEYS, rows[1] + rows[2] + rows[3] + rows[4])
    return rows
  end

  it("says what is missing", function()
    local result = rebalance("plan", "-c", three)
    assert.equal(1, result.code)
    assert.truthy(result.stderr:find("the cluster has no catalog, which says where rows are while they move: run "
      .. "`lunashard cluster init`", 1, true), result.stderr)
    result = rebalance("plan", "-c", three, "--json")
    assert.equal("INVALID", cjson.decode(result.stdout).error.code)
    cluster:init(3)
    result = rebalance("status", "-c", three)
    assert.equal(1, result.code)
    assert.truthy(result.stderr:find("there is no rebalance job yet", 1, true))
    for expected, arguments in pairs({
      ["--pin and --bucket want --to SHARD"] = { "plan", "-c", three, "--pin", "7" },
      ["--to goes with --pin or --bucket"] = { "plan", "-c", three, "--to", "s1" },
      ["can not be used together with"] = { "plan", "-c", three, "--drain", "s1", "--even", "rows" },
      ["expected `BUCKET SHARD`, got \"17\""] = { "plan", "-c", three, "--moves",
        cli.write(cluster.dir, "moves", "# comment\n1 s2\n17\n") },
      ["give the cluster's file"] = { "plan" },
    }) do
      result = cli.run({ "rebalance", unpack(arguments) })
      assert.equal(2, result.code)
      assert.truthy(result.stderr:find(expected, 1, true), result.stderr)
    end
    result = rebalance("plan", "-c", three, "--drain", "s9")
    assert.equal(1, result.code)
    assert.truthy(result.stderr:find("there is no shard s9", 1, true))
  end)

  it("names the shard that has not got the tables yet, and has nothing to clean up there", function()
    cluster:on(4, "ALTER TABLE users RENAME TO absent")
    local result, plain = rebalance("start", "-c", four), rebalance("start", "-c", four, "--json")
    cluster:on(4, "ALTER TABLE absent RENAME TO users")
    assert.equal(1, result.code)
    assert.matches("s4[^\n]*users", result.stderr)
    local by_table = {}
    for _, problem in ipairs(cjson.decode(plain.stdout).error.problems) do
      assert.equal("s4", problem.shard_id)
      by_table[problem.table] = problem.message
    end
    assert.matches("^is not there; create it", by_table.users)
    assert.matches("constraints", by_table.orders) -- it refers to the table that was renamed
    result = rebalance("cleanup", "-c", four)
    assert.equal(0, result.code, result.stderr)
  end)

  it("plans, and moves nothing", function()
    local before = total()
    local result = rebalance("plan", "-c", four)
    assert.equal(0, result.code, result.stderr)
    assert.matches("group int8, by follow: 409%d buckets with %d+ rows %(.*%), 2%d%.%d %% of 900 rows, in %d+ moves",
      result.stdout)
    assert.matches("nothing was moved; next: .* rebalance start %-c", result.stderr)
    local plain = rebalance("plan", "-c", four, "--json").stdout
    assert.truthy(plain:find('"giants":[]', 1, true), plain)
    assert.truthy(plain:find('"warnings":[]', 1, true), plain)
    local plans = cjson.decode(plain).plans
    assert.equal(1, #plans)
    assert.is_true(plans[1].share > 0.2 and plans[1].share < 0.3)
    assert.matches("s4 +| +0 | +0 | +%d+ | +%d+ | %d[%d.]* KiB *\n", result.stdout) -- what its disk has to hold
    assert.matches("s1 +| +%d+ | +%d+ | +%d+ | +%d+ | +0 bytes\n", result.stdout)
    for _, shard in ipairs(plans[1].shards) do
      assert.near(shard.shard_id == "s4" and plans[1].bytes or 0, shard.receives, 1)
    end
    assert.equal(0, before[4])
    assert.same(before, total())
    assert.equal(0, #cluster:on(1, "SELECT * FROM lunashard_catalog.job").rows)
    local even = rebalance("plan", "-c", three, "--even", "buckets")
    assert.equal("group int8: nothing to move by even; every bucket is where it should be\n", even.stdout)
  end)

  it("goes on where a killed process stopped, while nobody else may, and says how it does meanwhile", function()
    local killed = cli.run({ "run", "-c", four, "spec/support/job_process.lua", "fenced:after-saved" })
    assert.equal(9, killed.signal, killed.stderr)
    local status = cjson.decode(rebalance("status", "-c", three, "--json").stdout)
    assert.same({ "running", true, true }, { status.status, status.interrupted, status.open })
    local result = rebalance("status", "-c", three)
    assert.matches("job 1: running %(interrupted: nobody runs it%)", result.stdout)
    assert.matches("next: .* rebalance resume 1 %-c", result.stderr)
    result = rebalance("start", "-c", four)
    assert.equal(1, result.code)
    assert.truthy(result.stderr:find("rebalance job 1 (group int8) is running: finish it first", 1, true), result.stderr)

    local first = cli.spawn({ "rebalance", "resume", "-c", four, "--throttle-ms", "300", "--parallel", "1" })
    cli.wait_until("somebody runs it", function()
      return cluster:on(1, "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
        .. "AND (classid::bigint << 32 | objid::bigint) = hashtextextended('lunashard lock rebalance', 0)").rows[1].n > 0
    end)
    local second = rebalance("resume", "-c", four, "--json")
    assert.equal(5, second.code, second.stderr)
    assert.equal("LOCK_HELD", cjson.decode(second.stdout).error.code)
    assert.matches("is held by another run %(.*server process %d+", second.stderr)
    first:signal("INT")
    local ended = first:wait(30)
    assert.equal(130, ended.code, ended.stderr)
    assert.matches("next: .* rebalance resume 1 %-c", ended.stderr)
    first:close()

    result = rebalance("resume", "1", "-c", four, "--json")
    assert.equal(0, result.code, result.stderr)
    status = cjson.decode(result.stdout)
    assert.same({ "completed", 100 }, { status.status, status.progress_percent })
    local rows = total()
    assert.is_true(rows[4] > 180 and rows[4] < 270, tostring(rows[4]))
    result = rebalance("resume", "1", "-c", four)
    assert.equal(1, result.code)
    assert.truthy(result.stderr:find("job 1 is completed: there is nothing to resume", 1, true))
  end)

  it("brings back the map of before, saying what it does", function()
    local result = rebalance("rollback", "-c", four)
    assert.equal(0, result.code, result.stderr)
    assert.matches("rolling back job 1: what %d+ of its moves have brought away %(%d+ rows%) is moved back", result.stderr)
    assert.matches("^job 1: rolled_back, 100%.0 %%", result.stdout)
    assert.equal(0, total()[4])
    assert.equal("", rebalance("cleanup", "-c", four).stdout)
  end)

  it("draws a bar on a terminal, stops for others and for Ctrl-C, can be watched, and is undone by cancel", function()
    local slowly = { "-c", four, "--batch-size", "5", "--throttle-ms", "100", "--parallel", "1" }
    local before = total()
    local first = pty.lunashard({ "rebalance", "start", unpack(slowly) })
    first:expect("job 2 [")
    first:expect(" rows")
    local watch = cli.spawn({ "rebalance", "status", "--watch", "--json", "-c", three })
    cli.wait_until("it was seen to run", function()
      return watch:output():find('"status":"running"', 1, true)
    end)
    local paused = rebalance("pause", "-c", four, "--json")
    assert.equal(0, paused.code, paused.stderr)
    assert.equal("paused", cjson.decode(paused.stdout).status)
    first:expect("the job was asked to pause")
    first:expect("rebalance resume 2 -c")
    assert.is_true(first:wait() ~= 0)
    assert.is_true(first:is_sane())
    first:close()
    local seen = watch:wait(30)
    assert.equal(0, seen.code, seen.stderr)
    local last
    for line in watch:output():gmatch("[^\n]+") do
      last = assert(cjson.decode(line))
    end
    assert.same({ 2, "paused" }, { last.job_id, last.status })
    watch:close()

    local second = pty.lunashard({ "rebalance", "resume", unpack(slowly) })
    second:expect("job 2 [")
    second:type("\3")
    second:expect("stopping at the next point from which the job can go on")
    assert.equal(130, second:wait())
    assert.is_true(second:is_sane())
    second:close()
    total()
    local cancelled = rebalance("cancel", "2", "-c", four, "--json")
    assert.equal(0, cancelled.code, cancelled.stderr)
    local told = cjson.decode(cancelled.stdout)
    assert.equal("cancelled", told.status)
    assert.equal(before[4] + told.total_migrated, total()[4]) -- what has moved stays where it is
    assert.equal('{"removed":[]}\n', rebalance("cleanup", "-c", four, "--json").stdout)
    assert.equal(0, cli.run({ "cluster", "verify", "-c", four, "--exit-code" }).code)
  end)
end)
