-- What a scrape takes of the loop: `lunashard run scripts/dev/bench/scrape.lua`.
-- Prints a line of JSON with the median ns of writing the metrics of 64 shards with a replica each, all of which have
-- had statements. There are no servers: what is written comes from memory.

local json = require("cjson")
local lunashard = require("lunashard")

local SHARDS, ROUNDS = 64, 101

local shards = {}
for i = 1, SHARDS do
  shards[i] = { shard_id = "shard" .. i, host = "127.0.0.1", port = 1, database = "x", user = "x",
    replicas = { { host = "127.0.0.1", port = 2 } } }
end
lunashard.set_warn(function() end)
local manager = lunashard.manager({ shards = shards, strategy = { "hash", shard_key = "user_id" }, connection_timeout = 1,
  health_check_interval = 3600 })
manager:initialize()
local router = lunashard.router({ shard_manager = manager })
for i = 1, SHARDS do
  for n = 1, 50 do
    router.statistics:record("shard" .. i, n * 0.001, "127.0.0.1:1", n % 2 == 0 and "SELECT" or "INSERT")
  end
end

local times, bytes = {}, 0
for round = 1, ROUNDS do
  local started = lunashard.now()
  bytes = #lunashard.metrics.render({ manager = manager, router = router })
  times[round] = (lunashard.now() - started) * 1e9
end
table.sort(times)
print(json.encode({ bench = "scrape", shards = SHARDS, bytes = bytes, scrape_ns = times[(ROUNDS + 1) / 2] }))
manager:shutdown()
