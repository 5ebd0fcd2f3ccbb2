-- One move, from one shard to another, under writers.
local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
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

  -- Moves there and back, each ended at one of these points and begun again.
  local function end_at(points)
    local from, to, hits = "shard2", "shard1", 0
    world:start(2)
    for _, point in ipairs(points) do
      local job, hit = world:plan(from, to), false
      local ok, err = pcall(world.run, world, job, { at = function(at)
        if at == point then
          hit = true
          error(errors.new("CLOSED", { message = "killed" }), 0)
        end
      end })
      assert.is_true(ok and not hit or not ok and errors.is(err, "CLOSED"), tostring(err))
      hits = hits + (hit and 1 or 0)
      ok, err = world:run(job)
      assert(ok, point .. ": " .. tostring(err))
      from, to = to, from
    end
    world:stop()
    assert.same({}, world:check())
    if from == "shard1" then -- where the rows are is where the next test looks for them
      assert(world:run(world:plan(from, to)))
    end
    return hits
  end

  it("goes on from wherever another mover was ended", function()
    assert.equal(5, end_at({ "capturing.keys:before-commit", "copying:after-commit", "fencing:after-commit",
      "merged:before-commit", "flipped:after-commit" }))
  end)

  it("goes on from wherever another mover was ended, around every commit #long", function()
    local points, seen = {}, {}
    assert(world:run(world:plan("shard2", "shard3"), { at = function(point)
      points[#points + 1] = not seen[point] and point or nil
      seen[point] = true
    end }))
    assert(world:run(world:plan("shard3", "shard2")))
    assert.is_true(#points > 40)
    assert.is_true(end_at(points) > 40)
  end)
end)
