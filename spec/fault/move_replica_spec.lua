-- Moves between shards that have replicas: no step before what it relies on has reached them.
local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local move_world = require("spec.support.move_world")
local sandbox = require("spec.support.sandbox")
local signals = require("lunashard.process").signals
local system = require("lunashard.core.system")
local task = require("lunashard.task")

describe("a move between shards with replicas #long", function()
  local servers, world

  setup(function()
    servers = sandbox.start({ shards = 2, replicas = 1 })
    world = move_world.open({ users = 40, cluster = { cluster_file = servers.cluster_file,
      health_check_interval = 0.5, connection_timeout = 2 } })
  end)

  teardown(function()
    if world then
      world:close()
    end
    cluster.close_all()
    servers:destroy()
  end)

  local function ask(endpoint, sql, params)
    return assert(endpoint.pool:execute(sql, params)).rows[1]
  end

  it("goes on from a fence and from a merge only when the replicas have received them", function()
    local positions, checked = {}, {}
    assert(world:run(world:plan("shard1", "shard2"), { at = function(point)
      local state, what = point:match("^(%a+):(.*)$")
      local member = world.manager.by_id[state == "verified" and "shard2" or "shard1"]
      if what == "after-commit" and (state == "fencing" or state == "verified") then
        positions[state] = ask(member.primary, "SELECT pg_current_wal_flush_lsn()::text AS p").p
      elseif what == "before-saved" and positions[state] and not checked[state] then
        checked[state] = ask(member.replicas[1], "SELECT pg_last_wal_receive_lsn() >= $1::pg_lsn AS yes",
          { positions[state] }).yes
      end
    end }))
    assert.same({ fencing = true, verified = true }, checked)
    assert.same({}, world:check())
  end)

  it("removes rows from the source only when the catalog's replica knows that they are elsewhere", function()
    local member, position, received = world.manager.by_id.shard1, nil, nil
    assert(world:run(world:plan("shard2", "shard1"), { at = function(point)
      if point == "merged:before-commit" then
        local pid = assert(faults.ask(servers.shards[1].replicas[1], "SELECT pid FROM pg_stat_wal_receiver")).rows[1].pid
        system.kill(pid, signals.STOP)
        task.spawn(function()
          task.sleep(1)
          system.kill(pid, signals.CONT)
        end)
      elseif point == "merged:after-commit" then
        position = ask(member.primary, "SELECT pg_current_wal_flush_lsn()::text AS p").p
      elseif point == "flipped:before-commit" then
        received = ask(member.replicas[1], "SELECT pg_last_wal_receive_lsn() >= $1::pg_lsn AS yes", { position }).yes
      end
    end }))
    assert.is_true(received)
    assert(world:run(world:plan("shard1", "shard2")))
    assert.same({}, world:check())
  end)

  it("finds what was done on the server that was promoted in the middle of it", function()
    local before = world.manager.by_id.shard2.primary
    local job = world:plan("shard2", "shard1")
    local ok, err = world:run(job, { at = function(point)
      if point == "copying:after-saved" and world.manager.by_id.shard2.primary == before then
        servers:kill("shard2")
        servers:promote("shard2_replica1")
      end
    end })
    assert.is_true(ok or err.code ~= "INVALID", tostring(err))
    cluster.wait_until("writes go to the other server", function()
      return world.manager.by_id.shard2.primary ~= before and not world.manager.by_id.shard2.write_refusal
    end, 20)
    assert(ok or world:run(job))
    assert.same({}, world:check())
  end)
end)
