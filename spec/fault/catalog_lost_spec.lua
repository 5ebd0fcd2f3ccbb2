-- A router that loses the catalog, and the shard with it, while rows move there: what it reads then is right, or an error.
local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local install = require("lunashard.catalog.install")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")
local signals = require("lunashard.process").signals
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local KEYS = 60

-- Reads these keys at once for as long as a file says so, and then tells how many answers had a row, and how many none.
local READER = [[
local lunashard = require("lunashard")
local dir, keys = arg[1], {}
for i = 2, #arg do keys[#keys + 1] = tonumber(arg[i]) end
local found, empty, failed = 0, 0, 0
local function there(name)
  local file = io.open(dir .. "/" .. name)
  return file ~= nil and file:close()
end
local function read(key)
  local result = router:execute("SELECT n FROM lost WHERE k = $1", { key }, { routing_key = key, timeout = 0.2 })
  found = found + (result and result.row_count or 0)
  empty = empty + (result and result.row_count == 0 and 1 or 0)
  failed = failed + (result and 0 or 1)
end
repeat
  local tasks = {}
  for i, key in ipairs(keys) do tasks[i] = lunashard.spawn(read, key) end
  for _, one in ipairs(tasks) do one:join() end
  if not there("lost") then failed = 0 end
  lunashard.sleep(0.02)
until there("end")
print(found, empty, failed)
]]

describe("a router that is cut off from the catalog while rows move", function()
  local servers, dir, manager, warn

  setup(function()
    warn = lunashard.set_warn(function() end)
    servers = sandbox.start({ shards = 2 })
    dir = cli.directory()
    local options = { cluster_file = servers.cluster_file, strategy = { "hash", shard_key = "k" },
      tables = { lost = { shard_key = "k", type = "int8" } } }
    local router, static = cluster.connect(options)
    assert(router:execute_on_all_shards("CREATE TABLE lost (k bigint PRIMARY KEY, n int)"))
    for key = 1, KEYS do
      assert(router:execute("INSERT INTO lost VALUES ($1, 0)", { key }, { routing_key = key }))
    end
    assert(install.run(static))
    cluster.close_all()
    manager = select(2, cluster.connect(options))
    cli.write(dir, "cluster.lua", ('local options = dofile(%q)\noptions.strategy = { "hash", shard_key = "k" }\n'
      .. 'options.tables = { lost = { shard_key = "k", type = "int8" } }\nreturn options\n'):format(servers.cluster_file))
    cli.write(dir, "reader.lua", READER)
  end)

  teardown(function()
    cluster.close_all()
    servers:destroy()
    lunashard.set_warn(warn)
    cli.remove_all()
  end)

  it("never takes a shard that has given its rows away for one that has none", function()
    local keys, buckets = {}, {}
    for key = 1, KEYS do
      if manager:get_shard_for_write(key).shard_id == "shard2" then
        keys[#keys + 1] = tostring(key)
        buckets[#buckets + 1] = manager.catalog.groups.int8.bound:bucket(key)
      end
    end
    assert.is_true(#keys > 10)
    local reader = cli.spawn({ "run", "-c", dir .. "/cluster.lua", dir .. "/reader.lua", dir, unpack(keys) })
    local rebalancer = lunashard.rebalancer({ shard_manager = manager })
    local job = assert(rebalancer:create_rebalance_job({ moves = { { buckets = buckets, to = "shard1" } } }))
    rebalancer.at = function(point)
      if point == "copying:after-saved" then -- it guards what it reads, and hears of nothing any more
        task.sleep(1)
        system.kill(reader.pid, signals.STOP)
      end
    end
    local ok, err = rebalancer:execute_job(job.job_id)
    assert(ok, tostring(err))
    servers:kill("shard1")
    cli.write(dir, "lost", "")
    system.kill(reader.pid, signals.CONT)
    task.sleep(2)
    cli.write(dir, "end", "")
    local result = assert(reader:wait(20))
    assert.equal(0, result.code, result.stderr)
    local found, empty, failed = result.stdout:match("^(%d+)%s+(%d+)%s+(%d+)")
    assert.is_true(tonumber(found) > 0 and tonumber(failed) > 0, result.stdout)
    assert.equal("0", empty)
  end)
end)
