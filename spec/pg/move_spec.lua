-- One move, from one shard to another, under writers.
local cluster = require("spec.support.cluster")
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

  it("takes all rows of its buckets along, under writers, and nothing else", function()
    local before, job = world:rows_on("shard1"), world:plan("shard1", "shard2")
    world:start()
    assert(world:run(job))
    world:stop()
    assert.same({}, world:check())
    assert.is_true(before > 0)
    assert.equal(0, world:rows_on("shard1"))
    assert.equal("done", job.moves[1].state)
    assert.is_true(job.moves[1].rows_copied >= before)
    assert.is_true(job.moves[1].pause_seconds > 0)
    assert.is_true(world.writes > 0)
  end)
end)
