-- Jobs that close buckets before they copy them: what is announced, what becomes of statements meanwhile, what was
-- measured, and the way back. The names need quotes, and two tables refer to one another.
local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")

local KEYS = 600

local SCHEMA = [[
  CREATE TABLE "order" ("select" bigint PRIMARY KEY, "Latest" int, note text NOT NULL DEFAULT 'it''s "quoted"');
  CREATE TABLE "Order Lines" ("select" bigint REFERENCES "order", "no" int, PRIMARY KEY ("select", "no"));
  ALTER TABLE "order" ADD CONSTRAINT "latest line" FOREIGN KEY ("select", "Latest") REFERENCES "Order Lines"
    DEFERRABLE INITIALLY IMMEDIATE;]]

local TABLES = { order = { shard_key = "select", type = "int8" }, ["Order Lines"] = { shard_key = "select", type = "int8" } }

describe("an offline job", function()
  local cluster, file, router, manager

  setup(function()
    cluster = moving.new({ shards = 3, strategy = "hash", schema = SCHEMA, tables = TABLES })
    local first, static = cluster:connect(2)
    local orders, lines = {}, {}
    for key = 1, KEYS do
      orders[key], lines[key] = { key }, { key, 1 }
    end
    assert(first:copy_in("order", { "select" }, orders))
    assert(first:copy_in("Order Lines", { "select", "no" }, lines))
    static:shutdown()
    for i = 1, 2 do
      cluster:on(i, [[UPDATE "order" SET "Latest" = 1]])
    end
    cluster:init(2)
    file = cluster:file(3)
    router, manager = cluster:connect(3)
  end)

  teardown(function()
    cluster:destroy()
    sandbox.release()
  end)

  -- All rows of all shards, and how many of them the third has.
  local function rows()
    local all, third = {}, 0
    for i = 1, 3 do
      local found = cluster:on(i, [[SELECT o::text || l::text AS row FROM "order" o JOIN "Order Lines" l USING ("select")]]).rows
      for _, row in ipairs(found) do
        all[#all + 1] = row.row
      end
      third = #found
    end
    table.sort(all)
    return all, third
  end

  local function read(key, timeout)
    return router:execute([[SELECT note FROM "order" WHERE "select" = $1]], { key }, { routing_key = key, timeout = timeout })
  end

  it("has far fewer moves than a live one, and says for how long keys will be closed", function()
    local result = cli.run({ "rebalance", "plan", "-c", file, "--offline" })
    assert.equal(0, result.code, result.stderr)
    assert.matches("in 4 moves, in about .-\noffline: a key is closed while its move is copied, for about 0%.2 s at the most "
      .. "%(0%.8 s added up over the moves%)", result.stdout)
    local planned = cjson.decode(cli.run({ "rebalance", "plan", "-c", file, "--offline", "--json" }).stdout).plans[1]
    assert.equal("offline", planned.strategy)
    assert.is_true(planned.estimated_downtime > 0.2 and planned.estimated_closed > planned.estimated_downtime)
    local live = cjson.decode(cli.run({ "rebalance", "plan", "-c", file, "--json" }).stdout).plans[1]
    assert.is_true(#live.moves >= 3 * #planned.moves, #live.moves .. " moves")
    assert.is_nil(live.estimated_downtime)
  end)

  it("keeps statements waiting while it copies, gives the keys back when it is interrupted, and goes on", function()
    local before = rows()
    local rebalancer = lunashard.rebalancer({ shard_manager = manager, batch_size = 50, max_parallel_tasks = 1 })
    local job = assert(rebalancer:create_rebalance_job({ table_name = "order", strategy = "offline" }))
    assert.equal("offline", job.strategy)
    local closed = tonumber(job.plan.moves[1].buckets[1])
    local key = 0
    repeat
      key = key + 1
    until manager.catalog.groups.int8.bound:bucket(key) == closed
    local waited, copied = nil, 0
    rebalancer.at = function(point)
      copied = copied + (point == "copying:after-commit" and 1 or 0)
      if copied == 2 and not waited then
        local _, err = read(key, 0.2)
        waited = err
        rebalancer.interrupt = "enough for now"
      end
    end
    local _, err = rebalancer:execute_job(job.job_id)
    assert(errors.is(err, "CANCELED"), tostring(err))
    assert.equal("paused", job.status)
    assert(waited, "a statement for a closed key was answered")
    assert.equal("STALE_MAP", waited.code, tostring(waited))
    assert(read(key, 5)) -- its own shard has it again
    assert.same(before, (rows()))

    rebalancer.at, rebalancer.interrupt = nil, nil
    local started = task.now()
    assert(rebalancer:resume_job(job.job_id))
    local took = task.now() - started
    assert.equal("completed", job.status)
    local status = assert(rebalancer:get_job_status(job.job_id))
    assert.is_true(status.longest_pause > 0 and status.downtime_seconds > status.longest_pause)
    assert.is_true(status.downtime_seconds < took * status.moves_total)
    local now, third = rows()
    assert.same(before, now)
    assert.equal(job.total_migrated, 2 * third)
    assert.is_true(math.abs(third / KEYS - 1 / 3) < 0.02, tostring(third))
    local shown = cli.run({ "rebalance", "status", "-c", file })
    assert.matches("downtime   [%d.]+ s at the most for a key, [%d.]+ s added up over the moves", shown.stdout)
    assert.equal(0, cli.run({ "cluster", "verify", "-c", file, "--exit-code" }).code)
  end)

  it("is brought back as it went", function()
    local before = rows()
    local result = cli.run({ "rebalance", "rollback", "-c", file })
    assert.equal(0, result.code, result.stderr)
    assert.truthy(result.stderr:find("is moved back, offline, as it was moved there", 1, true), result.stderr)
    local now, third = rows()
    assert.same(before, now)
    assert.equal(0, third)
    assert.equal(0, cli.run({ "cluster", "verify", "-c", file, "--exit-code" }).code)
  end)
end)
