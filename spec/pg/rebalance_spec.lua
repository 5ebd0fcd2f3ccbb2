-- Adding a shard under reads and writes, bringing back the map of before, removing a shard: what becomes of the rows.
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local plan = require("lunashard.rebalancer.plan")
local prometheus = require("spec.support.prometheus")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local KEYS = 2000
local WRITERS, READERS = 4, 4

describe("a rebalance job", function()
  local cluster, before_limits

  local function load_rows(router)
    local users, orders = {}, {}
    for key = 1, KEYS do
      users[key] = { key, "user " .. key }
      orders[key] = { key, key % 3 + 1, key * 10 }
    end
    assert(router:copy_in("users", { "user_id", "name" }, users))
    assert(router:copy_in("orders", { "user_id", "order_id", "amount" }, orders))
    assert(router:execute("INSERT INTO countries VALUES ('at', 'Austria'), ('de', 'Germany')", nil, { table = "countries" }))
  end

  setup(function()
    before_limits = plan.LIMITS.buckets
    plan.LIMITS.buckets = 1500 -- few moves, or it takes long
    cluster = moving.new({ shards = 4, strategy = "hash" })
    local router, manager = cluster:connect(3)
    load_rows(router)
    manager:shutdown()
    cluster:init(3)
  end)

  teardown(function()
    plan.LIMITS.buckets = before_limits
    cluster:destroy()
    sandbox.release()
  end)

  -- key -> the shards that have it, straight from these
  local function found(table_name)
    local where = {}
    for i = 1, 4 do
      for _, row in ipairs(cluster:on(i, ("SELECT user_id FROM %s ORDER BY user_id"):format(table_name)).rows) do
        where[row.user_id] = where[row.user_id] and where[row.user_id] .. " s" .. i or "s" .. i
      end
    end
    return where
  end

  local function owners(manager)
    local map = {}
    for _, row in ipairs(assert(manager.catalog:execute("SELECT bucket, shard_id FROM lunashard_catalog.bucket")).rows) do
      map[row.bucket] = row.shard_id
    end
    return map
  end

  local function counts(where)
    local list = {}
    for _, shards in pairs(where) do
      list[shards] = (list[shards] or 0) + 1
    end
    return list
  end

  -- Nothing of a job is left anywhere.
  local function assert_clean(manager)
    local joined = assert(manager.catalog:execute("SELECT count(*) AS n FROM lunashard_catalog.shard")).rows[1].n
    for i = 1, joined do
      assert.same({ triggers = 0, tables = 0, functions = 0, moves = 0, in_transition = 0 }, cluster:on(i, [[
        SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'lunashard%') AS triggers,
          (SELECT count(*) FROM pg_class WHERE relnamespace = 'lunashard_staging'::regnamespace) AS tables,
          (SELECT count(*) FROM pg_proc WHERE pronamespace = 'lunashard_staging'::regnamespace) AS functions,
          (SELECT count(*) FROM lunashard.move) AS moves, (SELECT in_transition FROM lunashard.state) AS in_transition]]).rows[1])
    end
    assert.is_false(assert(manager.catalog:execute("SELECT guards FROM lunashard_catalog.cluster")).rows[1].guards)
  end

  -- Reads and writes through a router of their own, until they are told to stop. What was acknowledged is kept.
  local function traffic(router)
    local state = { acknowledged = {}, amounts = {}, failures = {}, reads = 0, writes = 0, tasks = {} }
    local function fail(what, err)
      state.failures[#state.failures + 1] = what .. ": " .. tostring(err)
    end
    local next_key = KEYS
    for w = 1, WRITERS do
      state.tasks[#state.tasks + 1] = lunashard.spawn(function()
        local n = w
        while not state.stop do
          next_key = next_key + 1
          local key = next_key
          local ok, err = router:execute("INSERT INTO users (user_id, name) VALUES ($1, 'new')", { key }, { routing_key = key,
            table = "users" })
          if ok then
            state.acknowledged[key], state.writes = true, state.writes + 1
          else
            fail("insert", err)
          end
          n = n % KEYS + WRITERS
          ok, err = router:execute("UPDATE users SET n = n + 1 WHERE user_id = $1", { n }, { routing_key = n, table = "users" })
          if ok and ok.row_count == 1 then
            state.amounts[n], state.writes = (state.amounts[n] or 0) + 1, state.writes + 1
          else
            fail("update", err or ok.row_count .. " rows")
          end
          task.sleep(0.002)
        end
      end):watch()
    end
    for _ = 1, READERS do
      state.tasks[#state.tasks + 1] = lunashard.spawn(function()
        while not state.stop do
          local key = math.random(KEYS)
          local ok, err = router:execute("SELECT name FROM users WHERE user_id = $1", { key }, { routing_key = key,
            table = "users", read_only = true })
          if not ok or ok.row_count ~= 1 then
            fail("read", err or ok.row_count .. " rows")
          end
          state.reads = state.reads + 1
          if state.reads % 50 == 0 then
            ok, err = router:execute("SELECT count(*) AS n FROM orders")
            if not ok or ok.rows[1].n ~= KEYS then
              fail("scatter", err or ok.rows[1].n .. " rows")
            end
          end
          task.sleep(0.001)
        end
      end):watch()
    end
    function state.finish()
      state.stop = true
      for _, one in ipairs(state.tasks) do
        assert(one:join(30))
      end
    end
    return state
  end

  it("moves a quarter to a fourth shard under reads and writes, and brings back the map of before", function()
    local router, manager = cluster:connect(4)
    local rebalancer = lunashard.rebalancer({ shard_manager = manager, router = router })
    local map = owners(manager)
    local state = traffic(router)
    local job = assert(rebalancer:create_rebalance_job({ table_name = "users", shard_key = "user_id",
      strategy = "live_migration" }))
    assert.equal("pending", job.status)
    assert.is_true(math.abs(job.plan.share - 0.25) < 0.02, tostring(job.plan.share))
    local _, err = rebalancer:create_rebalance_job({ table_name = "users" })
    assert.equal("JOB_OPEN", err.code)
    local most = 0
    rebalancer.at = function()
      most = math.max(most, #job.active)
    end
    local ok
    ok, err = rebalancer:execute_job(job.job_id)
    rebalancer.at = nil
    state.finish()
    assert(ok, tostring(err))
    assert.same({ 3, 2 }, { #job.plan.moves, most }) -- all to one shard: as many at a time as max_per_shard says
    assert.same({}, state.failures)
    assert.is_true(state.writes > 100 and state.reads > 100)

    local status = assert(rebalancer:get_job_status(job.job_id))
    assert.same({ "completed", 100, status.moves_total }, { status.status, status.progress_percent, status.moves_done })
    assert.equal(status.total_rows, status.total_migrated)
    assert.is_true(status.last_pause > 0 and status.duration_seconds > 0)
    assert.equal(job, rebalancer.jobs[job.job_id])
    assert.equal(#job.plan.moves, status.moves_total)
    assert.equal("completed", job.status)

    local now, moved = owners(manager), 0
    for bucket, owner in pairs(map) do
      assert.is_true(now[bucket] == owner or now[bucket] == "s4")
      moved = moved + (now[bucket] == "s4" and 1 or 0)
    end
    assert.is_true(math.abs(moved / 16386 - 0.25) < 0.001, tostring(moved))
    local where = found("users")
    local each, total = counts(where), 0
    for shards, n in pairs(each) do
      assert.truthy(shards:find("^s%d$"), ("%d keys are on %s"):format(n, shards))
      total = total + n
    end
    assert.is_true(math.abs(each.s4 / total - 0.25) < 0.02, tostring(each.s4 / total))
    for key in pairs(state.acknowledged) do
      assert(where[key], ("the acknowledged row %d is nowhere"):format(key))
    end
    for i = 1, 4 do
      for _, row in ipairs(cluster:on(i, "SELECT user_id, n FROM users WHERE n > 0").rows) do
        assert.equal(state.amounts[row.user_id], row.n)
        state.amounts[row.user_id] = nil
      end
      assert.equal(2, cluster:on(i, "SELECT count(*) AS n FROM countries").rows[1].n)
    end
    assert.is_nil(next(state.amounts))
    local orders = found("orders")
    for key, shards in pairs(orders) do
      assert.equal(where[key], shards) -- rows of a group stay together
    end
    assert_clean(manager)
    assert(require("lunashard.serve.rebalance").refresh(manager))
    local seen = prometheus.samples(lunashard.metrics.render({ manager = manager, router = router }))
    assert.same({ job.job_id, 1, 0, status.moves_total, status.total_rows }, { seen.lunashard_rebalance_job,
      seen.lunashard_rebalance_progress_ratio, seen.lunashard_rebalance_running,
      seen['lunashard_rebalance_moves{state="done"}'], seen.lunashard_rebalance_rows_migrated })

    _, err = rebalancer:resume_job(job.job_id)
    assert.equal("INVALID", err.code)
    assert.truthy(err.message:find("is completed: there is nothing to resume", 1, true))
    ok, err = rebalancer:rollback_job(job.job_id)
    assert(ok, tostring(err))
    assert.same(map, owners(manager))
    assert.equal("rolled_back", job.status)
    assert.equal(0, counts(found("users")).s4 or 0)
    assert.equal(total, (function()
      local n = 0
      for _, shards in pairs(found("users")) do
        assert.truthy(shards:find("^s%d$"))
        n = n + 1
      end
      return n
    end)())
    assert_clean(manager)
    _, err = rebalancer:rollback_job(job.job_id)
    assert.truthy(err.message:find("is rolled back already", 1, true))
  end)

  it("empties a shard, which leaves the map then", function()
    local _, manager = cluster:connect(4)
    local rebalancer = lunashard.rebalancer({ shard_manager = manager })
    local job = assert(rebalancer:create_rebalance_job({ planner = "drain", shard = "s3" }))
    local ok, err = rebalancer:execute_job(job.job_id)
    assert(ok, tostring(err))
    assert.is_nil(counts(found("users")).s3)
    assert.is_nil(counts(found("orders")).s3)
    for _, owner in pairs(owners(manager)) do
      assert.is_not.equal("s3", owner)
    end
    assert.equal("removed", assert(manager.catalog:execute(
      "SELECT state FROM lunashard_catalog.shard WHERE shard_id = 's3'")).rows[1].state)
    assert_clean(manager)
    job = assert(rebalancer:create_rebalance_job({ planner = "drain", shard = "s3" })) -- which has nothing any more
    assert(rebalancer:execute_job(job.job_id))
    assert.same({ "completed", 0 }, { job.status, job.moves_total })
  end)

  it("is undone as far as it can be when it is cancelled, and goes on after a pause", function()
    local _, manager = cluster:connect(4)
    local rebalancer = lunashard.rebalancer({ shard_manager = manager, max_parallel_tasks = 1 })
    local map = owners(manager)
    local job = assert(rebalancer:create_rebalance_job({ planner = "pin", shard = "s2", key = 17 }))
    rebalancer.at = function(point)
      if point == "capturing:after-saved" then
        rebalancer.interrupt = "enough for now"
      end
    end
    local _, err = rebalancer:execute_job(job.job_id)
    assert(errors.is(err, "CANCELED"), tostring(err))
    assert.same({ "paused", true }, { job.status, job.open })
    rebalancer.interrupt = nil
    assert(rebalancer:cancel_job(job.job_id))
    assert.equal("cancelled", job.status)
    assert.same(map, owners(manager))
    assert_clean(manager)
    _, err = rebalancer:cancel_job(job.job_id)
    assert.truthy(err.message:find("is cancelled: there is nothing to cancel", 1, true))
    rebalancer.at = nil
    job = assert(rebalancer:create_rebalance_job({ planner = "pin", shard = "s2", key = 17 }))
    assert(rebalancer:execute_job(job.job_id))
    assert.equal("s2", (manager:get_shard_for_write(17).shard_id))
    assert.equal("s2", found("users")[17])
    local later = assert(rebalancer:create_rebalance_job({ planner = "pin", shard = "s4", key = 17 }))
    assert(rebalancer:execute_job(later.job_id))
    _, err = rebalancer:rollback_job(job.job_id)
    assert.truthy(err.message:find(("has been moved again since job %d, to s4: roll back the later job first"):format(job.job_id),
      1, true), err.message)
    assert.equal("completed", assert(rebalancer:get_job_status(job.job_id)).status)
    assert.equal("s4", found("users")[17])
  end)

  it("is refused when there is something wrong, and says what", function()
    local _, manager = cluster:connect(4)
    local rebalancer = lunashard.rebalancer({ shard_manager = manager })
    local function refused(given, code, text)
      local made, err = rebalancer:create_rebalance_job(given)
      assert.is_nil(made)
      assert(errors.is(err, code), tostring(err))
      assert.truthy(err.message:find(text, 1, true), err.message)
    end
    refused({ group = "int" }, "INVALID", 'there is no group "int"; did you mean "int8"?')
    refused({ table_name = "user" }, "INVALID", "user")
    refused({ table_name = "users", shard_key = "id" }, "INVALID", "the shard key of users is user_id, not id")
    refused({ planner = "evn" }, "INVALID", 'there is no planner "evn"; did you mean "even"?')
    refused({ planner = "drain" }, "INVALID", "drain: say which shard")
    refused({ planner = "drain", shard = "s9" }, "NO_SHARD", "there is no shard s9")
    refused({ planner = "pin", shard = "s2" }, "INVALID", "pin: say what, with key or buckets")
    refused({ planner = "pin", shard = "s2", buckets = { "99999" } }, "INVALID", "has no bucket 99999")
    assert.has_error(function()
      rebalancer:create_rebalance_job({ strategy = "live" })
    end)
    cluster:on(1, "ALTER TABLE orders ADD COLUMN extra text")
    refused({ planner = "even", by = "buckets" }, "INVALID", "orders has other columns than on")
    cluster:on(1, "ALTER TABLE orders DROP COLUMN extra")
    local _, err = rebalancer:execute_job(4711)
    assert.truthy(err.message:find("there is no rebalance job 4711", 1, true))
  end)
end)
