local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local task = require("lunashard.task")

describe("router:stream", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect()
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_stream CASCADE; CREATE SCHEMA e_stream;
      CREATE TABLE e_stream.events (user_id int8, at timestamptz, note text)]]))
    local rows = {}
    for i = 1, 2000 do
      rows[i] = { i, ("2024-01-01 00:00:%02d.%03d+00"):format(i % 60, (i * 7919) % 1000), "n" .. i % 10 }
    end
    assert(router:copy_in("e_stream.events", { "user_id", "at", "note" }, rows))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_stream CASCADE"))
    cluster.release()
  end)

  -- What iterating raises.
  local function raised(stream)
    local ok, err = pcall(function()
      local n = 0
      for _ in stream do
        n = n + 1
      end
      return n
    end)
    assert.is_false(ok)
    assert.is_true(errors.is(err), tostring(err))
    return err
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

  it("gives every row once, with its shard, one shard after the other", function()
    local seen, order = {}, {}
    for row, shard_id in router:stream("SELECT user_id FROM e_stream.events", nil, { fetch_size = 64 }) do
      assert.is_nil(seen[row.user_id])
      seen[row.user_id] = true
      assert.equal(manager:get_shard_for_write(row.user_id).shard_id, shard_id)
      if order[#order] ~= shard_id then
        order[#order + 1] = shard_id
      end
    end
    assert.equal(2000, #seen)
    assert.same({ "shard1", "shard2", "shard3" }, order)
    expect_all_back()
  end)

  it("reads one shard by key", function()
    local n = 0
    for row, shard_id in router:stream("SELECT user_id FROM e_stream.events WHERE user_id = $1", { 77 }, { routing_key = 77 }) do
      assert.equal(77, row.user_id)
      assert.equal(manager:get_shard_for_write(77).shard_id, shard_id)
      n = n + 1
    end
    assert.equal(1, n)
  end)

  it("merges the shards' rows in the order of the statement, as one server would", function()
    local sql = "SELECT at, user_id FROM e_stream.events ORDER BY at DESC, user_id"
    local all = assert(router:scatter_gather("SELECT at, user_id FROM e_stream.events")).rows
    table.sort(all, function(a, b)
      if a.at ~= b.at then
        return a.at > b.at
      end
      return a.user_id < b.user_id
    end)
    local i = 0
    for row in router:stream(sql, nil, { order_by = "at desc, user_id", fetch_size = 50 }) do
      i = i + 1
      assert.equal(all[i].user_id, row.user_id)
    end
    assert.equal(2000, i)
    expect_all_back()
  end)

  it("refuses to merge what is not in the order that it was told", function()
    local err = raised(router:stream("SELECT user_id FROM e_stream.events ORDER BY user_id DESC", nil,
      { order_by = "user_id" }))
    assert.equal("NOT_MERGEABLE", err.code)
    expect_all_back()
  end)

  it("raises the error object of what fails, at the first row or in the middle", function()
    assert.equal("42703", raised(router:stream("SELECT nope FROM e_stream.events")).sqlstate)
    local n = 0
    local ok, err = pcall(function()
      for _ in router:stream("SELECT 1 / (1000 - i) FROM generate_series(1, 2000) AS i", nil,
        { shard_id = "shard2", fetch_size = 10 }) do
        n = n + 1
      end
    end)
    assert.is_false(ok)
    assert.equal("22012", err.sqlstate)
    assert.equal("shard2", err.shard_id)
    assert.is_true(n > 900 and n < 1000, tostring(n))
    expect_all_back()
  end)

  it("raises what cannot be routed when it is iterated, not before", function()
    assert.equal("NO_SHARD", raised(router:stream("SELECT 1", nil, { shard_id = "shard9" })).code)
    assert.equal("INVALID", raised(router:stream("DELETE FROM e_stream.events")).code)
    assert.equal("INVALID", raised(router:stream("COMMIT", nil, { shard_id = "shard1" })).code)
  end)

  it("never gives two tasks the same row: one that comes while the other waits is refused", function()
    for _, warm in ipairs({ false, true }) do
      local rows = router:stream("SELECT user_id FROM e_stream.events", nil, { fetch_size = 10 })
      local seen, refused = {}, 0
      if warm then
        seen[rows().user_id] = true
      end
      local function read()
        for row in rows do
          assert.is_nil(seen[row.user_id])
          seen[row.user_id] = true
        end
      end
      local readers = { task.spawn(read):watch(), task.spawn(read):watch() }
      for _, reader in ipairs(readers) do
        local ok, err = reader:join()
        if not ok then
          assert.is_true(errors.is(err, "INVALID"), tostring(err))
          refused = refused + 1
        end
      end
      assert.is_true(refused > 0)
      rows:close()
    end
    expect_all_back()
  end)

  it("raises at the call for options that make no sense", function()
    assert.has_error(function() router:stream("SELECT 1", nil, { fetch_size = 0 }) end)
    assert.has_error(function() router:stream("SELECT 1", nil, { fetch_size = 1e9 }) end)
    assert.has_error(function() router:stream("SELECT 1", nil, { oder_by = "a" }) end)
    assert.has_error(function() router:stream("SELECT 1", nil, { order_by = "a sideways" }) end)
  end)

  it("gives its connections back at close after an early break, and the servers stop", function()
    -- Wide rows: what the sockets hold is read and dropped after the cancel.
    local sql = "SELECT generate_series(1, 100000000) AS i, repeat('e_stream_early', 100) AS pad"
    local stream = router:stream(sql, nil, { fetch_size = 10 })
    for row in stream do
      if row.i == 25 then
        break
      end
    end
    stream:close()
    stream:close()
    assert.is_nil(stream())
    expect_all_back()
    cluster.wait_until("the servers have stopped", function()
      local rows = assert(router:scatter_gather([[
        SELECT count(*) AS n FROM pg_stat_activity
        WHERE state = 'active' AND query LIKE '%e_stream_early%' AND pid <> pg_backend_pid()]])).rows
      return rows[1].n == 0
    end)
  end)

  it("gives its connections back when its task ends after an early break", function()
    assert(task.spawn(function()
      local stream = router:stream("SELECT generate_series(1, 100000000) AS i, repeat('x', 1000) AS pad")
      assert.equal(1, stream().i)
    end):join())
    expect_all_back()
  end)

  it("keeps memory flat, whatever the number of rows", function()
    local function peak(rows)
      collectgarbage()
      collectgarbage()
      local before, most, n = collectgarbage("count"), 0, 0
      for _ in router:stream("SELECT i, repeat('x', 100) AS pad FROM generate_series(1, $1::int) AS i", { rows },
        { shard_id = "shard1", fetch_size = 200 }) do
        n = n + 1
        if n % 5000 == 0 then
          collectgarbage()
          most = math.max(most, collectgarbage("count") - before)
        end
      end
      assert.equal(rows, n)
      return most
    end
    peak(5000)
    local small, large = peak(10000), peak(100000)
    assert.is_true(large < small + 500, ("%d KiB for 10,000 rows, %d KiB for 100,000"):format(small, large))
  end)

  it("ends at its timeout", function()
    local started = task.now()
    local err = raised(router:stream("SELECT pg_sleep(20)", nil, { shard_id = "shard1", timeout = 0.3 }))
    assert.equal("TIMEOUT", err.code)
    assert.is_true(task.now() - started < 3)
  end)

  it("asks all servers at the same time", function()
    local started, n = task.now(), 0
    for _ in router:stream("SELECT pg_sleep(0.4)") do
      n = n + 1
    end
    assert.equal(3, n)
    assert.is_true(task.now() - started < 1.0, "took " .. task.now() - started)
  end)
end)
