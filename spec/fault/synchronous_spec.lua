local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")

-- A standby that is not there keeps every commit waiting; the server reports a wait that was cut short as a success.
describe("a commit that waits for a synchronous standby in vain", function()
  local servers, server, router

  setup(function()
    servers = sandbox.start({ shards = 1 })
    server = servers.shards[1]
    router = cluster.connect({ cluster_file = servers.cluster_file })
    assert(router:execute_on_all_shards("CREATE TABLE kept (id bigint PRIMARY KEY)"))
    local INSERT = "INSERT INTO kept VALUES ($1)"
    for id = -5, -1 do -- until it is known that the statement may share connections
      assert(router:execute(INSERT, { id }, { routing_key = id }))
    end
    assert(faults.ask(server, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"))
    assert(faults.ask(server, "SELECT pg_reload_conf()"))
    cluster.wait_until("the server waits for its standby", function()
      return faults.ask(server, "SHOW synchronous_standby_names").rows[1].synchronous_standby_names == "nobody"
    end)
  end)

  teardown(function()
    cluster.close_all()
    servers:destroy()
  end)

  local function there(id)
    return assert(router:execute("SELECT FROM kept WHERE id = $1", { id }, { routing_key = id })).row_count == 1
  end

  local function doubtful(id, result, err)
    assert.is_nil(result)
    assert.are.equal("UNKNOWN_OUTCOME", err.code)
    assert.matches("synchronous standbys", (err.cause or err).message, 1, true)
    assert.is_true(there(id))
  end

  it("is not said to be done, on a connection of its own", function()
    doubtful(1, router:execute("INSERT INTO kept VALUES ($1)", { 1 },
      { routing_key = 1, timeout = 0.5, pipeline = false }))
  end)

  it("is not said to be done, on shared connections", function()
    local shared = router.manager:get_pool_stats("shard1").shared
    local outcomes, calls = {}, {}
    for id = 11, 14 do
      calls[#calls + 1] = function()
        outcomes[id] = { router:execute("INSERT INTO kept VALUES ($1)", { id }, { routing_key = id, timeout = 1 }) }
      end
    end
    assert(lunashard.gather(calls))
    assert.is_true(router.manager:get_pool_stats("shard1").shared > shared)
    local doubts = 0
    for id = 11, 14 do
      local result, err = outcomes[id][1], outcomes[id][2]
      if err.code == "UNKNOWN_OUTCOME" and err.message:find("synchronous standbys", 1, true) then
        doubts = doubts + 1
        doubtful(id, result, err)
      else -- the ones before it were waited for: it never left our side, or had no answer in time
        assert.is_nil(result)
        assert.is_true(err.code == "UNKNOWN_OUTCOME" or err.code == "TIMEOUT" and not there(id), tostring(err))
      end
    end
    assert.is_true(doubts > 0)
  end)

  it("is not said to be done in a transaction", function()
    doubtful(21, router:transaction({ routing_key = 21, timeout = 0.5 }, function(tx)
      return assert(tx:execute("INSERT INTO kept VALUES ($1)", { 21 }))
    end))
  end)

  it("leaves connections that say again what was done", function()
    assert(faults.ask(server, "ALTER SYSTEM SET synchronous_standby_names = ''"))
    assert(faults.ask(server, "SELECT pg_reload_conf()"))
    cluster.wait_until("commits wait no longer", function()
      return faults.ask(server, "SHOW synchronous_standby_names").rows[1].synchronous_standby_names == ""
    end)
    for id = 31, 60 do
      assert(router:execute("INSERT INTO kept VALUES ($1)", { id }, { routing_key = id }))
    end
  end)
end)
