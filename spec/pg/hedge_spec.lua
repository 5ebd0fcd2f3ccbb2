local cluster = require("spec.support.cluster")
local monitor = require("lunashard.manager.monitor")
local replicas = require("spec.support.replicas")
local signals = require("spec.support.signals")
local task = require("lunashard.task")

describe("hedged reads", function()
  local servers, router, manager
  local READ = "SELECT $1::int AS n"

  setup(function()
    servers = replicas.start(2)
    servers:wait_for_replay()
  end)

  teardown(function()
    servers:destroy()
  end)

  local frozen = {}

  local function freeze(name)
    signals.freeze(servers.sandbox, name)
    frozen[#frozen + 1] = name
  end

  local function thaw()
    for _, name in ipairs(frozen) do
      signals.thaw(servers.sandbox, name)
    end
    frozen = {}
  end

  after_each(function()
    thaw()
    cluster.close_all()
  end)

  local function connect(hedge)
    -- Probes are so rare that nobody but the reads finds out who is slow.
    router, manager = cluster.connect({
      cluster_file = servers.sandbox.cluster_file,
      health_check_interval = 600,
      hedge = hedge,
    })
    local member = manager:member("shard1")
    cluster.wait_until("the replicas are in use", function()
      monitor.check_now(manager, member)
      for _, replica in ipairs(member.replicas) do
        if replica.health.status ~= "healthy" or replica.health.lag_seconds ~= 0 then
          return false
        end
      end
      return true
    end)
  end

  local function read(n, opts)
    opts = opts or {}
    opts.routing_key, opts.read_only, opts.timeout = 1, true, opts.timeout or 5
    local result, err = router:execute(opts.sql or READ, { n }, opts.sql and { routing_key = 1, read_only = true,
      timeout = opts.timeout } or opts)
    assert.is_nil(err, tostring(err))
    assert.equal(n, result.rows[1].n)
    return result
  end

  -- Until it is known what is usual, and that the statement only reads, on both replicas.
  local function learn(sql)
    for i = 1, 60 do
      read(i, { sql = sql })
    end
    cluster.wait_until("both replicas have looked at the statement", function()
      read(1, { sql = sql })
      for _, replica in ipairs(manager:member("shard1").replicas) do
        if replica.pool.looking > 0 or not replica.pool:is_read(sql or READ) and not sql then
          return false
        end
      end
      return true
    end)
  end

  it("are answered by another endpoint when one does not answer in the usual time", function()
    connect({ percentile = 0.9, at_least = 0.02, share = 0.9 })
    learn()
    local before = router:get_statistics()
    freeze("shard1_replica1")
    for i = 1, 10 do
      assert.not_equal(servers.replicas[1], read(i).endpoint)
    end
    local after = router:get_statistics()
    assert.is_true(after.hedges_won > before.hedges_won)
    assert.is_true(after.hedged_reads >= after.hedges_won)
    assert.equal(before.errors, after.errors)
  end)

  it("leave nothing behind of the statement that lost", function()
    connect({ percentile = 0.9, at_least = 0.02, share = 0.9 })
    learn()
    freeze("shard1_replica1")
    for i = 1, 6 do
      read(i)
    end
    thaw()
    cluster.wait_until("the replica has nothing to do", function()
      return manager:member("shard1").replicas[1].pool:load() == 0
    end, 10)
    for i = 1, 6 do
      read(i)
    end
  end)

  it("are no more than a share of the reads", function()
    connect({ percentile = 0.01, at_least = 1e-6, share = 0.05 }) -- nearly all take longer than that
    learn()
    local before = router:get_statistics()
    for i = 1, 400 do
      read(i)
    end
    local after = router:get_statistics()
    local sent = after.hedged_reads - before.hedged_reads
    assert.is_true(sent > 0)
    assert.is_true(sent <= 10 + 400 * 0.05, sent .. " hedges")
    assert.is_true(after.hedges_refused > before.hedges_refused)
  end)

  it("are none without the option, and none where a call says so", function()
    connect(nil)
    learn()
    assert.equal(0, router:get_statistics().hedged_reads)
    cluster.close_all()
    connect({ percentile = 0.01, at_least = 1e-6, share = 0.5 })
    learn()
    local before = router:get_statistics().hedged_reads
    for i = 1, 50 do
      read(i, { hedge = false })
    end
    assert.equal(before, router:get_statistics().hedged_reads)
  end)

  it("can be had for a call alone", function()
    connect(nil)
    for i = 1, 200 do
      read(i, { hedge = { percentile = 0.01, at_least = 1e-6, share = 0.5 } })
    end
    cluster.wait_until("one was hedged", function()
      read(1, { hedge = { percentile = 0.01, at_least = 1e-6, share = 0.5 } })
      return router:get_statistics().hedged_reads > 0
    end)
  end)

  it("are never those that call something volatile, whatever the caller says", function()
    connect({ percentile = 0.01, at_least = 1e-6, share = 0.5 })
    local volatile = "SELECT $1::int AS n, random()"
    learn(volatile)
    for i = 1, 100 do
      read(i, { sql = volatile })
    end
    assert.equal(0, router:get_statistics().hedged_reads)
  end)

  it("end together when their task is cancelled", function()
    connect({ percentile = 0.9, at_least = 0.02, share = 0.9 })
    learn()
    freeze("shard1_replica1")
    freeze("shard1_replica2")
    local before = router:get_statistics().hedged_reads
    local reading = task.spawn(function()
      return router:execute(READ, { 1 }, { routing_key = 1, read_only = true, timeout = 60 })
    end)
    cluster.wait_until("both were asked", function()
      return router:get_statistics().hedged_reads == before + 1
    end)
    reading:cancel()
    local ok, err = reading:join(5)
    assert.is_nil(ok)
    assert.equal("CANCELED", err.code)
    thaw()
    cluster.wait_until("nothing is left to do", function()
      local list = manager:member("shard1").replicas
      return list[1].pool:load() + list[2].pool:load() == 0
    end, 10)
  end)

  it("fail as others do when nobody answers", function()
    connect({ percentile = 0.9, at_least = 0.02, share = 0.9 })
    learn()
    local result, err = router:execute(READ, { "no number" }, { routing_key = 1, read_only = true })
    assert.is_nil(result)
    assert.equal("SQL", err.code)
    assert.equal("22P02", err.sqlstate)
  end)

  it("hold for gathered reads too", function()
    connect({ percentile = 0.9, at_least = 0.02, share = 0.9 })
    learn()
    freeze("shard1_replica1")
    for i = 1, 6 do
      assert.equal(i, assert(router:scatter_gather(READ, { i }, { read_only = true, timeout = 5 })).rows[1].n)
    end
    assert.is_true(router:get_statistics().hedges_won > 0)
  end)
end)
