local faults = require("spec.support.faults")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local TASKS = 5000
local SIZE = 8 -- connections of a pool
local WAITERS = 1000

describe("a storm of 5,000 tasks", function()
  local servers

  setup(function()
    servers = sandbox.start({ shards = 3 })
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers:start()
  end)

  after_each(faults.close_all)

  -- Start that many tasks, some at a time, for it is not this spec's turn that is looked at; gives a function that waits for
  -- them and gives how many ended with each code, and a table with the longest time that one took with each code.
  local function storm(fn, opts)
    local tasks, codes, longest = {}, {}, {}
    for i = 1, TASKS do
      tasks[i] = task.spawn(function()
        local started = task.now()
        local result, err = fn(i, opts)
        local code = result and "ok" or err.code
        codes[code] = (codes[code] or 0) + 1
        longest[code] = math.max(longest[code] or 0, task.now() - started)
      end)
      if i % 500 == 0 then
        task.sleep(0)
      end
    end
    return function()
      for _, one in ipairs(tasks) do
        assert(one:join(60))
      end
      return codes, longest
    end
  end

  local function total(codes)
    local n = 0
    for _, count in pairs(codes) do
      n = n + count
    end
    return n
  end

  it("that all want connections of their own is served whole, with those there are", function()
    local drill = faults.drill({ servers = servers, options = { connection_pool_size = SIZE }, timeout = 10 })
    local router = drill.router
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS storm; CREATE TABLE storm (user_id bigint)"))
    drill:fault({ "shard1", "shard2", "shard3" }, function()
      local codes = storm(function(i)
        return router:transaction({ routing_key = i, timeout = 30 }, function(tx)
          assert(tx:execute("INSERT INTO storm VALUES ($1)", { i }))
          return true
        end)
      end)()
      assert.same({ ok = TASKS }, codes)
    end)
    for _, shard in ipairs(servers.shards) do
      local stats = drill.manager:get_pool_stats(shard.shard_id)
      assert.is_true(stats.connects <= SIZE + 2, stats.connects .. " connections to " .. shard.shard_id)
    end
    local found = assert(router:scatter_gather("SELECT count(*) AS n, count(DISTINCT user_id) AS d FROM storm", nil, {}))
    local rows, keys = 0, 0
    for _, row in ipairs(found.rows) do
      rows, keys = rows + row.n, keys + row.d
    end
    assert.equal(TASKS, rows)
    assert.equal(TASKS, keys)
    drill:expect_throughput()
    drill:finish()
    assert.equal(0, drill.ledger:count("undone") + drill.ledger:count("unknown"), drill.ledger:summary())
  end)

  it("on a slow shard fills that shard's queue alone, and who finds it full is refused at once", function()
    local drill = faults.drill({ servers = servers, options = { connection_pool_size = SIZE, max_waiters = WAITERS } })
    drill:baseline()
    local join
    drill:fault("shard2", function()
      join = storm(function()
        return drill.router:execute("SELECT pg_sleep(0.02)", nil, { shard_id = "shard2", timeout = 30, pipeline = false })
      end)
      task.sleep(0)
    end)
    drill:expect_neighbours_unharmed()
    local codes, longest = join()
    assert.equal(TASKS, total(codes))
    assert.is_true(codes.ok >= WAITERS - 50 and codes.ok <= WAITERS + 10 * SIZE, codes.ok .. " were served")
    assert.equal(TASKS - codes.ok, codes.POOL_EXHAUSTED)
    assert.is_true(longest.POOL_EXHAUSTED < 1, longest.POOL_EXHAUSTED .. " s until the refusal")
    drill:recover(function() end)
    drill:expect_throughput()
    drill:finish()
  end)

  it("on a dead server fails in time, and does not overrun it when it returns", function()
    local drill = faults.drill({ servers = servers, options = { connection_pool_size = SIZE } })
    local function read(_, opts)
      return drill.router:execute("SELECT 1", nil, opts)
    end
    local opts = { shard_id = "shard2", timeout = 1, read_only = true }
    local tries
    drill:fault("shard2", function()
      servers:kill("shard2")
      tries = drill.manager:get_pool_stats("shard2").connect_failures
    end)
    local codes, longest = storm(read, opts)()
    assert.equal(TASKS, total(codes))
    assert.is_nil(codes.ok)
    for code, seconds in pairs(longest) do
      assert.is_true(seconds < 3, ("%s took %.2f s"):format(code, seconds))
    end
    tries = drill.manager:get_pool_stats("shard2").connect_failures - tries
    assert.is_true(tries < 60, tries .. " attempts to connect")
    drill:expect_status("shard2")
    drill:expect_neighbours_unharmed()

    local connects = drill.manager:get_pool_stats("shard2").connects
    local join
    drill:recover(function()
      servers:start()
      join = storm(read, { shard_id = "shard2", timeout = 10, read_only = true })
    end)
    codes = join()
    assert.is_true((codes.ok or 0) > 0.9 * TASKS, tostring(codes.ok))
    drill:expect_throughput()
    connects = drill.manager:get_pool_stats("shard2").connects - connects
    assert.is_true(connects <= SIZE, connects .. " connections")
    drill:finish()
  end)
end)
