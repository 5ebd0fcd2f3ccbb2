local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local process_signal = require("lunashard.core.system").kill
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local STOP, CONTINUE = 19, 18

describe("a shard that fails", function()
  local servers, router, manager

  setup(function()
    servers = sandbox.start({ shards = 3 })
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers:start()
    router, manager = cluster.connect({ cluster_file = servers.cluster_file })
    assert(router:execute_on_all_shards([[
      DROP TABLE IF EXISTS fault_writes;
      CREATE TABLE fault_writes (user_id bigint PRIMARY KEY, written int NOT NULL DEFAULT 1)]]))
  end)

  after_each(function()
    cluster.close_all()
  end)

  local function read(path, format)
    local file = assert(io.open(path))
    local content = file:read(format)
    file:close()
    return content
  end

  -- The postmaster of a shard and its children.
  local function server_processes(shard_id)
    local postmaster = read(("%s/data/%s/postmaster.pid"):format(servers.dir, shard_id), "*n")
    local pids = { postmaster }
    for pid in read(("/proc/%d/task/%d/children"):format(postmaster, postmaster), "*a"):gmatch("%d+") do
      pids[#pids + 1] = tonumber(pid)
    end
    return pids
  end

  local function signal(shard_id, number)
    local pids = server_processes(shard_id)
    assert.is_true(#pids > 1, "no processes of " .. shard_id .. " were found")
    for _, pid in ipairs(pids) do
      assert(process_signal(pid, number))
    end
  end

  it("by kill -9 in the middle of writes keeps every acknowledged row, exactly once", function()
    local outcome, next_id, running = {}, 0, true
    local writers = {}
    for i = 1, 20 do
      writers[i] = task.spawn(function()
        while running do
          next_id = next_id + 1
          local id = next_id
          local result, err = router:execute("INSERT INTO fault_writes (user_id) VALUES ($1)", { id },
            { routing_key = id, timeout = 2 })
          outcome[id] = result and "done" or err.code
          if not result then
            task.sleep(0.01)
          end
        end
      end)
    end
    task.sleep(0.3)
    servers:kill("shard2")
    task.sleep(0.3)
    servers:start()
    cluster.wait_until("shard2 takes writes again", function()
      return router:execute("SELECT 1", nil, { shard_id = "shard2", timeout = 1, read_only = true }) ~= nil
    end, 15)
    task.sleep(0.2)
    running = false
    for _, writer in ipairs(writers) do
      assert(writer:join(10))
    end

    local present = {}
    for row in router:stream("SELECT user_id FROM fault_writes") do
      assert.is_nil(present[row.user_id])
      present[row.user_id] = true
    end
    local counts = {}
    for id = 1, next_id do
      local code = outcome[id]
      counts[code] = (counts[code] or 0) + 1
      if code == "done" then
        assert.is_true(present[id], id .. " was acknowledged and is lost")
      elseif code ~= "UNKNOWN_OUTCOME" then
        assert.is_nil(present[id], ("%d is there, though %s said that it was not done"):format(id, code))
      end
    end
    assert.is_true(counts.done > 100)
    assert.is_true(next_id > counts.done, "nothing failed: the kill came to nothing")
  end)

  it("by SIGSTOP times out on its own and delays no other shard", function()
    signal("shard2", STOP)
    finally(function()
      signal("shard2", CONTINUE)
    end)
    local hung = {}
    for i = 1, 30 do
      hung[i] = task.spawn(function()
        return router:execute("SELECT 1", nil, { shard_id = "shard2", timeout = 1, read_only = true })
      end)
    end
    local slowest = 0
    for _ = 1, 200 do
      local result = assert(router:execute("SELECT 1", nil, { shard_id = "shard1" }))
      slowest = math.max(slowest, result.duration)
    end
    assert.is_true(slowest < 0.5, ("shard1 took %gs"):format(slowest))
    for _, one in ipairs(hung) do
      local _, result, err = assert(one:join(3))
      assert.is_nil(result)
      assert.is_true(err.code == "TIMEOUT" or err.code == "POOL_EXHAUSTED" or err.code == "SHARD_DOWN", tostring(err))
      assert.equal("shard2", err.shard_id)
    end
    signal("shard2", CONTINUE)
    cluster.wait_until("shard2 answers again", function()
      return router:execute("SELECT 1", nil, { shard_id = "shard2", timeout = 1, read_only = true }) ~= nil
    end, 10)
  end)

  it("is named when a scatter fails for it, and when a partial answer is asked for", function()
    servers:kill("shard2")
    local err = cluster.failure("SHARDS_FAILED", router:scatter_gather("SELECT count(*) AS count FROM fault_writes", nil,
      { timeout = 2 }))
    assert.equal("shard2", err.failed[1].shard_id)
    local partial = assert(router:scatter_gather("SELECT count(*) AS count FROM fault_writes", nil,
      { timeout = 2, on_failure = "partial" }))
    assert.is_false(partial.complete)
    assert.equal(1, #partial.failed)
    assert.equal(2, #partial.rows)
  end)

  it("does not keep initialize from going on, is said to be down, and recovers without a restart", function()
    servers:kill("shard3")
    local late = cluster.manager({ cluster_file = servers.cluster_file })
    local warnings = cluster.warnings(function()
      assert(late:initialize())
    end)
    assert.equal(1, #warnings)
    assert.is_truthy(warnings[1]:find("shard3", 1, true), warnings[1])
    assert.equal(2, late:get_cluster_status().healthy_shards)
    assert.is_false(late.shard_health.shard3.is_healthy)

    servers:start()
    local late_router = lunashard.router({ shard_manager = late })
    cluster.wait_until("shard3 is healthy again", function()
      late_router:execute("SELECT 1", nil, { shard_id = "shard3", timeout = 1 })
      return late.shard_health.shard3.is_healthy
    end, 10)
    assert.equal(3, late:get_cluster_status().healthy_shards)
  end)

  it("fails initialize when require_all asks for it", function()
    servers:kill("shard1")
    local strict = cluster.manager({ cluster_file = servers.cluster_file, require_all = true })
    local result, err
    cluster.warnings(function()
      result, err = strict:initialize()
    end)
    assert.equal("shard1", cluster.failure("SHARDS_FAILED", result, err).failed[1].shard_id)
  end)

  it("by a restart is used again at once, and reads in the pool do not see it", function()
    local shard = servers.shards[1]
    assert(router:execute("SELECT 1", nil, { shard_id = shard.shard_id, read_only = true }))
    servers:stop()
    servers:start()
    for _ = 1, 20 do
      assert(router:execute("SELECT 1", nil, { shard_id = shard.shard_id, read_only = true }))
    end
    assert.is_true(manager:get_pool_stats(shard.shard_id).used <= 1)
  end)
end)
