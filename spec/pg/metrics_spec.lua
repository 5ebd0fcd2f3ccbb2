local cluster = require("spec.support.cluster")
local http = require("lunashard.serve.http")
local jobs = require("lunashard.serve.jobs")
local keys = require("lunashard.metrics.keys")
local lunashard = require("lunashard")
local prometheus = require("spec.support.prometheus")

describe("the metrics of a cluster", function()
  local router, manager

  before_each(function()
    router, manager = cluster.connect()
  end)

  after_each(cluster.close_all)
  teardown(cluster.release)

  local function samples()
    return prometheus.samples(lunashard.metrics.render({ manager = manager, router = router }))
  end

  local function on(number, more)
    local options = { shard_id = manager.shards[number].shard_id }
    for name, value in pairs(more or {}) do
      options[name] = value
    end
    return options
  end

  it("have every series of a shard from the start, at 0", function()
    local seen = samples()
    for _, shard in ipairs(manager.shards) do
      local endpoint = ("%s:%d"):format(shard.host, shard.port)
      for _, kind in ipairs({ "success", "error" }) do
        assert.equal(0, seen[('shard_queries_total{shard="%s",type="%s"}'):format(shard.shard_id, kind)])
        assert.equal(0, seen[('shard_statements_total{shard="%s",endpoint="%s",type="read",outcome="%s"}'):format(
          shard.shard_id, endpoint, kind)])
      end
      for _, bound in ipairs({ "0.0001220703125", "0.5", "32", "+Inf" }) do
        assert.equal(0, seen[('shard_query_duration_seconds_bucket{shard="%s",le="%s"}'):format(shard.shard_id, bound)])
      end
      assert.equal(0, seen[('keys_per_shard{shard="%s"}'):format(shard.shard_id)])
      assert.equal(1, seen[('shard_healthy{shard="%s"}'):format(shard.shard_id)])
      assert.equal(0, seen[('shard_errors_total{shard="%s",code="TIMEOUT"}'):format(shard.shard_id)])
      assert.equal(20, seen[('shard_pool_max_size{shard="%s",endpoint="%s"}'):format(shard.shard_id, endpoint)])
      assert.equal(1, seen[('shard_endpoint_role{shard="%s",endpoint="%s",role="primary"}'):format(shard.shard_id,
        endpoint)])
    end
  end)

  it("count statements by shard, endpoint, type and outcome, and by how long they took", function()
    assert(router:execute("CREATE TABLE metrics_x (id int)", nil, on(1)))
    for i = 1, 5 do
      assert(router:execute("INSERT INTO metrics_x VALUES ($1)", { i }, on(1)))
    end
    assert(router:execute("SELECT pg_sleep(0.15)", nil, on(1)))
    local _, err = router:execute("SELECT nothing FROM metrics_x", nil, on(1))
    assert.equal("SQL", err.code)
    _, err = router:execute("DELETE FROM metrics_y", nil, on(1))
    assert.equal("SQL", err.code)
    assert(router:transaction(on(1), function(tx)
      assert(tx:execute("DROP TABLE metrics_x"))
    end))
    local seen, shard = samples(), manager.shards[1]
    local endpoint = ('shard="%s",endpoint="%s:%d"'):format(shard.shard_id, shard.host, shard.port)
    local function statements(kind, outcome)
      return seen[('shard_statements_total{%s,type="%s",outcome="%s"}'):format(endpoint, kind, outcome)]
    end
    assert.equal(1, statements("read", "success"))
    assert.equal(5, statements("write", "success"))
    assert.equal(1, statements("read", "error"))
    assert.equal(1, statements("write", "error"))
    local id = shard.shard_id
    assert.equal(2, seen[('shard_queries_total{shard="%s",type="error"}'):format(id)])
    assert.equal(2, seen[('shard_errors_total{shard="%s",code="SQL"}'):format(id)])
    local count = seen[('shard_query_duration_seconds_count{shard="%s"}'):format(id)]
    assert.equal(count, seen[('shard_queries_total{shard="%s",type="success"}'):format(id)])
    assert.equal(count, 6 + statements("other", "success"))
    local function within(bound)
      return seen[('shard_query_duration_seconds_bucket{shard="%s",le="%s"}'):format(id, bound)]
    end
    assert.equal(count, within("+Inf"))
    assert.is_true(within("0.125") <= count - 1)
    assert.is_true(seen[('shard_query_duration_seconds_sum{shard="%s"}'):format(id)] > 0.15)
    assert.equal(1, seen.lunashard_transactions_total)
    assert.equal(0, seen[('shard_queries_total{shard="%s",type="error"}'):format(manager.shards[2].shard_id)])
  end)

  it("count timeouts, what servers were asked to cancel, and waits for connections", function()
    local _, err = router:execute("SELECT pg_sleep(20)", nil, on(2, { timeout = 0.2 }))
    assert.equal("TIMEOUT", err.code)
    local shard = manager.shards[2]
    local labels = ('{shard="%s",endpoint="%s:%d"}'):format(shard.shard_id, shard.host, shard.port)
    local seen = samples()
    assert.equal(1, seen[('shard_errors_total{shard="%s",code="TIMEOUT"}'):format(shard.shard_id)])
    assert.equal(1, seen["shard_pool_cancels_total" .. labels])
    assert.equal(1, seen["shard_pool_wait_seconds_count" .. labels])
    assert.equal(seen["shard_pool_wait_seconds_count" .. labels],
      seen["shard_pool_wait_seconds_bucket" .. labels:sub(1, -2) .. ',le="+Inf"}'])
  end)

  it("sort waits for connections by how long they were", function()
    router, manager = cluster.connect({ connection_pool_size = 1, pipeline = false })
    local tasks = {}
    for i = 1, 3 do
      tasks[i] = function()
        assert(router:execute("SELECT pg_sleep(0.2)", nil, on(3)))
      end
    end
    lunashard.gather(tasks)
    local shard = manager.shards[3]
    local labels = ('{shard="%s",endpoint="%s:%d"'):format(shard.shard_id, shard.host, shard.port)
    local seen = samples()
    assert.equal(3, seen["shard_pool_wait_seconds_count" .. labels .. "}"])
    assert.is_true(seen["shard_pool_wait_seconds_bucket" .. labels .. ',le="0.125"}'] <= 1) -- the first one
    assert.is_true(seen["shard_pool_wait_seconds_sum" .. labels .. "}"] >= 0.6)
  end)

  it("estimate the rows of the declared tables, partitioned ones too, and not those of reference tables", function()
    router, manager = cluster.connect({
      tables = {
        ["metrics_a"] = { shard_key = "id" },
        ["public.metrics_p"] = { shard_key = "id" },
        ["metrics_missing"] = { shard_key = "id" },
        ["metrics_r"] = { reference = true },
      },
    })
    local ddl = [[
      DROP TABLE IF EXISTS metrics_a, metrics_p, metrics_r;
      CREATE TABLE metrics_a AS SELECT id FROM generate_series(1, 1000) id;
      CREATE TABLE metrics_p (id int) PARTITION BY HASH (id);
      CREATE TABLE metrics_p0 PARTITION OF metrics_p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
      CREATE TABLE metrics_p1 PARTITION OF metrics_p FOR VALUES WITH (MODULUS 2, REMAINDER 1);
      INSERT INTO metrics_p SELECT id FROM generate_series(1, 500) id;
      CREATE TABLE metrics_r AS SELECT id FROM generate_series(1, 7) id;
      ANALYZE metrics_a, metrics_p, metrics_r]]
    finally(function()
      router:execute_on_all_shards("DROP TABLE IF EXISTS metrics_a, metrics_p, metrics_r")
    end)
    assert(router:execute_on_all_shards(ddl))
    assert.is_nil(keys.of(manager))
    assert(keys.refresh({ manager = manager, router = router }))
    local seen = samples()
    for _, shard in ipairs(manager.shards) do
      assert.equal(1500, seen[('keys_per_shard{shard="%s"}'):format(shard.shard_id)])
    end
  end)

  it("estimate the rows of every table that has the strategy's column, when none is declared", function()
    router, manager = cluster.connect({ tables = {}, strategy = { "hash", shard_key = "metrics_key" } })
    finally(function()
      router:execute_on_all_shards("DROP TABLE IF EXISTS metrics_k")
    end)
    assert(router:execute_on_all_shards("CREATE TABLE metrics_k AS SELECT metrics_key FROM generate_series(1, 30) "
      .. "metrics_key; ANALYZE metrics_k"))
    local found = assert(keys.refresh({ manager = manager, router = router }))
    for _, shard in ipairs(manager.shards) do
      assert.equal(30, found.shards[shard.shard_id])
    end
  end)

  it("are found well by promtool, also with hostile names", function()
    if not prometheus.is_there() then
      pending("promtool is missing")
      return
    end
    local options = cluster.options({ tables = {} })
    options.shards[1].shard_id = 'a"}\n# <b>\\ \255'
    manager = lunashard.manager(options)
    assert(manager:initialize())
    router = lunashard.router({ shard_manager = manager })
    router:execute("SELECT 1", nil, on(1))
    router:execute("SELECT nothing", nil, on(1))
    lunashard.metrics.counter({ name = "spec_pg_total", help = "x", labels = { "v" } }):add(1, { v = '"\n\\\255' })
    lunashard.metrics.histogram({ name = "spec_pg_seconds", help = "x" }):observe(0.1)
    local server = assert(http.listen({ host = "127.0.0.1", port = 0 }, { ready = function() return true end }))
    finally(function()
      server:close()
      manager:shutdown()
    end)
    local code, said = prometheus.promtool({ "check", "metrics" }, lunashard.metrics.render({ manager = manager,
      router = router, http = server, jobs = jobs.new(nil, { { name = 'a"\n', every = 60, run = "a.lua" } }) }))
    assert.equal("", said)
    assert.equal(0, code)
  end)

  it("know the shard that is down", function()
    local options = cluster.options()
    options.shards[2].port = require("spec.support.sockets").closed_port()
    manager = lunashard.manager(options)
    finally(function()
      manager:shutdown()
    end)
    cluster.warnings(function()
      assert(manager:initialize())
    end)
    router = lunashard.router({ shard_manager = manager })
    local seen = samples()
    assert.equal(0, seen[('shard_healthy{shard="%s"}'):format(manager.shards[2].shard_id)])
    assert.equal(1, seen[('shard_healthy{shard="%s"}'):format(manager.shards[1].shard_id)])
  end)
end)
