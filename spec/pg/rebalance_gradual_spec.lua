local cli = require("spec.support.cli")
-- Jobs in waves: the shards have to stay well after each, or the job pauses, and moves the wave back if it is told to.
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local KEYS = 80

-- Ten keys in each bucket: r0 to r5 on s1, r6 and r7 on s2.
local function bucket(i)
  return ("%d..%d"):format(i * 10, i * 10 + 9)
end

-- Under a sanitizer, or with the collector always on, everything takes its time.
local SLOWNESS = (os.getenv("LUNASHARD_GCSTRESS") or cli.binary:find("/asan/", 1, true)) and 4 or 1

describe("a gradual job", function()
  local cluster, router, manager

  setup(function()
    cluster = moving.new({ shards = 2, strategy = moving.tens() })
    cluster:fill(2, 0, KEYS - 1)
    cluster:init(2)
    router, manager = cluster:connect(2)
  end)

  teardown(function()
    cluster:destroy()
    sandbox.release()
  end)

  local function owners()
    local list = {}
    for _, row in ipairs(assert(manager.catalog:execute("SELECT bucket, shard_id FROM lunashard_catalog.bucket")).rows) do
      if row.shard_id == "s2" then
        list[#list + 1] = "r" .. tonumber(row.bucket:match("^%d+")) / 10
      end
    end
    table.sort(list)
    return table.concat(list, " ")
  end

  -- Every key once, and where the map says.
  local function assert_rows()
    local seen, count = {}, 0
    for i = 1, 2 do
      for _, row in ipairs(cluster:on(i, "SELECT user_id FROM users").rows) do
        assert.is_nil(seen[row.user_id])
        seen[row.user_id], count = "s" .. i, count + 1
        assert.equal(manager:get_shard_for_write(row.user_id).shard_id, "s" .. i)
      end
    end
    assert.equal(KEYS, count)
  end

  local function create(more)
    local rebalancer = lunashard.rebalancer({ shard_manager = manager })
    local given = { strategy = "gradual", waves = { 25, 50, 100 }, soak = 0.5,
      moves = { { buckets = { bucket(1), bucket(2), bucket(3), bucket(4) }, to = "s2" } } }
    for name, value in pairs(more or {}) do
      given[name] = value
    end
    given.soak = given.soak * SLOWNESS
    return rebalancer, assert(rebalancer:create_rebalance_job(given))
  end

  local function run(rebalancer, job)
    return task.spawn(function()
      return { rebalancer:execute_job(job.job_id) }
    end):watch()
  end

  local function wait_for(job, what)
    local deadline = task.now() + 20 * SLOWNESS
    while not what(job.waves) do
      assert(task.now() < deadline, "it does not come")
      task.sleep(0.01)
    end
  end

  -- Statements of s2 while the worker is at work; false when none was sent.
  local function disturb(sql, job, wave, worker)
    wait_for(job, function(waves)
      return waves.state == "soaking" and waves.current == wave
    end)
    repeat
      router:execute(sql, nil, { shard_id = "s2" })
      local status = worker:status()
    until status == "ended" or job.waves.verdict
    return unpack((select(2, assert(worker:join(20 * SLOWNESS)))))
  end

  it("moves a part, waits, moves the next one, and tells where it is", function()
    local rebalancer, job = create()
    assert.same({ 25, 1, 1, 10 }, { job.plan.waves[1].share, job.plan.waves[1].moves, job.plan.waves[1].buckets,
      job.plan.waves[1].rows })
    assert.same({ 3, 2, 20 }, { #job.plan.waves, job.plan.waves[3].buckets, job.plan.waves[3].rows })
    local worker = run(rebalancer, job)
    wait_for(job, function(waves)
      return waves.state == "soaking" and waves.current == 2 and waves.reading
    end)
    assert.equal("r1 r2 r6 r7", owners())
    local told = assert(rebalancer:get_job_status(job.job_id))
    assert.same({ 2, 3, 50, "running" }, { told.waves.current, told.waves.total, told.waves.share, told.status })
    local _, result = assert(worker:join(20 * SLOWNESS))
    assert.same({ true }, result)
    told = assert(rebalancer:get_job_status(job.job_id))
    assert.same({ "completed", "passed", 3 }, { told.status, told.waves.state, told.waves.passed })
    assert.equal(0, told.waves.reading.error_rate)
    assert.is_true(told.waves.reading.p99_ms > 0)
    assert.equal("r1 r2 r3 r4 r6 r7", owners())
    assert(rebalancer:rollback_job(job.job_id)) -- at once, without waves
    assert.equal("r6 r7", owners())
    assert_rows()
  end)

  it("pauses when a shard has become slow, with what is half-way done, and goes on when it is told to", function()
    local rebalancer, job = create({ soak = 5, gate = { p99_ms = 250 } })
    local worker = run(rebalancer, job)
    local ok, err = disturb("SELECT pg_sleep(0.4)", job, 1, worker)
    assert.is_nil(ok)
    assert.equal("CANCELED", err.code)
    assert.matches("^the job was paused: the p99 of s2 is %d+ ms, and the gate is 250 ms$", err.message)
    local told = assert(rebalancer:get_job_status(job.job_id))
    assert.same({ "paused", "soaking", 1 }, { told.status, told.waves.state, told.waves.current })
    assert.matches("the p99 of s2 is", told.error_message)
    assert.equal("r1 r6 r7", owners())
    assert.is_false(assert(manager.catalog:execute("SELECT guards FROM lunashard_catalog.cluster")).rows[1].guards)

    worker = run(rebalancer, job)
    wait_for(job, function(waves)
      return waves.soaked and waves.soaked > 0.5
    end)
    assert.equal("r1 r6 r7", owners()) -- the while of the first wave begins anew
    assert(rebalancer:cancel_job(job.job_id))
    worker:join(20 * SLOWNESS)
    assert.equal("cancelled", rebalancer:get_job_status(job.job_id).status)
    assert(rebalancer:rollback_job(job.job_id))
    assert_rows()
  end)

  it("moves the last wave back when statements fail, also when its mover is killed meanwhile, and tries it again", function()
    local rebalancer, job = create({ soak = 1.2, gate = { error_rate = 0.2, p99_ms = false }, reverse = true })
    local worker = run(rebalancer, job)
    disturb("SELECT 1 / 0", job, 2, worker)
    local told = assert(rebalancer:get_job_status(job.job_id))
    assert.equal("paused", told.status)
    assert.matches("^the error rate of s2 is %d+%.%d+ %%, and the gate is 20.00 %%; wave 2 was moved back$", told.error_message)
    assert.equal("r1 r6 r7", owners())
    assert_rows()

    worker = run(rebalancer, job)
    wait_for(job, function(waves)
      return waves.state == "soaking" and waves.current == 2
    end)
    assert.equal("r1 r2 r6 r7", owners())
    disturb("SELECT 1 / 0", job, 2, { status = function()
      return job.waves.state == "reversing" and "ended" or "waiting"
    end, join = function()
      worker:cancel()
      return true, { worker:join(20 * SLOWNESS) }
    end })
    told = assert(rebalancer:get_job_status(job.job_id))
    assert.same({ "running", true }, { told.status, told.interrupted })
    local ok, err = rebalancer:execute_job(job.job_id)
    assert.is_nil(ok)
    assert.matches("wave 2 was moved back$", err.message)
    assert.equal("r1 r6 r7", owners())
    assert(rebalancer:execute_job(job.job_id))
    assert.equal("r1 r2 r3 r4 r6 r7", owners())
    assert_rows()
    assert(rebalancer:rollback_job(job.job_id))
    assert.equal("r6 r7", owners())
    assert_rows()
  end)

  it("moves back what went both ways, and moves it again with all that was written meanwhile", function()
    local moves = { { buckets = { bucket(1), bucket(2) }, to = "s2" }, { buckets = { bucket(6), bucket(7) }, to = "s1" } }
    local rebalancer, job = create({ waves = { 60, 100 }, soak = 1.2, gate = { error_rate = 0.2, p99_ms = false },
      reverse = true, moves = moves })
    local written = 0
    local function write()
      written = written + 1
      for key = 0, KEYS - 1 do
        assert(router:execute("INSERT INTO orders VALUES ($1, $2, 1)", { key, written }, { routing_key = key }))
      end
    end
    local worker = run(rebalancer, job)
    wait_for(job, function(waves)
      return waves.state == "soaking"
    end)
    local moved = owners()
    assert.is_not.equal("r6 r7", moved)
    assert.is_true(moved:find("r[12]") ~= nil and (moved:find("r6", 1, true) and moved:find("r7", 1, true)) == nil, moved)
    write()
    disturb("SELECT 1 / 0", job, 1, worker)
    assert.matches("wave 1 was moved back$", assert(rebalancer:get_job_status(job.job_id)).error_message)
    assert.equal("r6 r7", owners())
    write()
    assert(rebalancer:execute_job(job.job_id))
    assert.equal("r1 r2", owners())
    assert_rows()
    for i = 1, 2 do
      for _, row in ipairs(cluster:on(i, "SELECT user_id, count(*) AS n FROM orders GROUP BY user_id").rows) do
        assert.same({ "s" .. i, 2 }, { manager:get_shard_for_write(row.user_id).shard_id, row.n })
        written = written + 1
      end
    end
    assert.equal(2 + KEYS, written)
    assert(rebalancer:rollback_job(job.job_id))
    assert.equal("r6 r7", owners())
    assert_rows()
  end)

  it("is refused when its waves or gates make no sense", function()
    local rebalancer = lunashard.rebalancer({ shard_manager = manager })
    for _, case in ipairs({
      { { waves = { 5, 5, 100 } }, "waves[2]: expected a percentage above 5, up to 100, got 5" },
      { { waves = { 5, 50 } }, "waves: the last one must be 100 (percent)" },
      { { gate = { eror_rate = 5 } }, 'gate: unknown limit eror_rate; did you mean "error_rate"?' },
      { { gate = { lag_seconds = "much" } }, "gate: lag_seconds: expected a number, 0 or more, or false, got much" },
      { { soak = -1 }, "soak: expected seconds, 0 or more, got -1" },
      { { strategy = "offline", soak = 1 }, 'soak goes with strategy = "gradual"' },
    }) do
      local given = { strategy = "gradual", planner = "even" }
      for name, value in pairs(case[1]) do
        given[name] = value
      end
      local ok, message = pcall(rebalancer.create_rebalance_job, rebalancer, given)
      assert.is_false(ok)
      assert.truthy(message:find(case[2], 1, true), message)
    end
  end)
end)
