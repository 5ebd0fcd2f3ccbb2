-- What is said when rows may not move: rights, definitions, a cluster file of another cluster, two at once. Nothing is
-- written down and nothing is left behind.
local cli = require("spec.support.cli")
local errors = require("lunashard.errors")
local gauge = require("spec.support.faults.gauge")
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local KEYS = 400

-- How long nothing else may run, in seconds. Under a sanitizer, or with the collector always on, everything takes its time.
local LONGEST = (os.getenv("LUNASHARD_GCSTRESS") or cli.binary:find("/asan/", 1, true)) and 10 or 0.1

describe("moving rows is refused", function()
  local cluster, owner, poor

  setup(function()
    cluster = moving.new({ shards = 3, strategy = "hash" })
    owner, poor = cluster.shards[1].user, ("poor_%d"):format(system.getpid())
    cluster:fill(2, 1, KEYS)
    cluster:init(2)
    for i = 1, 3 do
      cluster:as_superuser(i, { ("CREATE ROLE %s LOGIN PASSWORD 'poor'"):format(poor) })
    end
  end)

  teardown(function()
    for i = 1, 3 do
      cluster:as_superuser(i, { "DROP OWNED BY " .. poor, "DROP ROLE " .. poor })
    end
    cluster:destroy()
    sandbox.release()
  end)

  local function rebalancer(n, user)
    local manager = cluster:manager(n or 2, user)
    return lunashard.rebalancer({ shard_manager = manager }), manager
  end

  after_each(function()
    for _, manager in ipairs(cluster.managers) do
      manager:shutdown()
    end
  end)

  local function refused(one, given, code, text)
    local job, err = one:create_rebalance_job(given)
    assert.is_nil(job)
    assert(errors.is(err, code), tostring(err))
    assert.truthy(tostring(err):find(text, 1, true), tostring(err))
    assert.same({ jobs = 0, shards = 2 }, cluster:on(1, "SELECT (SELECT count(*) FROM lunashard_catalog.job) AS jobs, "
      .. "(SELECT count(*) FROM lunashard_catalog.shard) AS shards").rows[1])
    assert.is_nil(cluster:on(3, "SELECT to_regnamespace('lunashard')::text AS name").rows[1].name)
  end

  it("to a user who lacks a right, with what to grant", function()
    local even = { planner = "even", by = "buckets" }
    cluster:on(1, "GRANT USAGE ON SCHEMA lunashard_catalog TO " .. poor)
    cluster:on(1, "GRANT SELECT ON ALL TABLES IN SCHEMA lunashard_catalog TO " .. poor)
    cluster:on(1, "GRANT INSERT, UPDATE, DELETE ON lunashard_catalog.router TO " .. poor)
    local one = rebalancer(2, { user = poor, password = "poor" })
    local granted = ('GRANT "%s" TO "%s"'):format(owner, poor)
    refused(one, even, "AUTH", ("the catalog belongs to %s, and jobs are written there: %s"):format(owner, granted))
    cluster:as_superuser(1, { granted })
    refused(one, even, "INVALID", ("s2: a right is missing: GRANT SELECT ON public.orders TO %s (and 1 more)"):format(poor))
    cluster:on(2, "GRANT SELECT ON users, orders, countries TO " .. poor)
    local given = { planner = "pin", key = 1, shard = one.manager:get_shard_for_write(1).shard_id == "s1" and "s2" or "s1" }
    refused(one, given, "INVALID", ("s2: our schemas belong to %s, and moves write there: %s (and "):format(owner, granted))
    local _, err = one:create_rebalance_job(given)
    local lines = {}
    for _, problem in ipairs(err.problems) do
      lines[problem.table or ""] = problem.message
    end
    assert.equal(("belongs to %s, and only its owner can set triggers: %s"):format(owner, granted), lines.users)
    cluster:as_superuser(1, { ("REVOKE %s FROM %s"):format(owner, poor) })
  end)

  it("of a table without a primary key, and of a reference table that is not there", function()
    local one = rebalancer(3)
    for i = 1, 3 do
      cluster:on(i, "ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    end
    refused(one, { table_name = "users" }, "INVALID", "orders has no primary key, by which changes are followed: ALTER TABLE")
    for i = 1, 3 do
      cluster:on(i, "ALTER TABLE orders ADD PRIMARY KEY (user_id, order_id)")
    end
    cluster:on(3, "DROP TABLE countries CASCADE")
    refused(one, { table_name = "users" }, "INVALID", "s3: countries the reference table is not there")
  end)

  it("by a cluster file that leads elsewhere than the catalog says", function()
    local file = cluster:file(3)
    local second, third = cluster.shards[2].database, cluster.shards[3].database
    local other = cli.write(cluster.dir, "other.lua", ([[
      local options = dofile(%q)
      options.shards[2].database, options.shards[3].database = %q, %q
      return options]]):format(file, third, second))
    for _, action in ipairs({ "plan", "start", "resume" }) do
      local result = cli.run({ "rebalance", action, "-c", other })
      assert.equal(1, result.code, result.stderr)
      assert.matches("s2", result.stderr)
      assert.truthy(result.stderr:find(third, 1, true), result.stderr)
      assert.is_nil(result.stderr:find("traceback", 1, true))
      assert.equal("", result.stdout)
    end
  end)

  it("to all but one of those who begin at the same moment", function()
    local first, second = rebalancer(2), rebalancer(2)
    local given = { planner = "list", moves = { { buckets = { 0, 2, 4 }, to = "s2" } } }
    local function each(method, argument)
      local outcomes = {}
      for i, one in ipairs({ first, second }) do
        outcomes[i] = lunashard.spawn(function()
          return { one[method](one, argument) }
        end)
      end
      local won, lost
      for _, outcome in ipairs(outcomes) do
        local ok, value = outcome:join(60)
        assert(ok, tostring(value))
        if value[1] then
          assert.is_nil(won)
          won = value[1]
        else
          lost = value[2]
        end
      end
      return assert(won, tostring(lost)), lost
    end
    local job, lost = each("create_rebalance_job", given)
    assert.equal("JOB_OPEN", lost.code)
    assert.truthy(lost.message:find(("rebalance job %d (group int8) is pending: finish it first"):format(job.job_id), 1, true))
    local _, late = each("execute_job", job.job_id)
    assert.is_true(errors.is(late, "LOCK_HELD") or late.message:find("is completed", 1, true) ~= nil, tostring(late))
    assert.equal("completed", assert(first:get_job_status(job.job_id)).status)
    assert.equal(3, cluster:on(1, "SELECT count(*) AS n FROM lunashard_catalog.bucket WHERE bucket IN ('0', '2', '4') "
      .. "AND shard_id = 's2'").rows[1].n)
  end)

  it("never by holding everything up: others go on while 16,384 buckets are planned", function()
    local one = rebalancer(3)
    for _, given in ipairs({ { table_name = "users" }, { planner = "even", by = "rows" },
      { planner = "drain", shard = "s1" } }) do
      collectgarbage()
      local ticker = gauge.ticker()
      task.sleep(0.02)
      local made, err = one:plan(given)
      local blocked = ticker:stop()
      assert(made, tostring(err))
      assert.is_true(made.total_buckets > 16000)
      assert.is_true(blocked < LONGEST, ("%s: the loop was blocked for %.0f ms"):format(made.planner, blocked * 1000))
    end
  end)
end)
