local cluster = require("spec.support.cluster")
local moves = require("spec.support.moves")
local references = require("lunashard.rebalancer.references")
local task = require("lunashard.task")

-- Rows that are on every shard, while one more joins.
describe("a write to a reference table", function()
  local mover, router, manager
  local TABLE = { table = "moving_reference" }
  local UPDATE = "UPDATE moving_reference SET v = v || '+'"

  setup(function()
    mover = moves.install()
    assert(moves.open_guards(mover))
  end)

  teardown(function()
    moves.close_guards(mover)
    cluster.close_all()
    moves.remove()
    cluster.release()
  end)

  local function on(shard_id, sql)
    return assert(mover.by_id[shard_id].primary.pool:execute(sql)).rows
  end

  -- The third shard is as it was before it joined: it has no rows of reference tables.
  before_each(function()
    for _, member in ipairs(mover.members) do
      on(member.shard_id, "TRUNCATE moving_reference")
      on(member.shard_id, "INSERT INTO moving_reference SELECT 1, 'one' WHERE '" .. member.shard_id .. "' <> 'shard3'")
    end
    on("shard3", "UPDATE lunashard.identity SET joined = false")
    assert(mover.catalog:execute("UPDATE lunashard_catalog.shard SET joined = shard_id <> 'shard3'"))
    assert(mover.catalog:execute("SELECT lunashard_catalog.next_version()"))
    router, manager = moves.connect()
    manager.catalog.poller:cancel() -- what it knows, its own statements have found out
  end)

  after_each(function()
    manager:shutdown()
  end)

  local function values()
    local list = {}
    for i, member in ipairs(mover.members) do
      local row = on(member.shard_id, "SELECT v FROM moving_reference")[1]
      list[i] = row and row.v or "none"
    end
    return list
  end

  local function copy()
    return references.copy(mover, "shard1", "shard3", task.now() + 10)
  end

  it("does not go where the rows are not yet", function()
    local result = assert(router:execute(UPDATE, nil, TABLE))
    assert.is_nil(result.shard_results.shard3)
    assert(router:execute("INSERT INTO moving_reference VALUES (2, 'two')"))
    assert(router:copy_in("moving_reference", { "id", "v" }, { { 3, "three" } }))
    assert.same({}, on("shard3", "SELECT FROM moving_reference"))
    assert.equal(3, #on("shard2", "SELECT FROM moving_reference"))
    assert.same({ "shard1", "shard2" }, assert(router:explain(UPDATE, nil, TABLE)).shards)
  end)

  it("waits for the copy, and goes to the new shard after it", function()
    local holder = assert(mover.by_id.shard3.primary.pool:acquire())
    assert(holder:execute("BEGIN"))
    assert(holder:execute("LOCK TABLE moving_reference IN EXCLUSIVE MODE"))
    local copying = task.spawn(copy):watch()
    cluster.wait_until("the rows are being copied", function()
      return on("shard3", "SELECT FROM pg_locks WHERE relation = 'moving_reference'::regclass AND NOT granted")[1] ~= nil
    end)
    local writing = task.spawn(function()
      return router:execute(UPDATE, nil, TABLE)
    end):watch()
    cluster.wait_until("it has been refused", function()
      return (manager.waiting_for_map or 0) > 0
    end)
    assert(holder:execute("COMMIT"))
    holder:release()
    assert.equal(1, select(2, assert(copying:join(10))))
    assert(select(2, assert(writing:join(10))))
    assert.same({ "one+", "one+", "one+" }, values())
  end)

  it("by a router that has not heard of the copy goes to the new shard, too", function()
    assert(router:execute(UPDATE, nil, TABLE))
    assert.equal(1, copy())
    assert(router:execute(UPDATE, nil, TABLE))
    assert.same({ "one++", "one++", "one++" }, values())
  end)

  it("that passed by after a copier was killed is made up for by the next one", function()
    local execute = mover.catalog.execute
    assert.equal(1, copy())
    assert(execute(mover.catalog, "UPDATE lunashard_catalog.shard SET joined = false WHERE shard_id = 'shard3'"))
    assert(execute(mover.catalog, "SELECT lunashard_catalog.next_version()"))
    assert(manager.catalog:refresh())
    assert(router:execute(UPDATE, nil, TABLE))
    assert.same({ "one+", "one+", "one" }, values())
    assert.equal(1, copy())
    assert.same({ "one+", "one+", "one+" }, values())
  end)

  it("is refused where a shard that has the rows is not in the cluster file", function()
    assert(mover.catalog:execute([[INSERT INTO lunashard_catalog.shard (shard_id, host, port, database, position, joined)
      VALUES ('shard9', 'localhost', 1, 'none', 9, true)]]))
    assert(mover.catalog:execute("SELECT lunashard_catalog.next_version()"))
    finally(function()
      assert(mover.catalog:execute("DELETE FROM lunashard_catalog.shard WHERE shard_id = 'shard9'"))
    end)
    assert(manager.catalog:refresh())
    local err = cluster.failure("STALE_MAP", router:execute(UPDATE, nil, { table = "moving_reference", timeout = 0.5 }))
    assert.truthy(err.message:find("shard9", 1, true), err.message)
    assert.same({ "one", "one", "none" }, values())
  end)
end)
