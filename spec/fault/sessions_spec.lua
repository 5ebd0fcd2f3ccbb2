local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local sandbox = require("spec.support.sandbox")
local sessions = require("spec.support.faults.sessions")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

describe("while many tasks work, a server that", function()
  local servers, server, hog

  setup(function()
    servers = sandbox.start({ shards = 3 })
    server = servers.shards[2]
  end)

  teardown(function()
    servers:destroy()
  end)

  after_each(function()
    if hog then
      hog:release()
      hog = nil
    end
    faults.close_all()
    assert(faults.ask(server, ("ALTER ROLE %s CONNECTION LIMIT -1 PASSWORD '%s'"):format(server.user, server.password)))
  end)

  local function says(...)
    local words = { ... }
    return {
      is = function(endpoint)
        for _, word in ipairs(words) do
          if not tostring(endpoint.last_error):find(word, 1, true) then
            return false
          end
        end
        return true
      end,
    }
  end

  it("ends every pooled session at once costs only what was under way", function()
    local drill = faults.drill({ servers = servers })
    for _ = 1, 3 do
      drill:fault("shard2", function()
        cluster.wait_until("there were sessions to end", function()
          return sessions.terminate(server) > 0
        end)
      end)
      drill:expect_throughput()
      drill:expect_unknown_in_flight("shard2", 3 * drill:writers())
    end
    drill:expect_neighbours_unharmed()
    drill:finish()
  end)

  it("ends sessions that nobody uses costs nothing", function()
    local router, manager = cluster.connect({ cluster_file = servers.cluster_file, pipeline = false })
    local key = cluster.key_on(manager, 2)
    local opts = { routing_key = key, timeout = 5 }
    assert(router:execute("CREATE TABLE IF NOT EXISTS session_writes (n int)", nil, opts))
    local function run(n)
      local tasks = {}
      for i = 1, n do
        tasks[i] = task.spawn(function()
          return router:execute("INSERT INTO session_writes SELECT $1 FROM pg_sleep(0.05)", { i }, opts)
        end)
      end
      for _, one in ipairs(tasks) do
        local _, result, err = assert(one:join(10))
        assert.is_nil(err)
        assert.equal(1, result.attempts)
      end
    end
    run(10)
    local ended = sessions.terminate(server)
    assert.is_true(ended >= 3, ended .. " sessions")
    run(10)
    assert.equal(20, assert(router:execute("SELECT count(*) AS n FROM session_writes", nil, opts)).rows[1].n)
  end)

  it("has no connection left goes on with those there are, and with none says so and loses nothing", function()
    local drill = faults.drill({ servers = servers })
    drill:fault("shard2", function()
      hog = sessions.hog(server)
    end)
    assert.is_truthy(hog.refused:find("remaining connection slots", 1, true), hog.refused)
    drill:expect_neighbours_unharmed()
    assert.equal(0, drill.ledger:count("undone") + drill.ledger:count("unknown"), drill.ledger:summary())

    -- What comes free is the hog's, or nobody's.
    drill:fault("shard2", function()
      assert(faults.ask(server, ("ALTER ROLE %s CONNECTION LIMIT %d"):format(server.user, #hog.leases)))
      sessions.terminate(server)
    end)
    drill:expect_status("shard2", says("too many connections"))
    drill:expect_neighbours_unharmed()
    drill:expect_unknown_in_flight("shard2", drill:writers())
    drill:recover(function()
      assert(faults.ask(server, ("ALTER ROLE %s CONNECTION LIMIT -1"):format(server.user)))
      hog:release()
      hog = nil
    end)
    drill:expect_throughput()
    drill:finish()
  end)

  it("takes another password than ours says so, is not pestered, and is back when it takes ours again", function()
    local drill = faults.drill({ servers = servers })
    drill:fault("shard2", function()
      assert(faults.ask(server, ("ALTER ROLE %s PASSWORD 'another'"):format(server.user)))
    end)
    drill:observe(0.5)
    assert.equal(0, drill.ledger:count("undone") + drill.ledger:count("unknown"), drill.ledger:summary())

    local tries = drill.manager:get_pool_stats("shard2").connect_failures
    drill:fault("shard2", function()
      sessions.terminate(server)
    end)
    drill:expect_status("shard2", says("AUTH", "password authentication failed", server.user))
    drill:expect_neighbours_unharmed()
    local took = drill.manager:get_pool_stats("shard2").connect_failures - tries
    assert.is_true(took < 30, took .. " attempts to log in")
    drill:expect_unknown_in_flight("shard2", drill:writers())
    drill:recover(function()
      assert(faults.ask(server, ("ALTER ROLE %s PASSWORD '%s'"):format(server.user, server.password)))
    end)
    drill:expect_throughput()
    drill:finish()
  end)

  it("takes a new password that is in the passfile by then is not even noticed", function()
    local passfile = os.tmpname()
    local function write(password)
      local line = ("127.0.0.1:%d:*:%s:%s\n"):format(server.port, server.user, password)
      assert(system.write_file(passfile, line, 384)) -- 0600
    end
    finally(function()
      os.remove(passfile)
    end)
    write(server.password)
    local drill = faults.drill({
      servers = servers,
      adapt = function(options)
        options.shards[2].passfile = passfile
      end,
      options = { max_lifetime = 0.5 },
    })
    drill:fault("shard2", function()
      write("another")
      assert(faults.ask(server, ("ALTER ROLE %s PASSWORD 'another'"):format(server.user)))
    end)
    local connects = drill.manager:get_pool_stats("shard2").connects
    drill:observe(1.5)
    assert.is_true(drill.manager:get_pool_stats("shard2").connects > connects)
    drill:expect_throughput()
    assert.equal(0, drill.ledger:count("unknown"), drill.ledger:summary())
    drill:finish()
  end)
end)
