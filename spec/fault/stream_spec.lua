local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local process_signal = require("lunashard.core.system").kill
local sandbox = require("spec.support.sandbox")

local STOP, CONTINUE = 19, 18

describe("a stream whose shard fails in the middle", function()
  local servers, router, manager

  setup(function()
    servers = sandbox.start({ shards = 3 })
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers:start()
    router, manager = cluster.connect({ cluster_file = servers.cluster_file })
  end)

  after_each(function()
    cluster.close_all()
  end)

  local SQL = "SELECT i, pg_backend_pid() AS pid, repeat('x', 500) AS pad FROM generate_series(1, 1000000) AS i"

  -- Read until it raises; `at` is called once, in the middle, with the server process of shard2.
  local function read(opts, at)
    local n, pid = 0, nil
    local ok, err = pcall(function()
      for row, shard_id in router:stream(SQL, nil, opts) do
        n = n + 1
        pid = shard_id == "shard2" and row.pid or pid
        if n == 5000 then
          at(pid)
        end
      end
    end)
    assert.is_false(ok, n .. " rows were taken for all")
    assert.is_true(errors.is(err), tostring(err))
    return err, n
  end

  local function expect_all_back()
    cluster.wait_until("all connections are back", function()
      for _, info in ipairs(manager.shards) do
        if manager:get_pool_stats(info.shard_id).used > 0 then
          return false
        end
      end
      return true
    end)
  end

  for name, opts in pairs({
    ["merged with others"] = { order_by = "i" },
    ["read in turn"] = { shard_ids = { "shard2", "shard3" } },
  }) do
    it(("raises, and is never taken for a short one, when it is killed: %s"):format(name), function()
      local err, n = read(opts, function()
        servers:kill("shard2")
      end)
      assert.is_true(errors.is(err, "SHARD_DOWN") or err.sqlstate == "57P01", tostring(err))
      assert.equal("shard2", err.shard_id)
      assert.is_true(n < 1000000)
      expect_all_back()
      assert.equal(1, assert(router:execute("SELECT 1 AS v", nil, { shard_id = "shard1" })).rows[1].v)
    end)
  end

  it("ends at its timeout when the server says no more", function()
    local stopped
    finally(function()
      process_signal(stopped, CONTINUE) -- when the spec failed before it did
    end)
    local err = read({ order_by = "i", timeout = 1 }, function(pid)
      stopped = pid
      assert(process_signal(pid, STOP))
    end)
    assert.equal("TIMEOUT", err.code)
    assert.equal("shard2", err.shard_id)
    assert(process_signal(stopped, CONTINUE))
    expect_all_back()
  end)
end)
