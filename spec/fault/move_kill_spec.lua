-- Movers that are processes of their own, killed and stopped while others write.
local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local move_world = require("spec.support.move_world")
local recover = require("lunashard.rebalancer.recover")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local FILE = [[
local options = assert(loadfile(%q))()
options.tables = { mv_users = { shard_key = "user_id", type = "int8" }, mv_orders = { shard_key = "user_id", type = "int8" } }
return options]]

describe("a move whose mover", function()
  local world, file
  local from, to = "shard1", "shard2"

  setup(function()
    world = move_world.open({ users = 60 })
    file = cli.write(cli.directory(), "cluster.lua", FILE:format(sandbox.shared().cluster_file))
  end)

  teardown(function()
    if world then
      world:close()
    end
    cli.remove_all()
    cluster.release()
  end)

  local function argv(job, point)
    return { "run", "-c", file, "spec/support/mover.lua", tostring(job.id), "1", point or "none" }
  end

  local function check_done(job)
    world:stop()
    assert.same({}, world:check())
    local state = assert(world.catalog:execute("SELECT state FROM lunashard_catalog.move WHERE job = $1", { job.id })).rows[1]
    return state.state
  end

  local function kill_at(points)
    for _, point in ipairs(points) do
      local job = world:plan(from, to)
      world:start(2)
      local killed = cli.run(argv(job, point))
      assert.equal(9, killed.signal or killed.code - 128, point .. ": " .. killed.all_stderr)
      local resumed = cli.run(argv(job))
      assert.equal(0, resumed.code, point .. ": " .. resumed.all_stderr)
      assert.equal("done", check_done(job))
      from, to = to, from
    end
  end

  it("is killed goes on when another one is started", function()
    kill_at({ "capturing:before-commit", "fencing:after-commit", "merged:after-commit" })
  end)

  it("is killed in any state, before or after a commit, goes on when another one is started #long", function()
    kill_at({ "planned.destination:after-commit", "planned:after-saved", "capturing.triggers:before-commit",
      "capturing:after-saved", "copying:before-commit", "copying:after-commit", "catchup:after-saved",
      "fencing:before-commit", "fencing:after-saved", "fenced:before-saved", "fenced:after-saved",
      "verified:before-commit", "verified:after-commit", "verified:after-saved", "merged:before-commit", "flipped:before-commit",
      "flipped:after-commit", "done.triggers:before-commit", "done.source:after-commit" })
  end)

  it("stands still and wakes up late has been taken over from, and changes nothing any more", function()
    local job = world:plan(from, to)
    world:start(2)
    local stopped = cli.spawn(argv(job, "STOP verified:before-commit"))
    cli.wait_until("it has stopped", function()
      local row = assert(world.catalog:execute("SELECT state FROM lunashard_catalog.move WHERE job = $1", { job.id })).rows[1]
      return row.state == "verified"
    end)
    task.sleep(0.05)
    assert(world:run(job)) -- with a token of its own, past the lock that the other one holds
    stopped:signal("CONT")
    local ended = assert(stopped:wait())
    assert.is_true(ended.code ~= 0)
    stopped:close()
    assert.equal("done", check_done(job))
    from, to = to, from
  end)

  it("is gone leaves nothing closed: whoever routes gives the buckets back, or finishes what cannot be given back", function()
    for point, expected in pairs({ ["fencing:after-commit"] = "aborted", ["verified:after-commit"] = "done" }) do
      local job = world:plan(from, to)
      local ok, err = pcall(world.run, world, job, { at = function(at)
        if at == point then
          error(errors.new("CLOSED", { message = "killed" }), 0)
        end
      end })
      assert.is_true(not ok and errors.is(err, "CLOSED"))
      world:start(2)
      cluster.wait_until("it was seen to", function()
        return assert(recover.run(world.manager)) == 1
      end, 20)
      assert.equal(expected, check_done(job))
      if expected == "done" then
        from, to = to, from
      end
    end
  end)
end)
