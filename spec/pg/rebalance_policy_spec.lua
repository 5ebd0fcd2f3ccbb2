-- Policies that say what moves where, and how fast: the shipped ones and a user's, on shards with rows.
local giants = require("lunashard.rebalancer.giants")
local load = require("lunashard.rebalancer.load")
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local plugins = require("spec.support.plugins")
local sandbox = require("spec.support.sandbox")
local support = require("spec.support.cluster")
local task = require("lunashard.task")

local KEYS = 80

local function bucket(i)
  return ("%d..%d"):format(i * 10, i * 10 + 9)
end

local SPREAD = [[
return { api = 1, kind = "policy", name = "spread", options = { "to" },
  new = function(options)
    if not options.to then error("spread: say where to, with to") end
    return options
  end,
  plan = function(state, options) %s end }
]]

describe("policies of rebalancing", function()
  local cluster, router, manager, folder, warn

  setup(function()
    warn = lunashard.set_warn(function() end)
    folder = plugins.folder({ ["policies/spread.lua"] = SPREAD:format("return {}") })
    cluster = moving.new({ shards = 2, strategy = moving.tens(), more = { plugins = folder.path } })
    cluster:fill(2, 0, KEYS - 1)
    cluster:init(2)
    router, manager = cluster:connect(2)
  end)

  teardown(function()
    cluster:destroy()
    plugins.clean()
    lunashard.set_warn(warn)
    sandbox.release()
  end)

  local function buckets_of(plan)
    local list = {}
    for _, move in ipairs(plan.moves) do
      for _, one in ipairs(move.buckets) do
        list[#list + 1] = move.source .. " " .. one .. " " .. move.destination
      end
    end
    table.sort(list)
    return table.concat(list, ", ")
  end

  it("of a user's are files that are loaded while the cluster works, and see shards and buckets as they are", function()
    local rebalancer = lunashard.rebalancer({ shard_manager = manager })
    assert.equal("", buckets_of(assert(rebalancer:plan({ planner = { "spread", to = "s2" } }))))
    folder:write("policies/spread.lua", SPREAD:format([[
      local one = state.shard("s1")
      if one.rows ~= 60 or one.buckets ~= 6 or #state.shards ~= 2 or state.group ~= "int8" then
        return nil, "s1 has " .. one.rows .. " rows in " .. one.buckets .. " buckets"
      end
      for _, item in ipairs(state.owned("s1")) do
        if item.rows == 10 and item.bytes > 0 and item.owner == "s1" and item.bucket ~= "0..9" then
          return { { bucket = item.bucket, from = "s1", to = options.to } }
        end
      end]]))
    assert(lunashard.reload())
    local job = assert(rebalancer:create_rebalance_job({ planner = { "spread", to = "s2" } }))
    assert.equal("spread", job.planner)
    assert.equal("s1 " .. bucket(1) .. " s2", buckets_of(job.plan))
    assert(rebalancer:execute_job(job.job_id))
    assert.equal("s2", manager:get_shard_for_write(15).shard_id)
    assert.equal(10, cluster:on(2, "SELECT count(*) AS n FROM users WHERE user_id BETWEEN 10 AND 19").rows[1].n)
    assert(rebalancer:rollback_job(job.job_id))
  end)

  it("that make no sense are refused whole, and nothing is written down", function()
    local rebalancer = lunashard.rebalancer({ shard_manager = manager })
    local function refused(given, code, text)
      local job, err = rebalancer:create_rebalance_job(given)
      assert.is_nil(job)
      assert.equal(code, err.code)
      assert.truthy(err.message:find(text, 1, true), err.message)
    end
    refused({ planner = "spread" }, "PLUGIN_FAILED", "say where to, with to")
    refused({ planner = { "spread", two = 2 } }, "INVALID", "spread: unknown option two; there are to")
    refused({ planner = "prefer" }, "INVALID", "policy prefer plans nothing")
    refused({ planner = 5 }, "INVALID", "planner: expected a policy such as")
    refused({ planner = "even", by = "row" }, "INVALID", 'even: by must be rows, bytes or buckets, not row; did you mean "rows"?')
    for body, expected in pairs({
      ["return { { bucket = '10..19', to = 's2' }, { bucket = '20..29', to = 's3' } }"] = { "INVALID", "there is no shard s3" },
      ["return { { bucket = '70..79', from = 's1', to = 's2' } }"] = { "INVALID", "bucket 70..79 is not on s1 but on s2" },
      ["return true"] = { "INVALID", "expected a list of moves" },
      ["local x = nil; return x.y"] = { "PLUGIN_FAILED", "attempt to index" },
      ["while true do end"] = { "PLUGIN_FAILED", "ran longer than 500 ms" },
    }) do
      folder:write("policies/spread.lua", SPREAD:format(body))
      assert(lunashard.reload())
      refused({ planner = { "spread", to = "s2" } }, expected[1], expected[2])
    end
    assert.equal(0, assert(manager.catalog:execute(
      "SELECT count(*) AS n FROM lunashard_catalog.job WHERE status NOT IN ('rolled_back')")).rows[1].n)
  end)

  it("go by load: what was sent from here, or else what the servers did", function()
    for _ = 1, 20 do
      for _, key in ipairs({ 11, 12, 21, 22 }) do
        assert(router:execute("SELECT name, pg_sleep(0.002) FROM users WHERE user_id = $1", { key }))
      end
    end
    local plan = assert(lunashard.rebalancer({ shard_manager = manager }):plan({ planner = "by_load",
      tolerance = 0.4 }))
    local moved = buckets_of(plan)
    assert.is_true((moved:find("s1 10..19 s2", 1, true) == nil) ~= (moved:find("s1 20..29 s2", 1, true) == nil), moved)

    local busy = true
    local writer = lunashard.spawn(function()
      while busy do
        assert(router:execute("UPDATE users SET n = n + 1 WHERE user_id = 31"))
      end
    end)
    local touched = assert(load.of_shards(manager, { { sql = "users" }, { sql = "orders" } }, 2.2))
    busy = false
    assert(writer:join(5))
    assert.is_true(touched.s1 > touched.s2, ("%g and %g"):format(touched.s1, touched.s2))
    local state = { buckets = { { bucket = "a", owner = "s1", rows = 30 }, { bucket = "b", owner = "s1", rows = 10 },
      { bucket = "c", owner = "s2", rows = 0 } } }
    load.spread(state, {}, 0, { s1 = 80, s2 = 4 })
    assert.same({ 60, 20, 4 }, { state.buckets[1].load, state.buckets[2].load, state.buckets[3].load })
  end)

  it("throttle, by a function or a policy that whoever resumes the job knows too", function()
    local seen, answers = {}, { 0.02, "fast", 0.03 }
    local rebalancer = lunashard.rebalancer({ shard_manager = manager, throttle = function(stats)
      seen[#seen + 1] = stats
      return answers[#seen] or 0.04
    end })
    local job = assert(rebalancer:create_rebalance_job({ strategy = "gradual", waves = { 50, 100 }, soak = 1.2,
      moves = { { buckets = { bucket(1), bucket(2) }, to = "s2" } } }))
    assert(rebalancer:execute_job(job.job_id))
    assert.is_true(#seen >= 4)
    assert.same({ 0, 0.02, 0.02, 0.03 }, { seen[1].throttle, seen[2].throttle, seen[3].throttle, seen[4].throttle })
    for _, name in ipairs({ "lag_seconds", "p95_ms", "p99_ms", "error_rate" }) do
      assert.equal("number", type(seen[4][name]), name)
    end
    assert.is_true(seen[4].p95_ms > 0 and seen[4].time.hour ~= nil)
    local noted = assert(manager.catalog:execute("SELECT message FROM lunashard_catalog.event WHERE kind = 'throttle'")).rows
    assert.equal('the throttle function gave "fast", and no number of seconds; 0.02 s stay', noted[1].message)

    rebalancer = lunashard.rebalancer({ shard_manager = manager, throttle = { "pace", p95_ms = 20 } })
    job = assert(rebalancer:create_rebalance_job({ moves = { { buckets = { bucket(1), bucket(2) }, to = "s1" } } }))
    local row = assert(manager.catalog:execute("SELECT options->'throttle' AS t FROM lunashard_catalog.job WHERE id = $1",
      { job.job_id })).rows[1]
    assert.matches('"pace"', row.t)
    assert.is_true(lunashard.rebalancer({ shard_manager = manager }):execute_job(job.job_id))
    local ok, message = pcall(lunashard.rebalancer, { shard_manager = manager, throttle = "even" })
    assert.is_false(ok)
    assert.matches("option throttle: policy even has no function throttle", message)
  end)

  it("throttle a running job by the text that they have then", function()
    local PACER = "return { api = 1, kind = 'policy', name = 'pacer', throttle = function() return %s end }"
    folder:write("policies/pacer.lua", PACER:format("1"))
    assert(lunashard.reload())
    local rebalancer = lunashard.rebalancer({ shard_manager = manager, throttle = { "pacer" }, batch_size = 1 })
    local job = assert(rebalancer:create_rebalance_job({ moves = { { buckets = { bucket(1), bucket(2), bucket(3), bucket(4) },
      to = "s2" } } }))
    local seconds = 40 -- that it would take at least at the first pace, a row each
    local worker = task.spawn(function()
      return { rebalancer:execute_job(job.job_id) }
    end):watch()
    support.wait_until("a row was copied, and the next one is waited for", function()
      local told = assert(rebalancer:get_job_status(job.job_id))
      return told.backlog == 0 and told.rows_copied > 0
    end, 20)
    folder:write("policies/pacer.lua", PACER:format("0"))
    assert(lunashard.reload())
    local _, ended = assert(worker:join(seconds / 2))
    assert.same({ true }, ended)
    assert(rebalancer:rollback_job(job.job_id))
  end)

  it("never move what is too large, unless buckets may be closed meanwhile", function()
    local rebalancer, before = lunashard.rebalancer({ shard_manager = manager }), giants.MERGE.seconds
    finally(function()
      giants.MERGE.seconds = before
    end)
    assert.same({}, assert(rebalancer:plan({ planner = "even" })).giants)
    giants.MERGE.seconds = 0.1
    local plan = assert(rebalancer:plan({ planner = "pin", key = 33, shard = "s2" }))
    assert.equal(1, #plan.giants)
    assert.matches("^bucket 30..39 on s1 has 10 rows .* there are 0.1 s; the job would be refused$", plan.warnings[1])
    local job, err = rebalancer:create_rebalance_job({ planner = "pin", key = 33, shard = "s2" })
    assert.is_nil(job)
    assert.equal("INVALID", err.code)
    assert.matches("^bucket 30..39 on s1 has 10 rows", err.message)
    assert.matches("%-%-offline", err.hint)
    plan = assert(rebalancer:plan({ planner = "even" }))
    assert.same({ 0, 0 }, { #plan.moves, #plan.giants })
    assert.matches("it is left where it is$", plan.warnings[1])
    assert.same({}, assert(rebalancer:plan({ planner = "pin", key = 33, shard = "s2", strategy = "offline" })).giants)
  end)

  it("never move rows out of their region where the strategy is strict", function()
    local strict = moving.new({ shards = 2, regions = { "eu", "us" }, strategy = { "geographic", strict = true },
      schema = "CREATE TABLE people (region text, id bigint, PRIMARY KEY (region, id))",
      tables = { people = { shard_key = "region", type = "text" } } })
    strict:init(2)
    local people, strict_manager = strict:connect(2)
    assert(people:execute("INSERT INTO people (region, id) VALUES ('eu', 1), ('eu', 2)"))
    local rebalancer = lunashard.rebalancer({ shard_manager = strict_manager })
    for _, given in ipairs({ { planner = "pin", key = "eu", shard = "s2" }, { planner = "drain", shard = "s1" },
      { moves = { { bucket = "eu", to = "s2" } } } }) do
      local plan, err = rebalancer:plan(given)
      assert.is_nil(plan)
      assert.matches("region eu", err.message)
    end
    for _, name in ipairs({ "even", "by_region", "follow", "minimal" }) do
      assert.same({}, assert(rebalancer:plan({ planner = name })).moves, name)
    end
    strict:destroy()
  end)
end)
