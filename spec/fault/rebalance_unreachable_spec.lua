-- A shard that cannot be reached any more, at any step of a move; and what `resume` makes of it when it can be again.
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local proxy = require("spec.support.net.proxy")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local KEYS = 300

describe("a shard that is out of reach", function()
  local cluster, router, manager, rebalancer, warn
  local proxies, counts = {}, {}
  local from, to = "s2", "s3"

  setup(function()
    warn = lunashard.set_warn(function() end)
    cluster = moving.new({ shards = 3, strategy = "hash", more = { health_check_interval = 0.5 } })
    for i = 2, 3 do -- the catalog is on the first
      cluster:on(i, "SELECT 1")
      proxies["s" .. i] = proxy.start(cluster.shards[i].port)
      cluster.shards[i].port = proxies["s" .. i].port
    end
    cluster:fill(3, 1, KEYS)
    cluster:init(3)
    router, manager = cluster:connect(3)
    rebalancer = lunashard.rebalancer({ shard_manager = manager })
  end)

  teardown(function()
    for _, one in pairs(proxies) do
      one:close()
    end
    lunashard.set_warn(warn)
    cluster:destroy()
    sandbox.release()
  end)

  local function cut(shard_id)
    proxies[shard_id]:refuse()
    proxies[shard_id]:reset()
  end

  local function heal(shard_id)
    proxies[shard_id]:pass()
    local deadline = task.now() + 20
    while manager.shard_health[shard_id].status ~= "healthy" do
      assert(task.now() < deadline, shard_id .. " is not back")
      task.sleep(0.02)
    end
  end

  -- Some buckets of a shard that have rows.
  local function choose(shard_id)
    local chosen, moved = {}, {}
    for key = 1, KEYS do
      local bucket = manager.catalog.groups.int8.bound:bucket(key)
      if #chosen < 20 and not moved[bucket] and manager:get_shard_for_write(key).shard_id == shard_id then
        moved[bucket] = true
        chosen[#chosen + 1] = bucket
      end
    end
    return chosen, moved
  end

  -- Writes meanwhile: keys of shards that are there, and of these the moved ones where it is said that they are served.
  local function write_while(gone, moved, are_served)
    for key = 1, KEYS, 3 do
      local bucket = manager.catalog.groups.int8.bound:bucket(key)
      if manager:get_shard_for_write(key).shard_id ~= gone and (are_served or not moved[bucket]) then
        local ok, err = router:execute("UPDATE users SET n = n + 1 WHERE user_id = $1", { key },
          { routing_key = key, timeout = 20 })
        assert(ok and ok.row_count == 1, tostring(err))
        counts[key] = (counts[key] or 0) + 1
      end
    end
  end

  local function check(destination, moved)
    local rows, there = 0, 0
    for i = 1, 3 do
      for _, row in ipairs(cluster:on(i, "SELECT user_id, n FROM users").rows) do
        rows = rows + 1
        assert.equal(counts[row.user_id] or 0, row.n)
        local is_moved = moved[manager.catalog.groups.int8.bound:bucket(row.user_id)]
        assert.is_true(not is_moved or "s" .. i == destination)
        there = there + (is_moved and 1 or 0)
      end
    end
    assert.equal(KEYS, rows)
    assert.is_true(there > 0)
  end

  local function at_each(points)
    for _, one in ipairs(points) do
      local point, shard_id = one[1], one[2] == "source" and from or to
      local buckets, moved = choose(from)
      local job = assert(rebalancer:create_rebalance_job({ planner = "list", moves = { { buckets = buckets, to = to } } }))
      local gone
      rebalancer.at = function(reached)
        if reached == point and not gone then
          gone = true
          cut(shard_id)
        end
      end
      local what = ("%s at %s"):format(one[2], point)
      local ok, err = rebalancer:execute_job(job.job_id)
      rebalancer.at = nil
      assert.is_true(gone, what)
      assert.is_nil(ok, what)
      assert.equal("failed", job.status, what)
      assert.truthy(tostring(err):find(shard_id, 1, true), what .. ": " .. tostring(err))
      write_while(shard_id, moved, one.served)
      heal(shard_id)
      ok, err = rebalancer:resume_job(job.job_id)
      assert(ok, what .. ": " .. tostring(err))
      assert.equal("completed", job.status)
      check(to, moved)
      from, to = to, from
    end
  end

  it("is named when a plan is to be made, and nothing is written down", function()
    cut("s3")
    local job, err = rebalancer:create_rebalance_job({ planner = "drain", shard = "s2" })
    heal("s3")
    assert.is_nil(job)
    assert.equal("SHARDS_FAILED", err.code)
    assert.equal("s3", err.failed[1].shard_id)
    assert.equal(0, #assert(rebalancer:list_jobs()))
  end)

  it("fails the job, which `resume` finishes", function()
    at_each({ { "copying:after-commit", "source" }, { "fencing:after-commit", "destination" } })
  end)

  it("fails the job at any step, and `resume` finishes it #long", function()
    at_each({ { "planned:after-saved", "source" }, { "planned:after-saved", "destination", served = true },
      { "capturing:after-saved", "source" }, { "capturing:after-saved", "destination", served = true },
      { "copying:after-saved", "source" }, { "catchup:after-saved", "source" }, { "fencing:before-commit", "source" },
      { "fencing:after-commit", "source" }, { "fencing:after-saved", "destination" }, { "fencing:after-saved", "source" },
      { "verified:before-commit", "destination" }, { "verified:after-commit", "destination" },
      { "verified:after-saved", "source" }, { "merged:after-commit", "source", served = true },
      { "merged:after-commit", "destination" }, { "flipped:after-saved", "source", served = true },
      { "flipped:after-commit", "source", served = true } })
  end)
end)
