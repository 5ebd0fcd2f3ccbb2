-- A destination whose disk is full: while rows are staged, and while they become rows of the table.
local cli = require("spec.support.cli")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local plan = require("lunashard.rebalancer.plan")
local process = require("lunashard.process")
local sandbox = require("spec.support.sandbox")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local KEYS = 800

describe("a destination whose disk is full", function()
  local cluster, disk, reason, before_limits

  -- A disk of our own needs root; it is a small one in memory, and its owner the servers' user.
  local function mount(dir)
    local owner = assert(system.stat(dir)).uid
    local path = cli.directory(493)
    local result = process.run({
      argv = { "mount", "-t", "tmpfs", "-o", ("size=4m,mode=0700,uid=%d"):format(owner), "tmpfs", path },
    })
    if not result or result.code ~= 0 then
      return nil, result and result.stderr or "mount cannot be run"
    end
    return path
  end

  setup(function()
    before_limits = plan.LIMITS.buckets
    plan.LIMITS.buckets = 9000 -- one move
    disk, reason = mount(sandbox.shared().dir .. "/data")
    if not disk then
      return
    end
    cluster = moving.new({ shards = 2, strategy = "hash" })
    local router, manager = cluster:connect(1)
    local users = {}
    for key = 1, KEYS do
      users[key] = { key, ("x"):rep(400) }
    end
    assert(router:copy_in("users", { "user_id", "name" }, users))
    manager:shutdown()
    cluster:init(1)
  end)

  teardown(function()
    plan.LIMITS.buckets = before_limits
    if disk then
      cluster:destroy()
      cluster:as_superuser(2, { "DROP TABLESPACE IF EXISTS small" }, "postgres")
      assert.equal(0, assert(process.run({ argv = { "umount", disk } })).code)
    end
    cli.remove_all()
    sandbox.release()
  end)

  -- One who writes meanwhile; gives a function that ends it, and tells how often each key was written.
  local function writer(router)
    local state = { written = {}, failures = {} }
    local one = lunashard.spawn(function()
      local key = 0
      while not state.stop do
        key = key % KEYS + 1
        local ok, err = router:execute("UPDATE users SET n = n + 1 WHERE user_id = $1", { key }, { routing_key = key })
        if ok and ok.row_count == 1 then
          state.written[key] = (state.written[key] or 0) + 1
        else
          table.insert(state.failures, tostring(err or "no row"))
        end
        task.sleep(0.001)
      end
    end):watch()
    return function()
      state.stop = true
      assert(one:join(30))
      assert.same({}, state.failures)
      return state.written
    end
  end

  local function check(written, second)
    local rows = 0
    for i = 1, 2 do
      local found = cluster:on(i, "SELECT user_id, n FROM users").rows
      rows = rows + #found
      for _, row in ipairs(found) do
        assert.equal(written[row.user_id] or 0, row.n)
      end
      if i == 2 then
        assert.is_true(second == 0 and #found == 0 or second > 0 and math.abs(#found / KEYS - second) < 0.05, tostring(#found))
      end
    end
    assert.equal(KEYS, rows)
  end

  it("(53100) fails the job, which says so, while its source serves all; with room again it is finished", function()
    if not disk then
      pending("no small disk can be had here, which takes root: " .. reason:match("^[^\n]*"))
      return
    end
    local database, user = cluster.shards[2].database, cluster.shards[2].user
    cluster:as_superuser(2, { ("CREATE TABLESPACE small LOCATION '%s'"):format(disk),
      ('GRANT CREATE ON TABLESPACE small TO "%s"'):format(user),
      "CREATE TABLE filler (t text)", "ALTER TABLE filler ALTER t SET STORAGE PLAIN",
      "ALTER TABLE filler SET TABLESPACE small", "ALTER TABLE users SET TABLESPACE small" })
    local router, manager = cluster:connect(2)
    local rebalancer = lunashard.rebalancer({ shard_manager = manager, batch_size = 100 })
    local job = assert(rebalancer:create_rebalance_job({ table_name = "users" }))
    assert.equal(1, job.moves_total)
    cluster:as_superuser(2, { ('ALTER DATABASE "%s" SET default_tablespace = small'):format(database),
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()" })
    for _, size in ipairs({ 100, 1 }) do
      local ok
      repeat
        ok = pcall(cluster.as_superuser, cluster, 2,
          { ("INSERT INTO filler SELECT repeat('x', 8000) FROM generate_series(1, %d)"):format(size) })
      until not ok
    end
    local finish = writer(router)

    -- staging
    local ok, err = rebalancer:execute_job(job.job_id)
    assert.is_nil(ok)
    assert(errors.is(err, "SQL"), tostring(err))
    assert.same({ "53100", "s2" }, { err.sqlstate, err.shard_id })
    assert.matches("move 1 %(s1 to s2%).*No space left on device", err.message)
    assert.equal("failed", job.status)
    assert.matches("No space left on device", job.error_message)

    -- merging: the staging tables have room now
    cluster:as_superuser(2, { ('ALTER DATABASE "%s" RESET default_tablespace'):format(database),
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()" })
    local merging
    rebalancer.at = function(point)
      merging = merging or point == "fenced:after-saved"
    end
    if job.open then -- its staging tables are on the full disk
      assert(rebalancer:cancel_job(job.job_id))
      job = assert(rebalancer:create_rebalance_job({ table_name = "users" }))
    end
    ok, err = rebalancer:execute_job(job.job_id)
    assert.is_nil(ok)
    assert.equal("53100", err.sqlstate, tostring(err))
    assert.is_true(merging)
    assert.same({}, assert(rebalancer:get_job_status(job.job_id)).fences)
    check(finish(), 0)

    finish = writer(router)
    cluster:as_superuser(2, { "DROP TABLE filler" })
    assert(rebalancer:resume_job(job.job_id))
    assert.equal("completed", job.status)
    local written = finish()
    for i = 1, 2 do
      for _, row in ipairs(cluster:on(i, "SELECT user_id, n FROM users").rows) do
        assert.is_true(row.n >= (written[row.user_id] or 0))
      end
    end
    assert.same({}, assert(rebalancer:cleanup()))
  end)
end)
