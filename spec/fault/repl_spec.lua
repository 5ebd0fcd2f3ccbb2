local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local repl = require("spec.support.repl")
local sandbox = require("spec.support.sandbox")
local session = require("lunashard.repl.session")
local signals = require("spec.support.signals")
local task = require("lunashard.task")

describe("a session at a prompt", function()
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
    repl.close_all()
    own:close()
    opened:close()
    servers:destroy()
  end)

  it("names the shard that does not answer to Ctrl-C, and the prompt is back", function()
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

  it("hears of a server that goes and comes back above what is typed, which survives, and runs it then", function()
    local text = cli.read(servers.cluster_file):gsub("name = ", "health_check_interval = 0.2, %0", 1)
    local home = cli.directory()
    local terminal = repl.start({ home = home, cluster = cli.write(home, "cluster.lua", text), prompt = "2/2>", columns = 150 })
    terminal:type("select count(*) as things fr")
    terminal:see("2/2> select count(*) as things fr")
    servers:kill("shard2")
    terminal:see("lunashard: primary of shard2 (")
    terminal:see(") is unhealthy: SHARD_DOWN: ")
    local name = text:match('name = "([^"]+)"')
    terminal:see_line(name .. " 1/2> select count(*) as things fr")
    terminal:type("om th")
    servers:start()
    terminal:see(") is healthy\n" .. name .. " 2/2> select count(*) as things from th")
    terminal:type("ings;\r")
    terminal:see("\n things\n--------\n      2\n(1 row, shard1, shard2, ")
    local _, prompts = terminal.view:text():gsub("2> select", "")
    assert.equal(1, prompts) -- what was typed stands there once
  end)
end)
