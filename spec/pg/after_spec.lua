local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local replicas = require("spec.support.replicas")
local signals = require("spec.support.signals")
local task = require("lunashard.task")

describe("reads after a write", function()
  local servers, router, manager, first, second
  local last = 0

  setup(function()
    servers = replicas.start(2)
    first, second = servers.replicas[1], servers.replicas[2]
    servers:admin(servers.primary, "CREATE TABLE written (id int8 PRIMARY KEY)")
    servers:admin(servers.primary, "GRANT ALL ON written TO PUBLIC")
    servers:wait_for_replay()
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers.sandbox:start()
    router, manager = cluster.connect({ cluster_file = servers.sandbox.cluster_file, health_check_interval = 0.2 })
    servers:wait_for_replay()
    cluster.wait_until("the replicas are in use", function()
      for _, endpoint in ipairs(manager:get_shard_status("shard1").endpoints) do
        if not endpoint.is_healthy or endpoint.role == "replica" and endpoint.lag_seconds ~= 0 then
          return false
        end
      end
      return true
    end)
  end)

  after_each(function()
    servers:resume(first)
    servers:resume(second)
    cluster.close_all()
  end)

  local function write(session)
    last = last + 1
    return assert((session or router):execute("INSERT INTO written VALUES ($1)", { last }, { routing_key = 1 })), last
  end

  -- Is the row there, and who says so?
  local function find(id, opts)
    opts.routing_key, opts.read_only = 1, true
    local result = assert(router:execute("SELECT id FROM written WHERE id = $1", { id }, opts))
    return result.row_count == 1, result.endpoint
  end

  it("see it on the primary when no replica has replayed it", function()
    servers:pause(first)
    servers:pause(second)
    local result, id = write()
    assert.is_false((find(id, {})))
    local found, where = find(id, { after = result.lsn })
    assert.is_true(found)
    assert.equal(servers.primary, where)
    assert.is_true((find(id, { after = result })))
  end)

  it("see it on a replica that has replayed it, never on one that has not", function()
    servers:pause(first)
    local result, id = write()
    local lsn = result.lsn
    servers:admin(servers.primary, "CHECKPOINT") -- so that what is inserted is flushed and sent
    servers:wait_for_replay({ [first] = true })
    local on_second = 0
    cluster.wait_until("the replica that has it is read from", function()
      local found, where = find(id, { after = lsn })
      assert.is_true(found)
      assert.not_equal(first, where)
      on_second = on_second + (where == second and 1 or 0)
      return on_second == 10
    end)
  end)

  it("are spread again when all have replayed it", function()
    local result, id = write()
    servers:wait_for_replay()
    servers:admin(servers.primary, "CHECKPOINT") -- so that what is inserted is flushed and sent
    local lsn, counts = result.lsn, {}
    cluster.wait_until("both are used", function()
      local found, where = find(id, { after = lsn })
      assert.is_true(found)
      counts[where] = true
      return counts[first] and counts[second]
    end)
  end)

  it("hold for many tasks at a time, whichever replica they come upon", function()
    servers:pause(first)
    local fns = {}
    for i = 1, 60 do
      fns[i] = function()
        local result, id = write()
        local found, where = find(id, { after = result.lsn })
        assert.is_true(found, where)
        assert.not_equal(first, where)
      end
    end
    assert(task.gather(fns))
  end)

  it("wait for a replica while the primary is down, and find it there", function()
    servers:pause(first)
    servers:pause(second)
    local result, id = write()
    local lsn = result.lsn
    servers:wait_for_replay({ [first] = true, [second] = true })
    servers.sandbox:kill("shard1")
    cluster.wait_until("the primary is known to be down", function()
      return not manager.shard_health.shard1.is_healthy and manager.shard_health.shard1.status == "unhealthy"
    end)
    local early, err = router:execute("SELECT 1", nil, { routing_key = 1, read_only = true, after = lsn, timeout = 0.5 })
    assert.is_nil(early)
    assert.is_true(errors.is(err, "TIMEOUT"), tostring(err))
    assert.equal("shard1", err.shard_id)
    assert.matches(lsn .. " in time, and the primary is down", tostring(err), 1, true)
    local reading = task.spawn(function()
      local found, where = find(id, { after = lsn, timeout = 20, max_replica_lag = 3600 })
      return { found = found, where = where }
    end)
    servers:resume(second)
    local ok, answer = reading:join(20)
    assert.is_true(ok)
    assert.same({ found = true, where = second }, answer)
  end)

  it("do not hang with a replica that hangs while another one has it and the primary is down", function()
    local result, id = write()
    local lsn = result.lsn
    servers:admin(servers.primary, "CHECKPOINT")
    servers:wait_for_replay()
    servers.sandbox:kill("shard1")
    cluster.wait_until("the primary is known to be down", function()
      return manager.shard_health.shard1.status == "unhealthy"
    end)
    signals.freeze(servers.sandbox, "shard1_replica1")
    local ok, err = pcall(function()
      for _ = 1, 6 do
        local found, where = find(id, { after = lsn, timeout = 8 })
        assert.is_true(found)
        assert.equal(second, where)
      end
    end)
    signals.thaw(servers.sandbox, "shard1_replica1")
    assert.is_true(ok, tostring(err))
  end)

  it("go where they like after a write on another shard", function()
    local _, where = find(0, { after = { shard_id = "shard9", lsn = "FFFFFFFF/0" } })
    assert.not_equal(servers.primary, where)
  end)

  it("go to the primary when nobody knows up to where was written", function()
    local read = assert(router:execute("SELECT 1", nil, { routing_key = 1, read_only = true }))
    local _, where = find(0, { after = read })
    assert.equal(servers.primary, where)
  end)

  it("work for what several shards did, for streams, exports and transactions", function()
    assert(router:execute_on_all_shards("INSERT INTO written VALUES (1000)"))
    servers:pause(first)
    servers:pause(second)
    local everywhere = assert(router:execute_on_all_shards("INSERT INTO written VALUES (1001)"))
    local opts = { read_only = true, after = everywhere }
    assert.equal(1, assert(router:scatter_gather("SELECT id FROM written WHERE id = 1001", nil, opts)).row_count)
    local seen = {}
    for row in router:stream("SELECT id FROM written WHERE id = 1001", nil, opts) do
      seen[#seen + 1] = row.id
    end
    assert.same({ 1001 }, seen)
    local bytes = {}
    assert(router:copy_out("SELECT id FROM written WHERE id = 1001", function(some)
      bytes[#bytes + 1] = some
      return true
    end, opts))
    assert.equal("1001\n", table.concat(bytes))
    assert.equal(1, assert(router:transaction({ routing_key = 1, read_only = true, after = everywhere }, function(tx)
      return assert(tx:execute("SELECT id FROM written WHERE id = 1001"))
    end)).row_count)
  end)

  it("refuse what is no position, at the caller", function()
    for _, wrong in ipairs({ "", "latest", 17, true, "0/G" }) do
      assert.error_matches(function()
        router:execute("SELECT 1", nil, { routing_key = 1, read_only = true, after = wrong })
      end, "^execute: option after: expected the result of a write")
    end
  end)

  describe("result.lsn", function()
    it("is a position at or after the write, by PostgreSQL's own reckoning", function()
      local before = servers:admin(servers.primary, "SELECT pg_current_wal_insert_lsn()::text AS lsn")[1].lsn
      local result = write()
      local after = servers:admin(servers.primary, "SELECT pg_current_wal_insert_lsn()::text AS lsn")[1].lsn
      local order = servers:admin(servers.primary, ("SELECT '%s'::pg_lsn < '%s' AS beyond, '%s'::pg_lsn >= '%s' AS there")
        :format(before, result.lsn, result.lsn, after))[1]
      assert.is_true(order.beyond)
      assert.is_true(order.there)
    end)

    it("costs nothing that is not looked at, and a second look neither", function()
      local pool = manager:member("shard1").primary.pool
      local result = write()
      local queries = pool:stats().queries
      for name in pairs(result) do
        assert.not_equal("lsn", name)
      end
      assert.is_string(require("cjson").encode(result))
      assert.equal(queries, pool:stats().queries)
      local lsn = result.lsn
      assert.equal(queries + 1, pool:stats().queries)
      assert.equal(lsn, result.lsn)
      assert.equal(queries + 1, pool:stats().queries)
    end)

    it("of a transaction is there once that is committed", function()
      local tx = assert(router:begin({ routing_key = 1 }))
      local result, id = write(tx)
      local ok, err = pcall(function()
        return result.lsn
      end)
      assert.is_false(ok)
      assert.is_true(errors.is(err, "INVALID"), tostring(err))
      servers:pause(first)
      servers:pause(second)
      assert(tx:commit())
      assert.is_true((find(id, { after = result.lsn })))
    end)

    it("of many statements is that of the last", function()
      servers:pause(first)
      servers:pause(second)
      last = last + 2
      local many = assert(router:execute_many("INSERT INTO written VALUES ($1)", { { last - 1 }, { last } },
        { routing_key = 1 }))
      assert.is_true((find(last, { after = many })))
      assert.is_true((find(last, { after = many.results[2].lsn })))
    end)

    it("raises when the primary cannot say it, and a read after the result fails", function()
      local result = write()
      servers.sandbox:kill("shard1")
      local ok, err = pcall(function()
        return result.lsn
      end)
      assert.is_false(ok)
      assert.is_true(errors.is(err), tostring(err))
      assert.matches("the primary cannot say up to where it has written", err.message)
      local read, why = router:execute("SELECT 1", nil, { routing_key = 1, read_only = true, after = result })
      assert.is_nil(read)
      assert.equal(err.code, why.code)
    end)
  end)
end)
