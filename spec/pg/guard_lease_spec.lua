local cluster = require("spec.support.cluster")
local lease = require("lunashard.catalog.lease")
local moves = require("spec.support.moves")
local task = require("lunashard.task")

-- Who may leave guards out, and until when.
describe("a router", function()
  local mover, router, manager
  local duration = lease.DURATION

  setup(function()
    lease.DURATION = 2
    mover = moves.install()
  end)

  teardown(function()
    lease.DURATION = duration
    cluster.close_all()
    moves.remove()
    cluster.release()
  end)

  before_each(function()
    router, manager = moves.connect()
    for _, member in ipairs(mover.members) do
      moves.on_shard(member, { { "DELETE FROM moving" } })
    end
    assert(router:execute("INSERT INTO moving (k, n) VALUES (1, 1)"))
  end)

  after_each(function()
    moves.close_guards(mover)
    moves.disarm(mover)
    manager:shutdown()
    assert.same({}, moves.misplaced(mover))
    cluster.wait_until("the mover is not guarded", function()
      return not mover.guarding
    end)
  end)

  local function rows(sql)
    return assert(mover.catalog:execute(sql)).rows
  end

  local function has_lease(one)
    return rows("SELECT FROM lunashard_catalog.router WHERE router_id = '" .. one.catalog.lease_state.id .. "'")[1] ~= nil
  end

  -- Instead of the present one, a router whose first lease is short.
  local function connect_briefly()
    manager:shutdown()
    lease.DURATION = 0.5
    local ok, one, its_manager = pcall(moves.connect)
    lease.DURATION = 2
    assert(ok, one)
    router, manager = one, its_manager
  end

  -- As if the process had been stopped: nothing of it runs, and its clock goes on.
  local function freeze(one)
    one.catalog.poller:cancel()
    one.catalog.lease_state.task:cancel()
    one.catalog.lease_state.stopped = true
    cluster.wait_until("its lease has run out", function()
      return task.now() >= one.catalog.lease_state.till
        and rows("SELECT bool_and(lease_until < clock_timestamp()) AS over FROM lunashard_catalog.router WHERE router_id = '"
          .. one.catalog.lease_state.id .. "'")[1].over
    end)
  end

  local function spawn(fn)
    return task.spawn(fn):watch()
  end

  it("guards nothing while it has a lease and no job is open", function()
    cluster.wait_until("it has its lease", function()
      return not manager.guarding and manager.generation > 0
    end)
    assert.is_true(has_lease(manager))
    assert(router:execute("SELECT v FROM moving WHERE k = 1"))
    local first = manager.catalog.lease_state.till
    cluster.wait_until("its lease was renewed", function()
      return manager.catalog.lease_state.till > first
    end)
    cluster.wait_until("it guards nothing", function()
      return not manager.guarding
    end)
  end)

  it("gives its lease up when it is shut down", function()
    local _, other = moves.connect()
    assert.is_true(has_lease(other))
    other:shutdown()
    assert.is_false(has_lease(other))
  end)

  it("promises guards only when nothing without one is under way", function()
    local tx = assert(router:begin({ routing_key = 1 }))
    assert(tx:execute("UPDATE moving SET v = v + 1 WHERE k = 1"))
    local err = cluster.failure("TIMEOUT", moves.open_guards(mover, 1, manager))
    assert.is_truthy(err.message:find("process %d+ has statements or transactions under way without guards"), err.message)
    assert.is_true(manager.guarding)
    assert(tx:execute("UPDATE moving SET v = v + 1 WHERE k = 1"))
    assert(tx:commit())
    assert(moves.open_guards(mover, 8, manager))
    assert.equal(2, assert(router:execute("SELECT v FROM moving WHERE k = 1")).rows[1].v)
    moves.close_guards(mover)
    assert(manager.catalog:refresh())
    cluster.wait_until("it guards no more", function()
      return not manager.guarding
    end)
    assert(router:execute("UPDATE moving SET v = v + 1 WHERE k = 1"))
  end)

  it("that waits for an answer promises nothing before", function()
    local reading = spawn(function()
      return router:execute("SELECT v, pg_sleep(0.8) FROM moving WHERE k = 1")
    end)
    cluster.wait_until("it runs", function()
      return manager.term:running() == 1
    end)
    local opening = spawn(function()
      return moves.open_guards(mover, 8, manager)
    end)
    assert(reading:join(10))
    assert.equal("waiting", opening:status())
    local _, ok = assert(opening:join(10))
    assert.is_true(ok)
  end)

  it("whose lease has run out is not waited for, and guards its next statement", function()
    connect_briefly()
    freeze(manager)
    assert(moves.open_guards(mover, 8, manager))
    moves.arm(mover)
    moves.new(mover, 1):run()
    moves.disarm(mover) -- as when the job has ended
    moves.close_guards(mover)
    assert.equal(1, assert(router:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { 1 }, { routing_key = 1 })).row_count)
    assert.equal(1, #assert(router:execute("SELECT v FROM moving WHERE k = $1", { 1 })).rows)
    assert.is_true(manager.guarding)
    assert(router:execute("INSERT INTO moving (k, n) VALUES (1, 2)"))
    assert.equal(2, assert(router:scatter_gather("SELECT count(*) AS c FROM moving")).rows[1].c)
  end)

  it("whose lease runs out in the middle of a transaction guards what follows", function()
    connect_briefly()
    local tx = assert(router:begin({ routing_key = 1 }))
    assert.equal(0, assert(tx:execute("SELECT v FROM moving WHERE k = 1")).rows[1].v)
    freeze(manager)
    assert(moves.open_guards(mover, 8, manager))
    moves.new(mover, 1):run()
    local result, err = tx:execute("INSERT INTO moving (k, n) VALUES (1, 3)")
    assert.is_nil(result)
    assert.equal("40001", err.sqlstate)
    assert(tx:rollback())
    assert(router:transaction({ routing_key = 1, retries = 2 }, function(again)
      return again:execute("INSERT INTO moving (k, n) VALUES (1, 4)")
    end))
  end)

  it("hears of a job that opened while it waited to renew, whatever isolation its sessions begin with", function()
    finally(function()
      rows("ALTER ROLE CURRENT_USER RESET default_transaction_isolation")
    end)
    rows("ALTER ROLE CURRENT_USER SET default_transaction_isolation = 'repeatable read'")
    manager:shutdown()
    router, manager = moves.connect()
    local state, holder = manager.catalog.lease_state, assert(mover.catalog:lease())
    assert(holder:execute("BEGIN ISOLATION LEVEL READ COMMITTED"))
    assert(holder:execute("SELECT pg_advisory_xact_lock(hashtextextended('lunashard guards', 0))"))
    cluster.wait_until("both renewals wait, its own and the mover's", function()
      return rows("SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND NOT granted")[2]
    end)
    local before, now_is = state.till, assert(holder:execute([[
      UPDATE lunashard_catalog.cluster SET guards = true, guard_epoch = guard_epoch + 1 RETURNING guard_epoch]])).rows[1]
    assert(holder:execute("COMMIT"))
    holder:release()
    cluster.wait_until("it has renewed", function()
      return state.till ~= before
    end)
    assert.equal(now_is.guard_epoch, state.epoch)
  end)

  it("drops an answer that comes after its lease, and asks again", function()
    connect_briefly()
    local slow = "SELECT v, count(*) OVER () AS c, pg_sleep(1.2) FROM moving WHERE k = $1"
    local reading = spawn(function()
      return router:execute(slow, { 1 }, { routing_key = 1, read_only = true })
    end)
    cluster.wait_until("it runs", function()
      return manager.term:running() == 1
    end)
    freeze(manager)
    assert(moves.open_guards(mover, 8, manager))
    moves.new(mover, 1):run()
    assert(mover:get_shard_for_write(1))
    local _, answer = assert(reading:join(10))
    assert.equal(1, #answer.rows)
    assert.equal(mover:get_shard_for_write(1).shard_id, answer.shard_id)
  end)

  it("that does not know a shard keeps rows from being moved to it", function()
    finally(function()
      rows("DELETE FROM lunashard_catalog.shard WHERE shard_id = 'shard9'")
    end)
    rows([[INSERT INTO lunashard_catalog.shard (shard_id, host, port, database, position)
      VALUES ('shard9', 'localhost', 1, 'none', 9)]])
    local err = cluster.failure("TIMEOUT", moves.open_guards(mover, 1, manager))
    assert.is_truthy(err.message:find("does not know the shard shard9: reload its cluster file", 1, true), err.message)
    rows("DELETE FROM lunashard_catalog.shard WHERE shard_id = 'shard9'")
    assert(moves.open_guards(mover, 8, manager))
  end)

  it("is waited for when the catalog has lost its lease in a failover", function()
    local tx = assert(router:begin({ routing_key = 1 }))
    assert(tx:execute("UPDATE moving SET v = v + 1 WHERE k = 1"))
    rows("UPDATE lunashard_catalog.cluster SET timeline = '00000000'")
    rows("DELETE FROM lunashard_catalog.router WHERE router_id = '" .. manager.catalog.lease_state.id .. "'")
    local err = cluster.failure("TIMEOUT", moves.open_guards(mover, lease.DURATION * 1.5))
    assert.is_truthy(err.message:find("has statements or transactions under way without guards", 1, true), err.message)
    assert(tx:commit())
    assert(moves.open_guards(mover, 1.5)) -- once is enough
  end)

  it("that comes while guards are asked for guards from the start", function()
    assert(moves.open_guards(mover, 8, manager))
    local late, its_manager = moves.connect()
    assert.is_true(its_manager.guarding)
    moves.arm(mover)
    assert(late:execute("UPDATE moving SET v = v + 1 WHERE k = 1"))
    its_manager:shutdown()
  end)
end)
