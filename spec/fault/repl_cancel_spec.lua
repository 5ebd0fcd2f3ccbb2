local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")
local session = require("lunashard.repl.session")
local signals = require("spec.support.signals")
local task = require("lunashard.task")

describe("Ctrl-C in a session", function()
  local servers, opened, own, said

  setup(function()
    servers = sandbox.start({ shards = 2 })
    opened = assert(lunashard.open(servers.cluster_file))
    assert(opened.router:execute_on_all_shards("CREATE TABLE things (user_id int8); INSERT INTO things VALUES (1)"))
    said = {}
    own = assert(session.new(opened, {
      out = function() end,
      err = function(text)
        said[#said + 1] = text
      end,
    }))
  end)

  teardown(function()
    own:close()
    opened:close()
    servers:destroy()
  end)

  it("names the shard that does not answer to it, and the prompt is back", function()
    local running = task.spawn(own.run, own, "select pg_sleep(60) from things;")
    cluster.wait_until("it runs on both shards", function()
      local found = assert(opened.router:scatter_gather([[SELECT pid FROM pg_stat_activity
        WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%pg_sleep(60)%']], nil,
        { aggregation_func = lunashard.aggregate.concat() }))
      return #found.rows == 2
    end)
    signals.freeze(servers, "shard2")
    local started = task.now()
    assert.is_true(own:interrupt())
    local _, ok = running:join(10)
    signals.thaw(servers, "shard2")
    assert.is_false(ok)
    assert.is_true(task.now() - started < 5)
    assert.equal("cancelled; shard2 did not answer: the statement may still run there\n", table.concat(said))
  end)
end)
