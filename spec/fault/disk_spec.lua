local cli = require("spec.support.cli")
local faults = require("spec.support.faults")
local process = require("lunashard.process")
local sandbox = require("spec.support.sandbox")
local system = require("lunashard.core.system")

local SIZE = "6m"

describe("while many tasks work, a server whose disk is full", function()
  local servers, server, disk

  setup(function()
    servers = sandbox.start({ shards = 3 })
    server = servers.shards[2]
  end)

  teardown(function()
    servers:destroy()
    if disk then
      assert.equal(0, assert(process.run({ argv = { "umount", disk } })).code)
    end
    cli.remove_all()
  end)

  after_each(faults.close_all)

  -- A disk of our own needs root; it is a small one in memory, and its owner the servers' user.
  local function mount()
    local owner = assert(system.stat(servers.dir .. "/data")).uid
    local dir = cli.directory(493) -- 0755
    local result = process.run({
      argv = { "mount", "-t", "tmpfs", "-o", ("size=%s,mode=0700,uid=%d"):format(SIZE, owner), "tmpfs", dir },
    })
    if not result or result.code ~= 0 then
      return nil, result and result.stderr or "mount cannot be run"
    end
    return dir
  end

  it("(53100) fails what needs room, says so, goes on with all else, and is back when there is room", function()
    local reason
    disk, reason = mount()
    if not disk then
      pending("no small disk can be had here, which takes root: " .. reason:match("^[^\n]*"))
      return
    end
    assert(faults.ask(server, "CREATE UNLOGGED TABLE filler (t text); ALTER TABLE filler ALTER t SET STORAGE PLAIN"))
    assert(faults.ask(server, ("CREATE TABLESPACE small LOCATION '%s'"):format(disk)))
    local drill = faults.drill({ servers = servers })
    for _, what in ipairs({ "TABLE filler", "TABLE fault_writes", "INDEX fault_writes_user_id_idx" }) do
      assert(faults.ask(server, ("ALTER %s SET TABLESPACE small"):format(what)))
    end
    drill:fault("shard2", function()
      local full
      for _, size in ipairs({ 100, 1 }) do
        local sql = ("INSERT INTO filler SELECT repeat('x', 8000) FROM generate_series(1, %d)"):format(size)
        repeat
          local _, err = faults.ask(server, sql)
          full = err
        until full
        assert.equal("53100", full.sqlstate, tostring(full))
      end
    end)
    drill:expect_status("shard2", {
      is = function(endpoint)
        return tostring(endpoint.last_error):find("No space left on device", 1, true) ~= nil
      end,
    })
    drill:expect_neighbours_unharmed()
    local shard = drill.load.shards.shard2
    assert.equal("SQL", shard.last_error.code, tostring(shard.last_error))
    assert.equal("53100", shard.last_error.sqlstate)
    drill:expect_reads_served()
    assert.equal(0, drill.ledger:count("unknown"), drill.ledger:summary())
    drill:recover(function()
      assert(faults.ask(server, "DROP TABLE filler"))
    end)
    drill:expect_throughput()
    drill:finish()
    assert.is_true(drill.ledger:count("undone", "shard2") > 0)
  end)
end)
