-- Bringing back the map of before a job that was not done to its end; and what an ended job has left.
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")

-- Two buckets leave s1, and two leave s2: each of these shards gives and takes.
local MOVES = { { buckets = { "0..9" }, to = "s2" }, { buckets = { "10..19" }, to = "s3" }, { buckets = { "60..69" }, to = "s1" },
  { buckets = { "70..79" }, to = "s3" } }

describe("a rebalance job that is undone", function()
  local cluster, manager, rebalancer, job

  before_each(function()
    cluster = moving.new({ shards = 3, strategy = moving.tens() })
    cluster:fill(3, 0, 79)
    cluster:init(3)
    manager = cluster:manager(3)
    rebalancer = lunashard.rebalancer({ shard_manager = manager, max_parallel_tasks = 1 })
  end)

  after_each(function()
    cluster:destroy()
  end)

  teardown(sandbox.release)

  -- Each shard's keys, as it has them itself.
  local function rows()
    local list = {}
    for i = 1, 3 do
      list[i] = cluster:on(i, "SELECT array_agg(user_id ORDER BY user_id)::text AS keys FROM users").rows[1].keys or "{}"
    end
    return list
  end

  -- The n-th time that the mover passes a point is its last.
  local function fail_at(point, n, method)
    rebalancer.at = function(at)
      n = n - (at == point and 1 or 0)
      if n == 0 then
        error("an accident", 0)
      end
    end
    assert.has_error(function()
      rebalancer[method](rebalancer, job.job_id)
    end)
    rebalancer.at = nil
  end

  local function states()
    local list = {}
    for _, row in ipairs(assert(manager.catalog:execute(
      "SELECT state FROM lunashard_catalog.move WHERE job = $1 ORDER BY seq", { job.job_id })).rows) do
      list[#list + 1] = row.state
    end
    return table.concat(list, " ")
  end

  -- Two of four moves are done, and the third has begun to copy.
  local function do_half()
    job = assert(rebalancer:create_rebalance_job({ moves = MOVES }))
    assert.equal(4, job.moves_total)
    fail_at("capturing:after-saved", 3, "execute_job")
    assert.equal("done done copying planned", states())
  end

  it("is where it was, though a shard had begun to note for moves that are not done any more", function()
    local before = rows()
    do_half()
    local ok, err = rebalancer:rollback_job(job.job_id)
    assert(ok, tostring(err))
    assert.equal("done done aborted aborted done done", states())
    assert.same(before, rows())
  end)

  it("does not begin moves again that it had given up, when the way back is gone on with", function()
    local before = rows()
    do_half()
    fail_at("planned:after-saved", 2, "rollback_job")
    assert.equal("done done aborted aborted done capturing", states())
    local ok, err = rebalancer:resume_job(job.job_id)
    assert(ok, tostring(err))
    assert.equal("rolled_back", job.status)
    assert.equal("done done aborted aborted done done", states())
    assert.same(before, rows())
  end)

  it("is no hindrance to the next one when it has ended, whatever it has left", function()
    job = assert(rebalancer:create_rebalance_job({ moves = MOVES }))
    assert(rebalancer:cancel_job(job.job_id))
    for _, sql in ipairs({
      "INSERT INTO lunashard.move (job, seq, role, token, step) VALUES (%d, 0, 'source', 1, 'listed')",
      "CREATE TRIGGER lunashard_%d_guard BEFORE INSERT ON users EXECUTE FUNCTION lunashard.refuse_unguarded()",
    }) do
      cluster:on(2, sql:format(job.job_id))
    end
    local later, err = rebalancer:create_rebalance_job({ moves = MOVES })
    assert(later, tostring(err))
    assert.equal(0, cluster:on(2, "SELECT count(*) AS n FROM pg_trigger WHERE tgname LIKE 'lunashard%'").rows[1].n)
    assert.equal(0, cluster:on(2, "SELECT count(*) AS n FROM lunashard.move").rows[1].n)
    assert(rebalancer:execute_job(later.job_id))
    assert.equal("completed", later.status)
    assert(errors.is(select(2, rebalancer:resume_job(job.job_id)), "INVALID"))
  end)
end)
