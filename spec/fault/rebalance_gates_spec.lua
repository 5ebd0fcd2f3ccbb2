-- Gates of jobs in waves, on servers that are really killed, really slow, or behind.
local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local install = require("lunashard.catalog.install")
local lunashard = require("lunashard")
local pool = require("lunashard.pool")
local sandbox = require("spec.support.sandbox")
local signals = require("spec.support.signals")
local task = require("lunashard.task")

local KEYS = 80
-- Under a sanitizer, or with the collector always on, everything takes its time.
local SLOWNESS = (os.getenv("LUNASHARD_GCSTRESS") or cli.binary:find("/asan/", 1, true)) and 4 or 1
local PATIENCE = 30 * SLOWNESS -- seconds

-- Ten keys in each bucket: six buckets are on shard1, and two on shard2.
local function ranges()
  local list = { shard1 = {}, shard2 = {} }
  for i = 0, 7 do
    table.insert(list[i < 6 and "shard1" or "shard2"], { i * 10, i * 10 + 9 })
  end
  return list
end

describe("a gradual job pauses by itself", function()
  local servers, replica, options, router, manager, warn

  setup(function()
    warn = lunashard.set_warn(function() end)
    servers = sandbox.start({ shards = 2, replicas = 1 })
    options = { cluster_file = servers.cluster_file, health_check_interval = 0.5, connection_timeout = 2,
      strategy = { "range", shard_key = "k", ranges = ranges(), allow_gaps = true },
      tables = { gated = { shard_key = "k", type = "int8" } } }
    local first = cluster.connect(options)
    assert(first:execute_on_all_shards("CREATE TABLE gated (k int8 PRIMARY KEY, n int NOT NULL DEFAULT 0)"))
    local rows = {}
    for key = 0, KEYS - 1 do
      rows[#rows + 1] = { key }
    end
    assert(first:copy_in("gated", { "k" }, rows))
    local _, static = cluster.connect(options)
    assert(install.run(static))
    cluster.close_all()
    router, manager = cluster.connect(options)
    local server = servers.shards[2].replicas[1]
    replica = pool.new({ shard_id = "admin", host = server.host, port = server.port, database = server.database,
      user = server.superuser, password = server.superuser_password, pipeline = false })
  end)

  teardown(function()
    lunashard.set_warn(warn)
    replica:close()
    cluster.close_all()
    servers:destroy()
  end)

  local function rows_on(i)
    return assert(manager.members[i].primary.pool:execute("SELECT count(*) AS n FROM gated")).rows[1].n
  end

  local function guards()
    return assert(manager.catalog:execute("SELECT guards FROM lunashard_catalog.cluster")).rows[1].guards
  end

  -- A job of two buckets in waves; something happens when the first wave is watched. Gives what the job says when it has ended,
  -- and the job.
  local function run(shares, soak, gate, fn)
    local rebalancer = lunashard.rebalancer({ shard_manager = manager })
    local job = assert(rebalancer:create_rebalance_job({ strategy = "gradual", waves = shares, soak = soak * SLOWNESS,
      gate = gate, moves = { { buckets = { "10..19", "20..29" }, to = "shard2" } } }))
    local worker = task.spawn(function()
      return { rebalancer:execute_job(job.job_id) }
    end):watch()
    cluster.wait_until("the first wave is watched", function()
      return job.waves.state == "soaking"
    end, PATIENCE)
    fn(worker)
    local _, ended = assert(worker:join(PATIENCE))
    return ended, job, rebalancer
  end

  local function assert_paused(ended, rebalancer, job, pattern, more)
    assert.is_nil(ended[1])
    assert.matches("^the job was paused: " .. pattern .. "$", ended[2].message)
    local told = assert(rebalancer:get_job_status(job.job_id))
    assert.same({ "paused", "soaking", 1 }, { told.status, told.waves.state, told.waves.current })
    assert.matches("^" .. pattern .. (more or "") .. "$", told.error_message)
    assert.matches("^" .. pattern .. "$", told.waves.verdict)
  end

  local function undo(rebalancer, job)
    assert(rebalancer:cancel_job(job.job_id))
    assert(rebalancer:rollback_job(job.job_id))
    assert.same({ KEYS - 20, 20 }, { rows_on(1), rows_on(2) })
    assert.is_false(guards())
  end

  it("when a replica does not keep up", function()
    local gate = { lag_seconds = 0.4, error_rate = false, p99_ms = false }
    local ended, job, rebalancer = run({ 50, 100 }, 60, gate, function(worker)
      assert(replica:execute("SELECT pg_wal_replay_pause()"))
      cluster.wait_until("the job has ended", function()
        assert(router:execute("UPDATE gated SET n = n + 1 WHERE k = 75")) -- nobody is behind while nothing is written
        return worker:status() == "ended"
      end, PATIENCE)
    end)
    assert(replica:execute("SELECT pg_wal_replay_resume()"))
    assert_paused(ended, rebalancer, job, "the replica lag of shard2 is %d+%.%d s, and the gate is 0.4 s")
    assert.same({ KEYS - 30, 30 }, { rows_on(1), rows_on(2) })
    assert.is_false(guards())
    undo(rebalancer, job)
  end)

  -- It stands still for most of the time.
  local function slow_down(name, worker)
    while worker:status() ~= "ended" do
      signals.freeze(servers, name)
      task.sleep(0.5)
      signals.thaw(servers, name)
      task.sleep(0.1)
    end
  end

  it("when a server is slow, and while it still is", function()
    local gate = { p99_ms = 300, error_rate = false, lag_seconds = false }
    local ended, job, rebalancer = run({ 50, 100 }, 60, gate, function(worker)
      slow_down("shard2", worker)
    end)
    assert_paused(ended, rebalancer, job, "the p99 of shard2 is %d+ ms, and the gate is 300 ms")
    undo(rebalancer, job)
  end)

  it("when a server is killed, and goes on when it is told to after its return", function()
    local gate = { error_rate = 0.2, p99_ms = false, lag_seconds = false }
    local ended, job, rebalancer = run({ 100 }, 1.5, gate, function()
      servers:kill("shard2")
    end)
    assert_paused(ended, rebalancer, job, "the error rate of shard2 is %d+%.%d+ %%, and the gate is 20.00 %%", "; triggers .*")
    assert.is_true(guards()) -- for the triggers on the server that is gone
    servers:start()
    cluster.wait_until("shard2 is back", function()
      return manager.shard_health.shard2.status == "healthy"
    end, PATIENCE)
    assert(rebalancer:execute_job(job.job_id))
    assert.equal("completed", rebalancer:get_job_status(job.job_id).status)
    assert.same({ KEYS - 40, 40 }, { rows_on(1), rows_on(2) })
  end)
end)
