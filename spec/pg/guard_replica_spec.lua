local cluster = require("spec.support.cluster")
local moves = require("spec.support.moves")
local pools = require("lunashard.pool")
local sandbox = require("spec.support.sandbox")

-- A standby may not have heard of a move: what it shows is believed as far as it says itself what it owned then.
describe("a read from a standby of rows that move", function()
  local server, mover, router, manager

  setup(function()
    server = sandbox.start({ shards = 2, replicas = 1 })
    mover = moves.install({ cluster_file = server.cluster_file })
    router, manager = moves.connect({ cluster_file = server.cluster_file })
    assert(moves.open_guards(mover))
    manager.catalog.poller:cancel()
  end)

  teardown(function()
    cluster.close_all()
    server:destroy()
  end)

  local READ = { routing_key = 1, read_only = true }

  local function replica_of(member)
    local standby = member.replicas[1]
    return standby and standby.name
  end

  local function owner()
    assert(mover.catalog:refresh())
    return manager.by_id[mover:get_shard_for_write(1).shard_id]
  end

  local function caught_up()
    for _, member in ipairs(mover.members) do
      local at = assert(member.primary.pool:execute("SELECT pg_current_wal_lsn()::text AS lsn")).rows[1].lsn
      local sql = "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS there"
      cluster.wait_until("the standby has replayed", function()
        return assert(member.endpoints[2].pool:execute(sql, { at })).rows[1].there
      end, 20)
    end
  end

  -- As somebody who may hold up what they replay.
  local function on_standbys(sql)
    for _, shard in ipairs(server.shards) do
      local standby = shard.replicas[1]
      local pool = pools.new({ shard_id = shard.shard_id, host = standby.host, port = standby.port,
        database = standby.database, user = standby.superuser, password = standby.superuser_password })
      assert(pool:execute(sql))
      pool:close()
    end
  end

  it("is answered there while it agrees, and by the primary when it does not", function()
    assert(router:execute("INSERT INTO moving (k, n) VALUES (1, 1)"))
    caught_up()
    cluster.wait_until("the standby is usable", function()
      return assert(router:execute("SELECT n FROM moving WHERE k = $1", { 1 }, READ)).endpoint == replica_of(owner())
    end, 20)
    on_standbys("SELECT pg_wal_replay_pause()")
    moves.new(mover, 1):run()
    -- Where neither the router nor the former owner's standby has heard of it, this is how it was a moment ago.
    local answer = assert(router:execute("SELECT n FROM moving WHERE k = $1", { 1 }, READ))
    assert.equal(1, #answer.rows)
    assert(router:execute("UPDATE moving SET v = v + 1 WHERE k = $1", { 1 }))
    answer = assert(router:execute("SELECT n FROM moving WHERE k = $1", { 1 }, READ))
    assert.equal(1, #answer.rows)
    assert.equal(owner().primary.name, answer.endpoint)
    assert.equal(1, assert(router:scatter_gather("SELECT count(*) AS c FROM moving", nil, { read_only = true })).rows[1].c)
    on_standbys("SELECT pg_wal_replay_resume()")
    local n = 0
    for _ in router:stream("SELECT n FROM moving", nil, { read_only = true }) do
      n = n + 1
    end
    assert.equal(1, n)
    caught_up()
    assert.equal(1, #assert(router:execute("SELECT n FROM moving WHERE k = $1", { 1 }, READ)).rows)
    assert.same({}, moves.misplaced(mover))
  end)

  it("is answered by the primary after the job, until the standby has heard of its last moves", function()
    finally(function()
      on_standbys("SELECT pg_wal_replay_resume()")
      assert(moves.open_guards(mover))
      assert(manager.catalog:refresh())
    end)
    caught_up()
    on_standbys("SELECT pg_wal_replay_pause()")
    moves.new(mover, 1):run()
    moves.close_guards(mover)
    assert(manager.catalog:refresh())
    cluster.wait_until("it guards nothing", function()
      return not manager.guarding
    end)
    for _ = 1, 3 do
      local answer = assert(router:execute("SELECT n FROM moving WHERE k = $1", { 1 }, READ))
      assert.equal(1, #answer.rows)
      assert.equal(owner().primary.name, answer.endpoint)
      assert.equal(1, assert(router:scatter_gather("SELECT count(*) AS c FROM moving", nil, { read_only = true })).rows[1].c)
    end
    local late, its_manager = moves.connect({ cluster_file = server.cluster_file })
    assert.equal(1, #assert(late:execute("SELECT n FROM moving WHERE k = $1", { 1 }, READ)).rows)
    its_manager:shutdown()
    on_standbys("SELECT pg_wal_replay_resume()")
    cluster.wait_until("the standby is read again", function()
      local answer = assert(router:execute("SELECT n FROM moving WHERE k = $1", { 1 }, READ))
      assert.equal(1, #answer.rows)
      return answer.endpoint == replica_of(owner())
    end, 20)
  end)
end)
