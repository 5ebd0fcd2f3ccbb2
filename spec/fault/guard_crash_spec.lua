local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local install = require("lunashard.catalog.install")
local sandbox = require("spec.support.sandbox")

describe("a guard on a server that has crashed", function()
  local servers, server

  setup(function()
    servers = sandbox.start({ shards = 1 })
    server = servers.shards[1]
    local router, manager = cluster.connect({ cluster_file = servers.cluster_file,
      tables = { crashed = { shard_key = "k", type = "int8" } } })
    assert(router:execute_on_all_shards("CREATE TABLE crashed (k bigint PRIMARY KEY)"))
    assert(install.run(manager))
    assert(faults.ask(server, "SELECT lunashard.advance()"))
    cluster.close_all()
  end)

  teardown(function()
    cluster.close_all()
    servers:destroy()
  end)

  it("still lets snapshots in that last, for nothing has changed hands", function()
    servers:kill(server.name)
    servers:start()
    local result = assert(faults.ask(server, [[
      BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT lunashard.guard('int8', '1', 1); COMMIT;
      SELECT s.version, e.last_value FROM lunashard.state s, lunashard.epoch e]]))
    assert.equal(3, result.rows[1].last_value)
    assert.equal(3, result.rows[1].version)
  end)
end)
