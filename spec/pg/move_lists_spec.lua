-- What a move lists before it, and what it leaves for a while: keys by pages, rows until their delay is over.
local cluster = require("spec.support.cluster")
local keys = require("lunashard.rebalancer.keys")
local moving = require("spec.support.move_world")
local sweep = require("lunashard.rebalancer.sweep")

describe("a move of a table that is read through by pages", function()
  local world
  local page = keys.PAGE

  setup(function()
    keys.PAGE = 25
    world = moving.open()
  end)

  teardown(function()
    keys.PAGE = page
    if world then
      world:close()
    end
    cluster.release()
  end)

  it("takes all rows along, under writers and from wherever another mover was ended, each page by itself", function()
    local job, pages = world:plan("shard1", "shard2"), 0
    assert.is_true(world:rows_on("shard1") > 30)
    world:start(2)
    local ended = pcall(world.run, world, job, { at = function(point)
      pages = pages + (point == "capturing.keys:after-commit" and 1 or 0)
      if pages == 2 then
        error("ended", 0)
      end
    end })
    assert.is_false(ended)
    assert(world:run(job, { at = function(point)
      pages = pages + (point == "capturing.keys:after-commit" and 1 or 0)
    end }))
    world:stop()
    assert.is_true(pages >= 5)
    assert.same({}, world:check())
    assert.equal(0, world:rows_on("shard1"))
  end)

  -- A job whose first move was given up between two pages, and is begun again later.
  it("lists what the job has begun with, whichever of its moves goes on with it", function()
    local job, pages = world:plan("shard2", "shard1", { moves = 2 }), 0
    world:start(2)
    assert.is_false((pcall(world.run, world, job, { at = function(point)
      pages = pages + (point == "capturing.keys:after-commit" and 1 or 0)
      if pages == 1 then
        error("ended", 0)
      end
    end })))
    local function set(state)
      assert(world.catalog:execute("UPDATE lunashard_catalog.move SET state = $2 WHERE job = $1 AND seq = 1", { job.id, state }))
    end
    set("aborted")
    local pool, noted = world.manager.by_id.shard2.primary.pool, nil
    assert(world:run(job, { at = function(point)
      if point == "capturing:before-saved" and not noted then -- the next one begins before this one has ended
        noted = assert(pool:execute("SELECT step FROM lunashard.move WHERE job = $1 AND seq = 0", { job.id })).rows[1].step
        set("planned")
      end
    end }, 2))
    assert.equal("listed", noted)
    assert(world:run(job))
    world:stop()
    assert.same({}, world:check())
    assert.equal(0, world:rows_on("shard2"))
    local back = world:plan("shard1", "shard2")
    assert(world:run(back))
    assert.same({}, world:check())
  end)

  it("keeps what has moved on its source for a while; who routes removes it when that is over", function()
    local before, job = world:rows_on("shard2"), world:plan("shard2", "shard1")
    assert(world:run(job, { options = { max_cutover = 60, purge_delay = 3600 } }))
    assert.equal(0, world:rows_on("shard2"))
    local pool = world.manager.by_id.shard2.primary.pool
    local held = ("SELECT count(*) AS n FROM lunashard_staging.h%d_1_2"):format(job.id)
    assert.equal(before, assert(pool:execute(held)).rows[1].n)
    local function ended(delay)
      assert(world.catalog:execute("UPDATE lunashard_catalog.job SET status = 'completed', finished_at = now(), "
        .. "options = jsonb_build_object('purge_delay', $2::float8) WHERE id = $1", { job.id, delay }))
    end
    ended(3600)
    assert.equal(0, sweep.run(world.manager))
    ended(0.000001)
    assert.equal(2, sweep.run(world.manager))
    assert.equal(0, sweep.run(world.manager))
    assert.same({}, world:check())
  end)
end)
