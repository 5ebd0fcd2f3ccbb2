-- What routing a key costs through a strategy that is a user's plug-in: `lunashard run scripts/dev/bench/plugin.lua`.
-- Prints a line of JSON with the median ns per key: `untrusted` within limits of time and memory, `trusted` without.
-- Our own strategies are in `route.lua`. Keys are routed one by one, each answer looked at.

local budget = require("lunashard.plugin.budget")
local compile = require("lunashard.loader.compile")
local json = require("cjson")
local lunashard = require("lunashard")

local KEYS, PASSES, ROUNDS, SHARDS = 4096, 50, 9, 16

local shards, seen, keys = {}, {}, {}
for i = 1, SHARDS do
  shards[i], seen["shard" .. i] = { shard_id = "shard" .. i }, 1
end
for i = 1, KEYS do
  keys[i] = (i * 2654435761) % 2 ^ 40
end

local function bind_plugin(trusted)
  local path = (arg[0]:match("^(.*)/") or ".") .. "/tier.lua"
  local loaded = assert(compile.run(path, { kind = "strategy", trusted = trusted }))
  lunashard.strategy.register((budget.wrap(loaded.value, { trusted = trusted })))
  return lunashard.strategy.bind("bench_tier", shards, { shard_key = "user_id", key_type = "int8" })
end

local function route_all(bound)
  local found = 0
  for _ = 1, PASSES do
    for i = 1, KEYS do
      local shard_id = bound:route(keys[i])
      found = found + seen[shard_id]
    end
  end
  return found
end

local function median_ns(bound)
  local times = {}
  for round = 1, ROUNDS do
    local started = lunashard.now()
    assert(route_all(bound) == KEYS * PASSES)
    times[round] = (lunashard.now() - started) * 1e9 / (KEYS * PASSES)
  end
  table.sort(times)
  return times[(ROUNDS + 1) / 2]
end

print(json.encode({
  bench = "plugin",
  shards = SHARDS,
  untrusted_ns = median_ns(bind_plugin(false)),
  trusted_ns = median_ns(bind_plugin(true)),
}))
