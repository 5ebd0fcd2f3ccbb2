-- One bucket with 100,000 rows, which cannot be divided, moves while its rows are written: live, and back offline.
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local ROWS, WRITERS = 100000, 4
local FIRST, LAST = 10, 19 -- the keys of the bucket
local PER_KEY = ROWS / (LAST - FIRST + 1)

local SCHEMA = "CREATE TABLE items (k bigint, id bigint, n int NOT NULL DEFAULT 0, body text NOT NULL, PRIMARY KEY (k, id))"
local FILL = "INSERT INTO items SELECT k, id, 0, repeat(md5(id::text), 4) FROM generate_series($1::int, $2::int) AS k, "
  .. "generate_series(1, $3::int) AS id"

describe("a bucket of 100,000 rows #long", function()
  local cluster, router, manager, rebalancer, expected, last, writes, warn

  setup(function()
    warn = lunashard.set_warn(function() end)
    cluster = moving.new({ shards = 2, strategy = moving.tens(), schema = SCHEMA,
      tables = { items = { shard_key = "k", type = "int8" } } })
    cluster:on(1, FILL, { FIRST, LAST, PER_KEY })
    cluster:on(1, "ANALYZE items")
    cluster:init(2)
    router, manager = cluster:connect(2)
    rebalancer = lunashard.rebalancer({ shard_manager = manager })
    expected, last, writes = {}, {}, 0 -- key -> id -> how often it was counted up; writer -> the id that it has added last
    for i = 1, WRITERS do
      last[i] = PER_KEY + i
    end
    for key = FIRST, LAST do
      expected[key] = {}
      for id = 1, PER_KEY do
        expected[key][id] = 0
      end
    end
  end)

  teardown(function()
    cluster:destroy()
    lunashard.set_warn(warn)
    sandbox.release()
  end)

  local function run(sql, key, ...)
    local result = assert(router:execute(sql, { key, ... }, { routing_key = key, timeout = 60 }))
    assert(result.row_count == 1, ("%d rows of %d"):format(result.row_count, key))
    writes = writes + 1
    return result.rows[1]
  end

  -- One of several writers, each with ids of its own: counts rows up, removes some, adds others.
  local function write(number, is_over)
    while not is_over() do
      local key = math.random(FIRST, LAST)
      local own, id = expected[key], math.random(PER_KEY / WRITERS - 1) * WRITERS + number
      local dice = math.random()
      if dice < 0.2 then
        last[number] = last[number] + WRITERS
        local new = last[number]
        run("INSERT INTO items (k, id, body) VALUES ($1, $2, 'new')", key, new)
        own[new] = 0
      elseif own[id] and dice < 0.4 then
        run("DELETE FROM items WHERE k = $1 AND id = $2", key, id)
        own[id] = nil
      elseif own[id] then
        own[id] = own[id] + 1
        assert.equal(own[id], run("UPDATE items SET n = n + 1 WHERE k = $1 AND id = $2 RETURNING n", key, id).n)
      end
    end
  end

  -- Move it while it is written; how often it was.
  local function move(strategy, to)
    local job = assert(rebalancer:create_rebalance_job({ strategy = strategy,
      moves = { { bucket = ("%d..%d"):format(FIRST, LAST), to = to } } }))
    assert.same({ 1, 1 }, { #job.plan.moves, #job.plan.moves[1].buckets })
    local over, before, writers = false, writes, {}
    for i = 1, WRITERS do
      writers[i] = task.spawn(write, i, function() return over end):watch()
    end
    local ok, err = rebalancer:execute_job(job.job_id)
    over = true
    for _, writer in ipairs(writers) do
      assert(writer:join(60))
    end
    assert(ok, tostring(err))
    assert.is_true(rebalancer:get_job_status(job.job_id).total_migrated > 0.9 * ROWS)
    return writes - before
  end

  -- Every row is where it belongs, once, and as it was acknowledged.
  local function check(home, other)
    assert.equal(0, cluster:on(other, "SELECT count(*) AS n FROM items").rows[1].n)
    local wrong, count = {}, 0
    for _, row in ipairs(cluster:on(home, "SELECT k, id, n FROM items").rows) do
      count = count + 1
      if expected[row.k][row.id] ~= row.n then
        wrong[#wrong + 1] = ("%d/%d is %d"):format(row.k, row.id, row.n)
      end
    end
    assert.same({}, wrong)
    for _, own in pairs(expected) do
      for _ in pairs(own) do
        count = count - 1
      end
    end
    assert.equal(0, count)
    local left = cluster:on(1, "SELECT count(*) AS n FROM pg_trigger WHERE tgname LIKE 'lunashard%'").rows[1].n
    assert.equal(0, left)
  end

  it("is a move of its own, while it is written", function()
    local n = move("live_migration", "s2")
    assert.is_true(n > 100, n .. " writes meanwhile")
    check(2, 1)
  end)

  it("moves back offline, while its statements wait", function()
    assert.is_true(move("offline", "s1") > 0)
    check(1, 2)
  end)
end)
