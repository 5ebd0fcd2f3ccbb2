-- What finding the key of a statement costs, whose plan is known: `lunashard run scripts/dev/bench/extract.lua`.
-- One line of JSON, the median ns per statement: the plan, and with the key's shard; and the first time, parsing included.

local extraction = require("lunashard.extraction")
local extractor = require("lunashard.extractor")
local json = require("cjson")
local lunashard = require("lunashard")

local TEXTS, PASSES, ROUNDS = 64, 4000, 9

local shards = {}
for i = 1, 16 do
  shards[i] = { shard_id = "shard" .. i, host = "localhost", database = "app" }
end
local manager = lunashard.manager({
  shards = shards, strategy = { "hash" }, tables = { users = { shard_key = "user_id", type = "int8" } },
})
local default = extractor.find(nil)

local texts, params = {}, {}
for i = 1, TEXTS do
  texts[i] = ("SELECT name, created_at FROM users AS u WHERE u.user_id = $1 AND kind = %d"):format(i)
  params[i] = { i * 7919 }
end

local function find()
  local found = 0
  for _ = 1, PASSES do
    for i = 1, TEXTS do
      local plan = extraction.plan(default, manager, texts[i])
      found = found + (params[i][plan.param] and 1 or 0)
    end
  end
  return found
end

local function find_and_route()
  local found = 0
  for _ = 1, PASSES do
    for i = 1, TEXTS do
      local plan = extraction.plan(default, manager, texts[i])
      found = found + (manager.strategy:route(params[i][plan.param]) and 1 or 0)
    end
  end
  return found
end

local function median_ns(fn)
  local times = {}
  for round = 1, ROUNDS do
    local started = lunashard.now()
    assert(fn() == TEXTS * PASSES)
    times[round] = (lunashard.now() - started) * 1e9 / (TEXTS * PASSES)
  end
  table.sort(times)
  return times[(ROUNDS + 1) / 2]
end

local function first_ns()
  local started, n = lunashard.now(), 500
  for i = 1, n do
    assert(extraction.plan(default, manager, texts[1] .. " AND x = " .. i))
  end
  return (lunashard.now() - started) * 1e9 / n
end

print(json.encode({
  bench = "extract", first_ns = first_ns(), cached_ns = median_ns(find), routed_ns = median_ns(find_and_route),
}))
