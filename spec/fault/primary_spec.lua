local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local kill = require("lunashard.core.system").kill
local sandbox = require("spec.support.sandbox")
local signals = require("spec.support.signals")

local KILL = require("lunashard.process").signals.KILL

describe("while many tasks work, the loss of a primary", function()
  local servers

  setup(function()
    servers = sandbox.start({ shards = 3 })
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers:start()
  end)

  after_each(faults.close_all)

  it("by kill -9 loses and doubles no write, harms no neighbour, is said, and passes with the server's return", function()
    local drill = faults.drill({ servers = servers })
    for _ = 1, 2 do
      drill:fault("shard2", function()
        servers:kill("shard2")
      end)
      drill:expect_status("shard2")
      drill:expect_neighbours_unharmed()
      drill:recover(function()
        servers:start()
      end)
      drill:expect_throughput()
    end
    drill:expect_unknown_in_flight("shard2", 2 * 2 * drill:writers())
    drill:finish()
  end)

  it("by kill -9 of one session, upon which the server ends them all and recovers, passes by itself #long", function()
    local drill = faults.drill({ servers = servers })
    drill:fault("shard2", function()
      local sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'lunashard' LIMIT 1"
      assert(kill(assert(faults.ask(servers.shards[2], sql)).rows[1].pid, KILL))
    end)
    cluster.wait_until("the server has recovered", function()
      return faults.ask(servers.shards[2], "SELECT 1") ~= nil
    end, 15)
    drill:recover(function() end)
    drill:expect_throughput()
    drill:expect_neighbours_unharmed()
    drill:expect_unknown_in_flight("shard2", 2 * drill:writers())
    drill:finish()
  end)

  -- The rows are on disk and nobody has been told: what the caller hears must be that it is not known.
  it("by kill -9 in the middle of commits says of none of them that it was done, or that it was not", function()
    local drill = faults.drill({ servers = servers })
    local server = servers.shards[2]
    drill:baseline()
    local began = drill.ledger:count("done", "shard2")
    drill:fault("shard2", function()
      faults.set(server, "synchronous_standby_names", "nobody")
      cluster.wait_until("every writer waits in a commit", function()
        local sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        return assert(faults.ask(server, sql)).rows[1].n > 0 -- several share a connection
      end)
      drill:observe(0.2)
      servers:kill("shard2")
    end)
    drill:expect_status("shard2")
    drill:recover(function()
      servers:start()
      faults.set(server, "synchronous_standby_names", nil)
    end)
    drill:expect_throughput()
    assert.is_true(drill.ledger:count("unknown", "shard2") > 0)
    assert.is_true(drill.ledger:count("done", "shard2") > began)
    drill:finish()
  end)

  it("by commits that hang until the deadline says of none of them that it was not done #long", function()
    local drill = faults.drill({ servers = servers })
    local server = servers.shards[2]
    finally(function()
      faults.set(server, "synchronous_standby_names", nil)
    end)
    drill:fault("shard2", function()
      faults.set(server, "synchronous_standby_names", "nobody")
    end)
    drill:expect_neighbours_unharmed()
    drill:observe(2 * drill.timeout)
    drill:recover(function()
      faults.set(server, "synchronous_standby_names", nil)
    end)
    drill:expect_throughput()
    assert.is_true(drill.ledger:count("unknown", "shard2") > 0) -- what was never sent may be undone, and the ledger looks
    drill:finish()
  end)

  it("by SIGSTOP for longer than the deadline freezes nobody else, and passes with SIGCONT", function()
    local drill = faults.drill({ servers = servers })
    finally(function()
      signals.thaw(servers, "shard2")
    end)
    drill:fault("shard2", function()
      signals.freeze(servers, "shard2")
    end)
    drill:expect_status("shard2")
    drill:expect_neighbours_unharmed()
    drill:observe(2 * drill.timeout)
    drill:expect_neighbours_unharmed()
    drill:recover(function()
      signals.thaw(servers, "shard2")
    end)
    drill:expect_throughput()
    drill:finish()
  end)
end)
