-- One move, from one shard to another, under writers.
local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local move = require("lunashard.rebalancer.move")
local moving = require("spec.support.move_world")

describe("a move", function()
  local world

  setup(function()
    world = moving.open()
  end)

  teardown(function()
    if world then
      world:close()
    end
    cluster.release()
  end)

  local function rows_on(shard_id)
    return assert(world.manager.by_id[shard_id].primary.pool:execute("SELECT count(*) AS n FROM mv_users")).rows[1].n
  end

  it("takes all rows of its buckets along, under writers, and nothing else", function()
    local before, job = rows_on("shard1"), world:plan("shard1", "shard2")
    world:start()
    assert(world:run(job))
    world:stop()
    assert.same({}, world:check())
    assert.is_true(before > 0)
    assert.equal(0, rows_on("shard1"))
    assert.equal("done", job.moves[1].state)
    assert.is_true(job.moves[1].rows_copied >= before)
    assert.is_true(job.moves[1].pause_seconds > 0)
    assert.is_true(world.writes > 0)
  end)

  it("goes on from wherever another mover was ended, around every commit", function()
    local points, seen = {}, {}
    local job = world:plan("shard2", "shard1", { keys = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 } })
    assert(world:run(job, { at = function(point)
      points[#points + 1] = not seen[point] and point or nil
      seen[point] = true
    end }))
    assert.is_true(#points > 40)
    local from, to = "shard1", "shard2"
    world:start(2)
    for _, point in ipairs(points) do
      job = world:plan(from, to)
      local hit = false
      local ok, err = pcall(world.run, world, job, { at = function(at)
        if at == point then
          hit = true
          error(errors.new("CLOSED", { message = "killed" }), 0)
        end
      end })
      assert.is_true(ok and not hit or not ok and errors.is(err, "CLOSED"), tostring(err))
      ok, err = world:run(job)
      assert(ok, point .. ": " .. tostring(err))
      from, to = to, from
    end
    world:stop()
    assert.same({}, world:check())
  end)
end)
