local cluster = require("spec.support.cluster")
local shards = require("lunashard.rebalancer.shards")
local support = require("spec.support.catalog")
local task = require("lunashard.task")
local watch = require("lunashard.catalog.watch")

local OFTEN = watch.POLL

-- A hint that something changed, without which the next look is all there is.
describe("a catalog that changes", function()
  local keeper

  setup(function()
    support.fill(1)
    keeper = support.install()
    watch.POLL = 600
  end)

  teardown(function()
    watch.POLL = OFTEN
    cluster.close_all()
    support.release()
  end)

  local function on_catalog(sql)
    return assert(keeper.by_id.shard1.primary.pool:execute(sql, nil, { pipeline = false })).rows
  end

  local function change()
    return on_catalog("SELECT lunashard_catalog.next_version() AS v")[1].v
  end

  local function connect()
    local _, manager = cluster.connect(support.options())
    cluster.wait_until("it listens", function()
      return manager.catalog.session
    end)
    return manager
  end

  local function hears(manager)
    local version = change()
    cluster.wait_until("it has heard", function()
      return manager.catalog.version >= version
    end)
  end

  it("says so to those who use it", function()
    local manager = connect()
    hears(manager)
    hears(manager)
  end)

  it("says so of a shard's state, too", function()
    local manager = connect()
    local function state()
      return manager.catalog.map.shards.shard2.state
    end
    assert.equal("active", state())
    for _, one in ipairs({ "draining", "active" }) do
      assert(shards.set(manager.catalog, "shard2", one, task.now() + 5))
      cluster.wait_until("it has heard", function()
        return state() == one
      end)
    end
  end)

  it("is listened to again when the session was lost, and what was said meanwhile is asked for", function()
    local manager = connect()
    local pid = manager.catalog.session.backend_pid
    on_catalog(("SELECT pg_terminate_backend(%d)"):format(pid))
    hears(manager)
    cluster.wait_until("it listens again", function()
      return manager.catalog.session and manager.catalog.session.backend_pid ~= pid
    end)
    hears(manager)
  end)

  it("is noticed without a word from it", function()
    watch.POLL = 0.2
    finally(function()
      watch.POLL = 600
      on_catalog("ALTER TABLE lunashard_catalog.cluster ENABLE TRIGGER tell")
    end)
    local manager = connect()
    on_catalog("ALTER TABLE lunashard_catalog.cluster DISABLE TRIGGER tell")
    hears(manager)
  end)

  it("has no session that listens when nobody uses it any more", function()
    local manager = connect()
    local pid = manager.catalog.session.backend_pid
    manager:shutdown()
    cluster.wait_until("the session has ended", function()
      return on_catalog(("SELECT FROM pg_stat_activity WHERE pid = %d"):format(pid))[1] == nil
    end)
  end)
end)
