local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local sandbox = require("spec.support.sandbox")

-- Commits wait for the replica, so that what was acknowledged must outlive the old primary.
describe("while many tasks work, a new primary", function()
  local servers, old, new, events

  before_each(function()
    servers = sandbox.start({ shards = 2, replicas = 1 })
    old, new = servers.shards[1], servers.shards[1].replicas[1]
    faults.synchronous(old)
    events = {}
  end)

  after_each(function()
    faults.close_all()
    servers:destroy()
  end)

  local function begin()
    return faults.drill({
      servers = servers,
      options = {
        health_check_interval = 0.25,
        on_health = function(event)
          table.insert(events, event)
        end,
      },
    })
  end

  local function name_of(server)
    return ("%s:%d"):format(server.host, server.port)
  end

  local function wait_for_event(kind, server)
    cluster.wait_until(("%s is told of %s"):format(kind, server.name), function()
      for _, event in ipairs(events) do
        if event.kind == kind and event.endpoint == name_of(server) then
          return true
        end
      end
      return false
    end)
  end

  -- Reads and writes are answered by the new primary alone.
  local function expect_all_at_new(drill)
    for i = 1, 10 do
      local opts = { shard_id = "shard1", read_only = i % 2 == 0 }
      local result = assert(drill.router:execute("SELECT count(*) AS n FROM fault_counters", nil, opts))
      assert.equal(name_of(new), result.endpoint)
    end
  end

  local function rows_of(server)
    return assert(faults.ask(server, "SELECT count(*) AS n FROM fault_writes")).rows[1].n
  end

  it("after kill -9 of the old one takes the writes; the old one returns and gets nothing until it follows", function()
    local drill = begin()
    drill:truth_is_at("shard1", new)
    drill:fault("shard1", function()
      servers:kill(old.name)
    end)
    drill:expect_unknown_in_flight("shard1", 2 * drill:writers())
    drill:expect_status("shard1", { server = old })
    drill:recover(function()
      servers:promote(new.name)
    end)
    drill:expect_throughput()
    drill:expect_neighbours_unharmed()
    expect_all_at_new(drill)

    servers:start() -- as the primary that it was, on the timeline that it left
    faults.set(old, "synchronous_standby_names", nil)
    wait_for_event("fenced", old)
    local before = rows_of(old)
    drill:expect_neighbours_unharmed()
    expect_all_at_new(drill)
    assert.equal(before, rows_of(old))
    drill:expect_throughput({ since = drill.recovered_at })

    servers:rejoin(old.name)
    cluster.wait_until("the old primary is read as a replica", function()
      local result = assert(drill.router:execute("SELECT 1 AS one", nil, { shard_id = "shard1", read_only = true }))
      return result.endpoint == name_of(old)
    end, 10)
    drill:finish()
  end)

  it("beside the old one, which lives on, is the only one that is written to", function()
    local drill = begin()
    drill:truth_is_at("shard1", new)
    drill:fault("shard1", function()
      servers:promote(new.name)
    end)
    drill:expect_throughput()
    wait_for_event("fenced", old)
    expect_all_at_new(drill)
    drill:expect_neighbours_unharmed()
    drill:finish()
  end)

  it("in the order demote, promote, rejoin loses nothing and is found at once, there and back #long", function()
    local drill = begin()
    for _ = 1, 2 do
      drill:truth_is_at("shard1", new)
      drill:fault("shard1", function()
        servers:demote(old.name)
      end)
      drill:recover(function()
        servers:promote(new.name)
      end)
      drill:expect_throughput()
      drill:expect_neighbours_unharmed()
      cluster.wait_until("the old primary is read as a replica", function()
        local result = assert(drill.router:execute("SELECT 1 AS one", nil, { shard_id = "shard1", read_only = true }))
        return result.endpoint == name_of(old)
      end, 10)
      old, new = new, old
    end
    drill:finish()
  end)
end)

describe("a shard whose new primary is in no cluster file", function()
  after_each(cluster.close_all)

  it("is read where its replicas are, and never from the primary that was left behind #long", function()
    local servers = sandbox.start({ shards = 1, replicas = 2 })
    finally(function()
      servers:destroy()
    end)
    local old, known, unknown = servers.shards[1], servers.shards[1].replicas[1], servers.shards[1].replicas[2]
    local options = cluster.options({ cluster_file = servers.cluster_file, health_check_interval = 0.2 })
    table.remove(options.shards[1].replicas, 2)
    options.cluster_file = servers.cluster_file
    local router, manager = cluster.connect(options)
    local function read()
      return router:execute("SELECT 1 AS one", nil, { shard_id = "shard1", read_only = true, timeout = 1 })
    end
    cluster.warnings(function()
      servers:stop(old.name)
      servers:promote(unknown.name)
      servers:rejoin(known.name)
      servers:start()
      cluster.wait_until("the old primary is fenced", function()
        return manager:get_shard_status("shard1").endpoints[1].fenced
      end, 10)
      cluster.wait_until("the replica is read", function()
        local result = read()
        return result and result.endpoint == ("%s:%d"):format(known.host, known.port)
      end, 10)
      servers:kill(known.name)
      cluster.wait_until("the replica is given up", function()
        return manager:get_shard_status("shard1").endpoints[2].status == "unhealthy"
      end, 10)
      cluster.failure("SHARD_DOWN", read())
    end)
  end)
end)
