local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local sandbox = require("spec.support.sandbox")

describe("while many tasks work, the loss of replicas", function()
  local servers

  setup(function()
    servers = sandbox.start({ shards = 2, replicas = 2 })
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers:start()
  end)

  after_each(faults.close_all)

  -- Where reads of shard1 are answered now.
  local function readers(drill)
    local found = {}
    for _ = 1, 20 do
      local result = assert(drill.router:execute("SELECT 1 AS one", nil, { shard_id = "shard1", read_only = true }))
      found[result.endpoint] = true
    end
    return found
  end

  local function name_of(server)
    return ("%s:%d"):format(server.host, server.port)
  end

  local function wait_until_replicas_read(drill, replicas)
    cluster.wait_until("the replicas are read", function()
      local found = readers(drill)
      for _, replica in ipairs(replicas) do
        if not found[name_of(replica)] then
          return false
        end
      end
      return true
    end, 10)
  end

  it("by kill -9 of one fails no read and no write: the other one and the primary answer #long", function()
    local drill = faults.drill({ servers = servers, options = { max_replica_lag = 60 } })
    local replicas = servers.shards[1].replicas
    wait_until_replicas_read(drill, replicas)
    drill:fault("shard1", function()
      servers:kill(replicas[1].name)
    end)
    drill:expect_status("shard1", { server = replicas[1] })
    assert.is_nil(readers(drill)[name_of(replicas[1])])
    drill:expect_neighbours_unharmed()
    drill:expect_throughput()
    drill:recover(function()
      servers:start()
    end)
    wait_until_replicas_read(drill, replicas)
    drill:expect_reads_served()
    assert.equal(0, drill.ledger:count("undone") + drill.ledger:count("unknown"))
    drill:finish()
  end)

  it("by kill -9 of all leaves the primary to serve, and fails no read and no write", function()
    local drill = faults.drill({ servers = servers, options = { max_replica_lag = 60 } })
    local replicas = servers.shards[1].replicas
    wait_until_replicas_read(drill, replicas)
    drill:fault("shard1", function()
      for _, replica in ipairs(replicas) do
        servers:kill(replica.name)
      end
    end)
    for _, replica in ipairs(replicas) do
      drill:expect_status("shard1", { server = replica })
    end
    assert.same({ [name_of(servers.shards[1])] = true }, readers(drill))
    drill:expect_neighbours_unharmed()
    drill:expect_throughput()
    drill:recover(function()
      servers:start()
    end)
    wait_until_replicas_read(drill, replicas)
    drill:expect_reads_served()
    assert.equal(0, drill.ledger:count("undone") + drill.ledger:count("unknown"))
    drill:finish()
  end)

  it("by a lag of seconds takes it out of the reads until it has caught up", function()
    local MOST = 1
    local drill = faults.drill({ servers = servers, options = { max_replica_lag = MOST } })
    local replicas = servers.shards[1].replicas
    wait_until_replicas_read(drill, replicas)
    finally(function()
      faults.ask(replicas[1], "SELECT pg_wal_replay_resume()")
    end)
    drill:fault("shard1", function()
      assert(faults.ask(replicas[1], "SELECT pg_wal_replay_pause()"))
    end)
    cluster.wait_until("the lagging replica is read no more, and the status says why", function()
      local status = drill:endpoint("shard1", replicas[1])
      return readers(drill)[name_of(replicas[1])] == nil
        and (status.lag_seconds or 0) > MOST / 2 and (status.lag_bytes or 0) > 0
    end, MOST + 2 * drill.interval + 1)
    assert.is_true(readers(drill)[name_of(replicas[2])])
    drill:expect_neighbours_unharmed()
    drill:expect_throughput()
    assert.is_nil(readers(drill)[name_of(replicas[1])])
    drill:recover(function()
      assert(faults.ask(replicas[1], "SELECT pg_wal_replay_resume()"))
    end)
    wait_until_replicas_read(drill, replicas)
    drill:expect_reads_served()
    drill:finish()
  end)
end)
