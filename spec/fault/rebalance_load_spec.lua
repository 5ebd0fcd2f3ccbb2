-- A fourth shard joins three in one command while other processes read and write 2,000 times a second, the mover is killed
-- on the way, and the map of before comes back under the same load. LUNASHARD_RATE asks for another rate.
local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")

local KEYS = 3000
local PROCESSES = 2
local RATE = tonumber(os.getenv("LUNASHARD_RATE")) or 2000

describe("adding a shard under load #long", function()
  local cluster, four

  setup(function()
    cluster = moving.new({ shards = 4, strategy = "hash" })
    four = cluster:file(4)
    local router, manager = cluster:connect(3)
    local users, orders = {}, {}
    for key = 1, KEYS do
      users[key], orders[key] = { key, "user " .. key }, { key, 1, key }
    end
    assert(router:copy_in("users", { "user_id", "name" }, users))
    assert(router:copy_in("orders", { "user_id", "order_id", "amount" }, orders))
    manager:shutdown()
    cluster:init(3)
  end)

  teardown(function()
    cluster:destroy()
    sandbox.release()
  end)

  local function owners()
    local map = {}
    for _, row in ipairs(cluster:on(1, "SELECT bucket, shard_id FROM lunashard_catalog.bucket").rows) do
      map[row.bucket] = row.shard_id
    end
    return map
  end

  -- Run something while the load is on; gives what all processes did together.
  local function under_load(round, fn)
    local stop_file = ("%s/stop%d"):format(cluster.dir, round)
    local loads = {}
    for i = 1, PROCESSES do
      loads[i] = cli.spawn({ "run", "-c", four, "spec/support/load_process.lua", tostring(i - 1), tostring(PROCESSES),
        tostring(KEYS), tostring(RATE * 1.1 / PROCESSES), stop_file })
    end
    for _, load in ipairs(loads) do
      cli.wait_until("it works", function()
        return load:output():find("ready", 1, true) or not load:is_running()
      end)
    end
    local ok, problem = pcall(fn)
    cli.write(cluster.dir, "stop" .. round, "")
    local all = { rate = 0, operations = 0, added = {}, steps = {} }
    for _, load in ipairs(loads) do
      local ended = load:wait(90)
      assert.equal(0, ended.code, ended.stderr)
      local done = assert(cjson.decode(ended.stdout:match("\n(%b{})")))
      load:close()
      assert.same({}, done.failures)
      assert.is_true(done.scatters > 0)
      all.operations = all.operations + done.reads + done.writes
      all.rate = all.rate + (done.reads + done.writes) / done.seconds
      for _, key in ipairs(done.added) do
        all.added[key] = true
      end
      for key, n in pairs(done.steps) do
        all.steps[tonumber(key)] = n
      end
    end
    assert(ok, problem)
    print(("%d reads and writes, %.0f a second"):format(all.operations, all.rate))
    assert.is_true(all.rate >= RATE, ("%.0f reads and writes a second"):format(all.rate))
    return all
  end

  -- Every row exactly once, with all that was acknowledged; how many are on each shard.
  local function check(expected)
    local seen, on, total = {}, {}, 0
    for i = 1, 4 do
      local rows = cluster:on(i, "SELECT user_id, n FROM users").rows
      on[i], total = #rows, total + #rows
      for _, row in ipairs(rows) do
        assert.is_nil(seen[row.user_id], "twice: " .. row.user_id)
        seen[row.user_id] = true
        assert.equal(expected.steps[row.user_id] or 0, row.n)
      end
    end
    for key in pairs(expected.added) do
      assert.is_true(seen[key], "nowhere: " .. key)
    end
    for key = 1, KEYS do
      assert.is_true(seen[key], "nowhere: " .. key)
    end
    local verified = cli.run({ "cluster", "verify", "-c", four, "--exit-code" })
    assert.equal(0, verified.code, verified.stderr .. verified.stdout)
    return on, total
  end

  it("moves a quarter of the rows to it and none between the others, loses nothing, and back again", function()
    local before = owners()
    local first = under_load(1, function()
      local killed = cli.run({ "run", "-c", four, "spec/support/job_process.lua", "fenced:after-saved" })
      assert.equal(9, killed.signal, killed.stderr)
      local resumed = cli.run({ "rebalance", "resume", "-c", four, "--json" })
      assert.equal(0, resumed.code, resumed.stderr)
      assert.equal("completed", cjson.decode(resumed.stdout).status)
    end)
    local on, total = check(first)
    assert.is_true(math.abs(on[4] / total - 0.25) < 0.02, ("%d of %d rows"):format(on[4], total))
    local moved = 0
    for bucket, owner in pairs(owners()) do
      assert.is_true(owner == before[bucket] or owner == "s4")
      moved = moved + (owner == "s4" and 1 or 0)
    end
    assert.is_true(math.abs(moved / 16386 - 0.25) < 0.02, tostring(moved))

    for i = 1, 4 do -- counting begins anew
      cluster:on(i, "UPDATE users SET n = 0")
      cluster:on(i, ("DELETE FROM users WHERE user_id > %d"):format(KEYS))
    end
    local second = under_load(2, function()
      local result = cli.run({ "rebalance", "rollback", "-c", four, "--json" })
      assert.equal(0, result.code, result.stderr)
      assert.equal("rolled_back", cjson.decode(result.stdout).status)
    end)
    on = check(second)
    assert.equal(0, on[4])
    assert.same(before, owners())
  end)
end)
