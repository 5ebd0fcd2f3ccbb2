local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local pool = require("lunashard.pool")
local sandbox = require("spec.support.sandbox")
local signal = require("lunashard.core.system").kill
local system = require("lunashard.core.system")
local task = require("lunashard.task")

-- What a postmaster takes them for.
local SMART, FAST, IMMEDIATE = 15, 2, 3

describe("while many tasks work, a server that", function()
  local servers, server, drill

  setup(function()
    servers = sandbox.start({ shards = 3 })
    server = servers.shards[2]
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers:start()
    drill = faults.drill({ servers = servers })
  end)

  after_each(faults.close_all)

  local function data(name)
    return ("%s/data/%s/%s"):format(servers.dir, server.shard_id, name)
  end

  local function shut_down(how)
    local file = assert(io.open(data("postmaster.pid")))
    assert(signal(file:read("*n"), how))
    file:close()
  end

  local function is_gone()
    return not system.stat(data("postmaster.pid"))
  end

  local function says(words)
    return {
      is = function(endpoint)
        return tostring(endpoint.last_error):find(words, 1, true) ~= nil
      end,
    }
  end

  for name, how in pairs({ ["restarts"] = FAST, ["restarts without a word of good-bye"] = IMMEDIATE }) do
    it(name .. " costs what was under way, and is used again at once", function()
      drill:fault("shard2", function()
        shut_down(how)
        cluster.wait_until("the server is down", is_gone)
      end)
      drill:expect_status("shard2")
      drill:recover(function()
        servers:start()
      end)
      drill:expect_throughput()
      drill:expect_neighbours_unharmed()
      -- One is the surprise; those who try again meet the other sessions before these end too.
      drill:expect_unknown_in_flight("shard2", 2 * drill:writers())
      drill:finish()
    end)
  end

  it("shuts down when all have gone serves whom it has, then says so to those who come (57P03)", function()
    local holder = pool.new({
      host = server.host, port = server.port, database = server.database, user = server.superuser,
      password = server.superuser_password, max_size = 1, application_name = "holder", pipeline = false,
    })
    finally(function()
      holder:close()
    end)
    local lease = assert(holder:acquire())
    drill:fault("shard2", function()
      shut_down(SMART)
    end)
    drill:observe(0.5)
    drill:expect_neighbours_unharmed()
    assert.equal(0, drill.ledger:count("undone") + drill.ledger:count("unknown"), drill.ledger:summary())

    drill:fault("shard2", function()
      assert(lease:execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"))
    end)
    drill:expect_status("shard2", says("shutting down"))
    drill:expect_neighbours_unharmed()
    drill:expect_unknown_in_flight("shard2", drill:writers())
    holder:close()
    cluster.wait_until("the server is down", is_gone)
    drill:recover(function()
      servers:start()
    end)
    drill:expect_throughput()
    drill:finish()
  end)

  it("is starting up for a while says so (57P03), and is used as soon as it is there", function()
    -- Recovery from an archive, which takes its time with the first file.
    local wait = "while test ! -e go_on; do sleep 0.02; done; false"
    assert(faults.ask(server, ("ALTER SYSTEM SET restore_command = '%s'"):format(wait)))
    local starting
    drill:fault("shard2", function()
      shut_down(FAST)
      cluster.wait_until("the server is down", is_gone)
      assert(system.write_file(data("recovery.signal"), "", 420))
      starting = task.spawn(function()
        servers:start()
      end)
    end)
    finally(function()
      assert(system.write_file(data("go_on"), "", 420))
      assert(starting:join(30))
    end)
    drill:expect_status("shard2", says("starting up"))
    drill:expect_neighbours_unharmed()
    drill:expect_unknown_in_flight("shard2", 2 * drill:writers())
    drill:recover(function()
      assert(system.write_file(data("go_on"), "", 420))
      cluster.wait_until("the server has started", function()
        return faults.ask(server, "SELECT 1") ~= nil
      end, 20)
    end)
    drill:expect_throughput()
    drill:finish()
  end)
end)
