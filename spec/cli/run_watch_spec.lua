local cli = require("spec.support.cli")
local plugins = require("spec.support.plugins")

-- A cluster whose server is not there: routing needs none.
local CLUSTER = [[
return {
  shards = {
    { shard_id = "a", host = "127.0.0.1", port = 1, database = "x", user = "x" },
    { shard_id = "b", host = "127.0.0.1", port = 1, database = "x", user = "x" },
  },
  connection_timeout = 1,
  strategy = { %q, shard_key = "user_id", key_type = "int8" },
  %s
}]]

local SCRIPT = [[
  local lunashard = require("lunashard")
  local dir, wanted = ...
  local function plugin()
    return manager:get_cluster_status().plugins[1]
  end
  local function wait_until(what, condition)
    local deadline = lunashard.now() + 20
    while not condition() do
      if lunashard.now() > deadline then error("waited in vain until " .. what) end
      lunashard.sleep(0.01)
    end
  end
  local function write(text)
    local file = assert(io.open(dir .. "/plugins/strategies/tier.lua", "w"))
    file:write(text)
    file:close()
  end
  print(plugin().generation, (manager:get_shard_for_write(7).shard_id))
]]

describe("lunashard run --watch", function()
  local folder

  local function run(script, ...)
    local path = cli.write(cli.directory(), "script.lua", SCRIPT .. script)
    return cli.run({ "run", "-c", folder.dir .. "/cluster.lua", ... , path, folder.dir })
  end

  local function cluster(strategy, more)
    assert(require("lunashard.core.system").write_file(folder.dir .. "/cluster.lua", CLUSTER:format(strategy, more), 384))
  end

  before_each(function()
    folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    cluster("tier", 'plugins = "plugins/"')
  end)

  after_each(function()
    plugins.clean()
    cli.remove_all()
  end)

  it("loads a plug-in again when its file changes, while the script runs", function()
    local result = run([[
      write(]] .. ("%q"):format(plugins.strategy({ head = "-- the second" })) .. [[)
      wait_until("it was loaded again", function() return plugin().generation == 2 end)
      print(plugin().generation, plugin().state, manager:get_shard_for_write(7).shard_id)
      write("return {")
      wait_until("the next was refused", function() return plugin().problem end)
      print(plugin().generation, plugin().state, plugin().problem)
    ]], "--watch")
    local first, second, third = result.stdout:match("^1\t(%a)\n2\tactive\t(%a)\n2\tactive\t([^\n]+)\n$")
    assert.equal(first, second, result.stdout .. result.stderr)
    assert.matches("^plugins/strategies/tier.lua:1: unexpected symbol near", third)
    assert.matches("plugins/strategies/tier.lua: strategy tier reloaded %(generation 2%)", result.stderr)
    assert.equal(0, result.code)
  end)

  it("goes with a cluster that has plug-ins", function()
    local result = cli.run({ "run", "--watch", cli.write(cli.directory(), "script.lua", "") })
    assert.equal(2, result.code)
    assert.matches("%-%-watch looks after a cluster's plug%-ins", result.stderr)
    cluster("hash", "")
    result = run("", "--watch")
    assert.equal(2, result.code)
    assert.matches("names no folder of plug%-ins", result.stderr)
  end)

  it("is what it takes: without it a script goes on with what it began with", function()
    local result = run([[
      write("return {")
      lunashard.sleep(0.4)
      print(plugin().generation, plugin().problem)
    ]], "--strict")
    assert.matches("1\tnil\n$", result.stdout)
    assert.equal(0, result.code)
  end)
end)
