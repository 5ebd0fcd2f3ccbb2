local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local guards = require("lunashard.router.guards")
local lunashard = require("lunashard")
local moves = require("spec.support.moves")
local task = require("lunashard.task")

local KEYS = 24

-- While guards are asked for, a bucket moves exactly between two statements, or in the middle of one.
describe("a statement for rows that move", function()
  local mover, router, manager
  local a, b -- keys on the first and the second shard

  setup(function()
    mover = moves.install()
    router, manager = moves.connect()
    assert(moves.open_guards(mover))
    cluster.wait_until("it guards", function()
      return manager.guarding
    end)
    moves.arm(mover)
    manager.catalog.poller:cancel() -- what it knows of moves, its own statements have found out
  end)

  teardown(function()
    moves.disarm(mover)
    moves.close_guards(mover)
    cluster.close_all()
    moves.remove()
    cluster.release()
  end)

  local function owner(key)
    assert(mover.catalog:refresh())
    return mover:get_shard_for_write(key).shard_id
  end

  -- Another key of the same shard, with a bucket and a row of its own.
  local function neighbour(key)
    local other = key + 1
    while owner(other) ~= owner(key) or tostring(moves.bucket_of(mover, other)) == tostring(moves.bucket_of(mover, key)) do
      other = other + 1
    end
    moves.on_shard(mover.by_id[owner(other)], {
      { "INSERT INTO moving VALUES ($1, 1, 0), ($1, 2, 0) ON CONFLICT DO NOTHING", { other } },
    })
    return other
  end

  before_each(function()
    assert(mover.catalog:refresh())
    local keys = {}
    for key = 1, KEYS do
      local shard_id = mover:get_shard_for_write(key).shard_id
      keys[shard_id] = keys[shard_id] or {}
      table.insert(keys[shard_id], key)
    end
    for _, member in ipairs(mover.members) do
      moves.on_shard(member, {
        { "DELETE FROM moving" },
        { "INSERT INTO moving SELECT k, n, 0 FROM unnest($1::int8[]) k, generate_series(1, 2) n",
          { keys[member.shard_id] or {} } },
      })
    end
    a, b = 1, 2
    while owner(b) == owner(a) do
      b = b + 1
    end
  end)

  after_each(function()
    assert.same({}, moves.misplaced(mover))
  end)

  -- What all rows of a key say, past the router.
  local function values_of(key)
    local values = {}
    for _, member in ipairs(mover.members) do
      for _, row in ipairs(assert(member.primary.pool:execute("SELECT v FROM moving WHERE k = $1 ORDER BY n", { key })).rows) do
        values[#values + 1] = row.v
      end
    end
    return values
  end

  local function spawn(fn)
    return task.spawn(fn):watch()
  end

  local function outcome(running)
    local ok, value, err = running:join(10)
    if not ok then
      error(value, 0)
    end
    return value, err
  end

  -- Run something against a map that is out of date, then at every step of a move.
  local function at_every_step(key, fn)
    moves.new(mover, key):run()
    fn("after")
    local move = moves.new(mover, key)
    for _, step in ipairs({ "fence", "merge", "flip", "purge" }) do
      move[step](move)
      local running = spawn(function()
        fn(step)
        return true
      end)
      task.sleep(0.005)
      if step == "fence" then
        move:merge()
        task.sleep(0.005)
        move:flip():purge()
        outcome(running)
        move = moves.new(mover, key):fence()
      elseif step == "merge" then
        move:flip():purge()
        outcome(running)
        move = moves.new(mover, key):fence():merge()
      elseif step == "flip" then
        move:purge()
        outcome(running)
        move = moves.new(mover, key):fence():merge():flip()
      else
        outcome(running)
      end
    end
  end

  it("finds them by their key", function()
    at_every_step(a, function(step)
      local opts = { routing_key = a }
      local found = assert(router:execute("SELECT n FROM moving WHERE k = $1 ORDER BY n", { a }, opts))
      assert.equal(2, #found.rows, step)
      found = assert(router:execute("SELECT n FROM moving WHERE k = $1", { a }))
      assert.equal(2, #found.rows, step)
    end)
  end)

  it("is written once, where they are", function()
    local n = 0
    at_every_step(a, function(step)
      n = n + 2
      local sql = "UPDATE moving SET v = v + 1 WHERE k = $1"
      assert.equal(2, assert(router:execute(sql, { a }, { routing_key = a })).row_count, step)
      assert.equal(2, assert(router:execute(sql, { a })).row_count, step)
    end)
    assert.same({ n, n }, values_of(a))
  end)

  it("puts new rows where the others are", function()
    local n = 10
    at_every_step(a, function()
      n = n + 1
      assert(router:execute("INSERT INTO moving (k, n) VALUES ($1, $2)", { a, n }, { routing_key = a }))
      n = n + 1
      assert(router:execute("INSERT INTO moving (k, n) VALUES ($1, $2), ($3, $2)", { a, n, b }))
      n = n + 1
      assert(router:execute("DELETE FROM moving WHERE k = $1 AND n = $2", { a, n - 1 }))
    end)
  end)

  it("for lists of keys touches each row once", function()
    local n = 0
    local list, different, n_different = { a, b, a % KEYS + 1, b % KEYS + 1 }, {}, 0
    for _, key in ipairs(list) do
      n_different = n_different + (different[key] and 0 or 1)
      different[key] = true
    end
    at_every_step(a, function(step)
      for _, order in ipairs({ "", " ORDER BY k, n" }) do
        local found = assert(router:execute("SELECT n FROM moving WHERE k = ANY ($1)" .. order, { list }))
        assert.equal(2 * n_different, #found.rows, step)
      end
      local sql = ("SELECT n FROM moving WHERE k IN (%d, %d)"):format(a, b)
      assert.equal(4, #assert(router:execute(sql)).rows, step)
      n = n + 2
      assert.equal(4, assert(router:execute("UPDATE moving SET v = v + 1 WHERE k = ANY ($1)", { { a, b } })).row_count, step)
      sql = ("UPDATE moving SET v = v + 1 WHERE k IN (%d, %d)"):format(a, b)
      assert.equal(4, assert(router:execute(sql)).row_count, step)
    end)
    assert.same({ n, n }, values_of(a))
    assert.same({ n, n }, values_of(b))
  end)

  it("for lists of keys is guarded by the map that has divided them", function()
    local keys, member = {}, manager.by_id[owner(a)]
    for i = 1, guards.MAX_BUCKETS + 1 do
      keys[i] = a
    end
    assert(manager.catalog:refresh())
    assert(guards.keys(manager, member, "moving", keys))
    moves.new(mover, a):run()
    assert(manager.catalog:refresh())
    local guard, err = guards.keys(manager, member, "moving", keys)
    assert.is_nil(guard)
    assert.is_true(guarding.is_stale(err))
  end)

  it("on one shard after the other reads each row once", function()
    local one = moves.connect({ max_parallel_shards = 1 })
    local list, run_on = {}, one.run_on
    for _ = 1, guards.MAX_BUCKETS + 1 do
      list[#list + 1], list[#list + 2] = a, b
    end
    function one.run_on(self, member, ...)
      one.run_on = nil
      local result, err = run_on(self, member, ...)
      moves.new(mover, owner(a) == member.shard_id and b or a):run()
      assert(self.manager.catalog:refresh())
      return result, err
    end
    assert.equal(4, #assert(one:execute("SELECT n FROM moving WHERE k = ANY ($1)", { list })).rows)
    assert.is_nil(rawget(one, "run_on"))
    one.manager:shutdown()
  end)

  it("on all shards sees every row once", function()
    at_every_step(a, function(step)
      local found = assert(router:scatter_gather("SELECT count(*) AS c, sum(v) AS s FROM moving"))
      assert.equal(2 * KEYS, found.rows[1].c, step)
      assert.is_true(found.complete)
      found = assert(router:execute("SELECT k, n FROM moving ORDER BY k, n"))
      assert.equal(2 * KEYS, #found.rows, step)
      found = assert(router:scatter_gather("SELECT count(*) AS c FROM moving", nil, { on_failure = "partial" }))
      assert.equal(2 * KEYS, found.rows[1].c, step)
      found = assert(router:scatter_gather("SELECT v + 1 AS one FROM moving", nil,
        { aggregation_func = lunashard.aggregate.sum("one") }))
      assert.equal(2 * KEYS, tonumber(found.rows[1].one), step)
    end)
  end)

  it("is streamed and unloaded with every row once", function()
    at_every_step(a, function(step)
      local n = 0
      for _ in router:stream("SELECT k FROM moving") do
        n = n + 1
      end
      for _ in router:stream("SELECT k, n FROM moving ORDER BY k, n", nil, { order_by = "k, n" }) do
        n = n + 1
      end
      for _ in router:stream("SELECT k FROM moving WHERE k = $1", { a }) do
        n = n + 1
      end
      assert.equal(4 * KEYS + 2, n, step)
      local bytes = {}
      local done = assert(router:copy_out("moving", function(piece)
        bytes[#bytes + 1] = piece
      end, { in_order = true }))
      assert.equal(2 * KEYS, done.row_count, step)
    end)
  end)

  it("that writes on all shards changes every row once", function()
    local n = 0
    at_every_step(a, function(step)
      n = n + 1
      local done = assert(router:execute("UPDATE moving SET v = v + 1", nil, { all_shards = true }))
      assert.equal(2 * KEYS, done.row_count, step)
    end)
    for key = 1, KEYS do
      assert.same({ n, n }, values_of(key))
    end
  end)

  it("in a transaction begins where they are", function()
    local n = 0
    at_every_step(a, function()
      for _, isolation in ipairs({ "read committed", "repeatable read", "serializable" }) do
        n = n + 1
        assert(router:transaction({ routing_key = a, isolation = isolation, retries = 5 }, function(tx)
          assert(tx:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { a }))
        end))
      end
    end)
    assert.same({ n, n }, values_of(a))
  end)

  it("in a transaction that has begun keeps them where they are", function()
    assert(router:transaction({ routing_key = a }, function(tx)
      assert(tx:execute("SELECT 1 AS one FROM moving WHERE k = $1", { a }))
      local move = moves.new(mover, a)
      local fencing = spawn(function()
        return move:fence():merge():flip():purge()
      end)
      task.sleep(0.05)
      assert.equal("waiting", fencing:status())
      assert(tx:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { a }))
      return fencing
    end):join(10))
    assert.same({ 1, 1 }, values_of(a))
  end)

  it("in a transaction for another key that has moved meanwhile is to be run again", function()
    local other = neighbour(a)
    assert(router:execute("SELECT 1 AS one FROM moving WHERE k = $1", { a }))
    local tries = 0
    local ok, err = router:transaction({ routing_key = a, retries = 0 }, function(tx)
      tries = tries + 1
      assert(tx:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { a }))
      moves.new(mover, other):run()
      return tx:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { other })
    end)
    assert.is_nil(ok)
    assert.equal("40001", err.sqlstate, tostring(err))
    assert.is_true(err.retryable)
    assert.equal(1, tries)
    assert.same({ 0, 0 }, values_of(a))
    assert.same({ 0, 0 }, values_of(other))
  end)

  it("in a transaction takes the guards of a savepoint anew when that is undone", function()
    local same = neighbour(a)
    assert(router:transaction({ routing_key = a }, function(tx)
      tx:transaction(function(inner)
        assert(inner:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { same }))
        error("no")
      end)
      moves.new(mover, same):run() -- nothing keeps it any more
      local _, err = tx:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { same })
      assert.equal("40001", err.sqlstate)
      error(err, 0)
    end) == nil)
  end)

  it("in many sets of parameters is run once for each", function()
    local n = 0
    local list = {}
    for key = 1, KEYS do
      list[key] = { key }
    end
    at_every_step(a, function(step)
      n = n + 2
      local sql = "UPDATE moving SET v = v + 1 WHERE k = $1"
      local done = assert(router:execute_many(sql, list, { key = 1 }))
      assert.equal(2 * KEYS, done.row_count, step)
      done = assert(router:execute_many(sql, list, { transaction = false }))
      assert.equal(2 * KEYS, done.row_count, step)
    end)
    for key = 1, KEYS do
      assert.same({ n, n }, values_of(key))
    end
  end)

  it("is loaded in bulk to where they are", function()
    local n = 10
    at_every_step(a, function(step)
      local rows = {}
      for key = 1, KEYS do
        rows[key] = { key, n, 0 }
      end
      n = n + 1
      local done = assert(router:copy_in("moving", { "k", "n", "v" }, rows))
      assert.equal(KEYS, done.row_count, step)
    end)
    for key = 1, KEYS do
      assert.equal(2 + n - 10, #values_of(key))
    end
  end)

  it("waits for a cutover until its deadline, and has then done nothing", function()
    local move = moves.new(mover, a):fence()
    for _, opts in ipairs({ { routing_key = a, timeout = 0.15 }, { timeout = 0.15 } }) do
      local started = task.now()
      local err = cluster.failure("STALE_MAP", router:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { a }, opts))
      assert.is_true(err.retryable)
      assert.is_true(task.now() - started < 2)
    end
    cluster.failure("STALE_MAP", router:scatter_gather("SELECT count(*) FROM moving", nil, { timeout = 0.1 }))
    cluster.failure("STALE_MAP", router:transaction({ routing_key = a, timeout = 0.1 }, function() end))
    assert(router:execute("UPDATE moving SET v = v + 5 WHERE k = $1", { b })) -- others do not wait
    move:merge():flip():purge()
    assert.same({ 0, 0 }, values_of(a))
    assert.same({ 5, 5 }, values_of(b))
  end)

  it("does not wait among too many others", function()
    local few, its_manager = moves.connect({ max_waiters = 2 })
    local move = moves.new(mover, a):fence()
    local running = {}
    for i = 1, 6 do
      running[i] = spawn(function()
        return few:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { a }, { timeout = 8 })
      end)
    end
    local function refused()
      local n = 0
      for i = 1, 6 do
        n = n + (running[i]:status() == "ended" and 1 or 0)
      end
      return n
    end
    cluster.wait_until("most are refused", function()
      return refused() >= 3
    end)
    move:merge():flip():purge()
    local done = 0
    for i = 1, 6 do
      local result, err = outcome(running[i])
      done = done + (result and 1 or 0)
      if not result then
        assert.is_true(errors.is(err, "STALE_MAP") or errors.is(err, "POOL_EXHAUSTED"), tostring(err))
      end
    end
    assert.is_true(done >= 1)
    assert.same({ done, done }, values_of(a))
    its_manager:shutdown()
  end)

  it("that reads has the shard's version read anew when the shard has changed what it owns, and the map has not", function()
    local member = manager.by_id[owner(a)]
    local pool = member.primary.pool
    local function read()
      local result = assert(router:execute("SELECT v FROM moving WHERE k = $1", { a }, { routing_key = a }))
      assert.equal(2, result.row_count)
    end
    local function version()
      return assert(pool:execute("SELECT version FROM lunashard.state")).rows[1].version
    end
    cluster.wait_until("it is known that this reads", function()
      read()
      return pool:is_read("SELECT v FROM moving WHERE k = $1")
    end)
    for _ = 1, 3 do
      assert(manager.catalog:refresh())
      moves.on_shard(member, { { "SELECT lunashard.advance()" } }) -- as a mover does that has removed rows
      assert.is_true(manager.catalog:shard_version(member.shard_id) < version())
      cluster.wait_until("its version is known", function()
        read()
        return manager.catalog:shard_version(member.shard_id) == version()
      end, 2)
      local before = pool.wary_until
      assert.is_true(before > 0)
      task.sleep(math.max(before - task.now(), 0))
      read()
      assert.equal(before, pool.wary_until)
    end
  end)

  it("without a guard is refused by the shard, which does no harm", function()
    local pool = mover.by_id[owner(a)].primary.pool
    local result, err = pool:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { a })
    assert.is_nil(result)
    assert.equal("LS003", err.sqlstate)
    assert.same({ 0, 0 }, values_of(a))
  end)

  it("and is of all shards by a script is refused, unless it changes the schema alone", function()
    cluster.failure("JOB_OPEN", router:execute_on_all_shards("UPDATE moving SET v = v + 1"))
    cluster.failure("JOB_OPEN", router:execute_on_all_shards("SET work_mem = '4MB'; DELETE FROM moving"))
    assert(router:execute_on_all_shards("COMMENT ON TABLE moving IS 'it moves; DELETE'"))
  end)

  it("and is a script's query on all shards sees every row once", function()
    at_every_step(a, function(step)
      local done = assert(router:execute_on_all_shards("SELECT count(*) AS c FROM moving"))
      local n = 0
      for _, result in pairs(done.shard_results) do
        n = n + result.rows[1].c
      end
      assert.equal(2 * KEYS, n, step)
    end)
  end)

  it("has nothing to do with reference tables", function()
    assert.equal("one", assert(router:execute("SELECT v FROM moving_reference WHERE id = 1")).rows[1].v)
    assert(router:execute("UPDATE moving_reference SET v = 'one' WHERE id = 1"))
    assert(router:execute("SELECT v FROM moving_reference", nil, { table = "moving_reference" }))
    assert(router:execute("DELETE FROM moving WHERE k = $1", { lunashard.null }))
  end)
end)
