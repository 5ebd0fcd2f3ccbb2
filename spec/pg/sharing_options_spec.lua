local cluster = require("spec.support.cluster")
local pool = require("lunashard.pool")
local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

-- Who decides what may be shared, and what users of pools and routers see of it.
describe("sharing of connections", function()
  setup(function()
    pools.start()
    sharing.create()
  end)

  teardown(function()
    sharing.drop()
    cluster.close_all()
    pools.stop()
  end)

  after_each(function()
    cluster.close_all()
    pools.close_all()
  end)

  -- n tasks read, insert and count at the same time.
  local function work(execute, n)
    sharing.all(n, function(i)
      for _ = 1, 5 do
        assert.equal(i * 7 + 3, assert(execute(sharing.READ, { i })).rows[1].v)
        assert(execute(sharing.INSERT, { sharing.new_id() }))
        assert(execute(sharing.COUNT, { i }))
      end
    end)
  end

  it("is switched off for a pool", function()
    local one = pools.open({ max_size = 3, pipeline = false })
    local shared = sharing.shared_by(one, function()
      work(function(...)
        return one:execute(...)
      end, 20)
    end)
    assert.equal(0, shared)
    assert.equal(0, one:stats().lanes)
  end)

  it("is switched off where an encryption is asked for that libpq alone can speak", function()
    local one = pools.open({ max_size = 3, gssencmode = "prefer" })
    assert.equal(0, (sharing.shared_by(one, function()
      work(function(...)
        return one:execute(...)
      end, 8)
    end)))
  end)

  it("is switched off for a call", function()
    local one = pools.open({ max_size = 3 })
    for _, sql in ipairs({ sharing.READ, sharing.INSERT, sharing.COUNT }) do
      sharing.warm(one, sql, { 1 })
    end
    local shared = sharing.shared_by(one, function()
      work(function(sql, params)
        return one:execute(sql, params, { pipeline = false })
      end, 20)
    end)
    assert.equal(0, shared)
    assert.equal(1, (sharing.shared_by(one, function()
      assert(one:execute(sharing.READ, { 1 }))
    end)))
  end)

  it("gives each read a transaction of its own without read batches", function()
    local one = pools.open({ max_size = 3, read_batches = false })
    sharing.warm(one, sharing.READ, { 1 })
    local shared, batched = sharing.shared_by(one, function()
      sharing.all(20, function(i)
        assert(one:execute(sharing.READ, { i }))
      end)
    end)
    assert.equal(20, shared)
    assert.equal(0, batched)
    assert.equal(0, one:stats().batches)
  end)

  it("puts the reads of one turn into few batches", function()
    local one = pools.open({ max_size = 2 })
    sharing.warm(one, sharing.READ, { 1 })
    local batches = one:stats().batches
    local _, batched = sharing.shared_by(one, function()
      sharing.all(40, function(i)
        assert(one:execute(sharing.READ, { i }))
      end)
    end)
    assert.equal(40, batched)
    batches = one:stats().batches - batches
    assert.is_true(batches >= 1 and batches <= 4, batches .. " batches")
  end)

  it("never gives two reads of a batch each other's answers, whatever their columns", function()
    local one = pools.open({ max_size = 1 })
    local texts = {}
    for i = 1, 30 do
      local columns = {}
      for column = 1, i do
        columns[column] = ("v + %d AS c%d_%d"):format(column, i, column)
      end
      texts[i] = ("SELECT %s FROM sharing.item WHERE id = $1"):format(table.concat(columns, ", "))
      sharing.warm(one, texts[i], { 1 })
    end
    sharing.all(60, function(i)
      for round = 1, 10 do
        local n = (i + round) % 30 + 1
        local result = assert(one:execute(texts[n], { i }))
        assert.equal(n, #result.columns)
        for column = 1, n do
          assert.equal(("c%d_%d"):format(n, column), result.columns[column])
          assert.equal(i * 7 + 3 + column, result.rows[1][result.columns[column]])
        end
      end
    end)
  end)

  it("carries large parameters and answers both ways at once", function()
    local one = pools.open({ max_size = 1 })
    local echo, length = "SELECT $1::text AS v", "SELECT length($1::text) AS v"
    sharing.warm(one, echo, { "x" })
    sharing.warm(one, length, { "x" })
    sharing.all(20, function(i)
      for round = 1, 2 do
        local text = string.char(97 + (i + round) % 26):rep(200000 + i)
        assert.is_true(assert(one:execute(echo, { text })).rows[1].v == text)
        text = text:rep(4)
        assert.equal(#text, assert(one:execute(length, { text })).rows[1].v)
      end
    end)
  end)

  it("shows statements the settings that a session of one's own would show", function()
    local one = pools.open({ max_size = 2 })
    for _, sql in ipairs({
      "SELECT current_setting('lock_timeout') AS v", "SELECT current_setting('transaction_read_only') AS v",
      "SELECT current_setting('default_transaction_read_only') AS v",
      "SELECT current_setting('default_transaction_isolation') AS v",
      "SELECT setting AS v FROM pg_settings WHERE name = 'lock_timeout'",
      "SELECT setting AS v FROM pg_settings WHERE name = 'default_transaction_read_only'",
      "SELECT setting AS v FROM pg_catalog.pg_show_all_settings() WHERE name = 'lock_timeout'",
    }) do
      local expected = assert(one:execute(sql, nil, { pipeline = false })).rows[1].v
      for _ = 1, 10 do
        assert.equal(expected, assert(one:execute(sql)).rows[1].v, sql)
      end
      sharing.warm(one, sharing.READ, { 1 })
      assert.equal(expected, assert(one:execute(sql)).rows[1].v, sql)
    end
  end)

  it("ends with a pool that nobody holds any more", function()
    local server, tasks = pools.server, {}
    do
      local one = pool.new({
        shard_id = "shard1", host = server.host, port = server.port, database = server.database,
        user = server.user, password = server.password, max_size = 2,
      })
      sharing.warm(one, sharing.READ, { 1 })
      for i = 1, 20 do
        tasks[i] = task.spawn(function()
          local result, err = one:execute(sharing.READ, { i })
          return result and result.rows[1].v, err
        end):watch()
      end
    end
    for i = 1, 20 do
      local ok, v, err = tasks[i]:join(10)
      assert.is_true(ok)
      assert.is_true(v == i * 7 + 3 or err and err.code == "CLOSED", tostring(err))
    end
    pools.wait_until("its sessions have ended", function()
      collectgarbage()
      return pools.sessions() == 0
    end)
  end)

  describe("by a router", function()
    local function home_of(router)
      return { shard_id = router.manager.shards[1].shard_id }
    end

    local function shared_by(router, fn)
      local id = router.manager.shards[1].shard_id
      local before = router.manager:get_pool_stats(id)
      fn()
      local after = router.manager:get_pool_stats(id)
      return after.shared - before.shared, after.batched - before.batched
    end

    local function warm(router)
      local opts = home_of(router)
      cluster.wait_until("it shares a connection", function()
        return shared_by(router, function()
          assert(router:execute(sharing.READ, { 1 }, opts))
        end) > 0
      end)
    end

    it("is on, and switched off for a call", function()
      local router = cluster.connect()
      warm(router)
      local home = home_of(router)
      assert.equal(5, (shared_by(router, function()
        for i = 1, 5 do
          assert.equal(i * 7 + 3, assert(router:execute(sharing.READ, { i }, home)).rows[1].v)
        end
      end)))
      home.pipeline = false
      assert.equal(0, (shared_by(router, function()
        assert(router:execute(sharing.READ, { 1 }, home))
      end)))
      assert.has_error(function()
        router:execute(sharing.READ, { 1 }, { shard_id = home.shard_id, pipelin = false })
      end)
    end)

    it("is switched off for a cluster or a shard", function()
      for _, overrides in ipairs({ { pipeline = false }, {} }) do
        if overrides.pipeline == nil then
          overrides.shards = cluster.options().shards
          overrides.shards[1].pipeline = false
        end
        local router = cluster.connect(overrides)
        assert.equal(0, (shared_by(router, function()
          work(function(sql, params)
            return router:execute(sql, params, home_of(router))
          end, 10)
        end)))
      end
    end)

    it("leaves reads without batches when these are switched off", function()
      local router = cluster.connect({ read_batches = false })
      warm(router)
      local shared, batched = shared_by(router, function()
        assert(router:execute(sharing.READ, { 1 }, home_of(router)))
      end)
      assert.same({ 1, 0 }, { shared, batched })
    end)

    it("survives the end of sessions: reads are tried again, writes are never done twice", function()
      local router = cluster.connect({ connection_pool_size = 2, retries = 10 })
      warm(router)
      local home = home_of(router)
      local neighbours = sharing.neighbours(pools.open({ max_size = 1 }), {
        n = 8,
        execute = function(sql, params, opts)
          return router:execute(sql, params, { shard_id = home.shard_id, read_only = opts and opts.read_only })
        end,
        may_fail = function(err) -- a read never
          return err.code == "UNKNOWN_OUTCOME" or err.code == "SHARD_DOWN"
        end,
      })
      for _ = 1, 15 do
        pools.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", { pools.server.user })
        task.sleep(0.03)
      end
      neighbours:go_on(5)
      neighbours:stop()
    end)

    it("keeps out of transactions, which see their own writes and nobody else's", function()
      local router = cluster.connect({ connection_pool_size = 3 })
      warm(router)
      local home = home_of(router)
      sharing.all(6, function()
        for _ = 1, 10 do
          local id = sharing.new_id()
          local count = "SELECT count(*) AS n FROM sharing.log WHERE id = $1"
          assert(router:transaction(home, function(tx)
            assert(tx:execute(sharing.INSERT, { id }))
            assert.equal(1, assert(tx:execute(count, { id })).rows[1].n)
          end))
          assert.equal(1, assert(router:execute(count, { id }, home)).rows[1].n)
          local ok = router:transaction(home, function(tx)
            assert(tx:execute(sharing.INSERT, { id }))
            error("undo it")
          end)
          assert.is_nil(ok)
          assert.equal(1, assert(router:execute(count, { id }, home)).rows[1].n)
        end
      end)
    end)
  end)
end)
