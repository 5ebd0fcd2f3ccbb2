local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local plugins = require("spec.support.plugins")
local task = require("lunashard.task")

-- Keys that no sample has and no constant of the file tells.
local LOOPS, EATS, CATCHES, RAISES = 7919 * 11 + 3, 7919 * 13 + 3, 7919 * 17 + 3, 7919 * 19 + 3
local STRATEGY = plugins.strategy({ bucket = [[
  local n = key % 7919 == 3 and math.floor(key / 7919) or 0
  if n == 11 then
    while true do end
  elseif n == 13 then
    local t = {}
    for i = 1, 2048 do t[i] = ("x"):rep(2^20) .. i end
  elseif n == 17 then
    while true do pcall(function() while true do end end) end
  elseif n == 19 then
    error(setmetatable({}, { __tostring = function() while true do end end }))
  end
  return lunashard.hash(key, 64)]] })

local function aggregate(name, parts)
  return ([[
return {
  api = 1, kind = "aggregate", name = "%s",
  init = function() return { n = 0 } end,
  step = function(acc, row) %s acc.n = acc.n + (row.n or 0) return acc end,
  merge = function(a, b) a.n = a.n + b.n return a end,
  finish = function(acc) %s return { n = acc.n } end,
}]]):format(name, parts.step or "", parts.finish or "")
end

describe("A plug-in that goes wrong while it serves", function()
  local folder, router, manager, restore, warnings
  local load, failures, statements, stop

  setup(function()
    warnings = {}
    restore = lunashard.set_warn(function(line)
      warnings[#warnings + 1] = line
    end)
    folder = plugins.folder({
      ["strategies/tier.lua"] = STRATEGY,
      ["aggregates/fine.lua"] = aggregate("fine", {}),
      -- not for the rows of the self-test
      ["aggregates/slow.lua"] = aggregate("slow", { step = "if row.n == 4243 then while true do end end" }),
      ["aggregates/large.lua"] = aggregate("large", {
        finish = "if acc.n == 4242 then local s = 'x' while true do s = s .. s end end",
      }),
    })
    router, manager = cluster.connect({ plugins = folder.path, strategy = { "tier", shard_key = "id", key_type = "int8" },
      tables = {}, plugin_time = 0.02, plugin_memory = 16 * 1024 * 1024, max_plugin_failures = 1000 })
    failures, statements, stop = {}, 0, false
    load = {}
    for i = 1, 8 do
      load[i] = task.spawn(function()
        while not stop do
          local key = statements % 1000 + 1
          local expected = manager:get_shard_for_write(key).shard_id
          statements = statements + 1
          local result, err = router:execute("SELECT $1::int8 AS id", { key }, { routing_key = key })
          if not result or result.shard_id ~= expected or result.rows[1].id ~= key then
            failures[#failures + 1] = tostring(err or result.shard_id)
          end
        end
      end)
    end
  end)

  teardown(function()
    stop = true
    for _, one in ipairs(load) do
      one:join()
    end
    lunashard.set_warn(restore)
    plugins.clean()
    cluster.release()
  end)

  local function assert_others_go_on()
    local before = statements
    cluster.wait_until("statements went on", function()
      return statements > before + 20
    end)
    assert.same({}, failures)
  end

  for _, case in ipairs({
    { "a key that it loops for", LOOPS, "ran longer than 20 ms and was stopped at plugins/strategies/tier.lua:" },
    { "a key that takes 2 GiB", EATS, "took more than 16 MiB of memory and was stopped" },
    { "a key for which it catches what stops it", CATCHES, "ran longer than 20 ms and was stopped" },
    { "a key for which it raises what cannot be printed", RAISES, "ran longer than 20 ms and was stopped" },
  }) do
    it("fails the statements of " .. case[1] .. ", and no others", function()
      for _ = 1, 3 do
        local result, err = router:execute("SELECT 1", {}, { routing_key = case[2] })
        assert.is_nil(result)
        assert.equal("PLUGIN_FAILED", err.code)
        assert.truthy(err.message:find(case[3], 1, true), err.message)
      end
      assert_others_go_on()
    end)
  end

  it("fails the scatter whose rows it loops over or gets stuck with, and no connection", function()
    local sql = "SELECT $1::int8 AS n"
    local count = #manager.shards
    local sum = assert(router:scatter_gather(sql, { 1 }, { aggregation_func = lunashard.aggregate.fine() }))
    assert.equal(count, sum.rows[1].n)
    for _ = 1, 3 do
      local result, err = router:scatter_gather(sql, { 4243 }, { aggregation_func = lunashard.aggregate.slow() })
      assert.is_nil(result)
      assert.equal("SHARDS_FAILED", err.code)
      assert.equal("PLUGIN_FAILED", err.failed[1].error.code)
      assert.truthy(tostring(err):find("step: ran longer than 20 ms", 1, true), tostring(err))
    end
    local result, err = router:scatter_gather(sql, { 4242 / count }, { aggregation_func = lunashard.aggregate.large() })
    assert.is_nil(result)
    assert.truthy(tostring(err):find("finish: took more than 16 MiB", 1, true), tostring(err))
    assert_others_go_on()
  end)

  it("leaves memory as it was", function()
    for _ = 1, 5 do
      router:execute("SELECT 1", {}, { routing_key = EATS })
    end
    local before = 0
    for round = 1, 30 do
      assert.is_nil((router:execute("SELECT 1", {}, { routing_key = EATS })))
      collectgarbage()
      collectgarbage()
      if round == 10 then
        before = collectgarbage("count")
      end
    end
    assert.is_true(collectgarbage("count") < before + 4096)
    assert_others_go_on()
  end)
end)
