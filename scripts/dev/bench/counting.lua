-- What counting a statement for the metrics takes: `lunashard run scripts/dev/bench/counting.lua`.
-- Prints a line of JSON with the median ns a statement, of 100,000 of them a second, the looks at some of them for the
-- top statements included. There are no servers.

local json = require("cjson")
local lunashard = require("lunashard")

local SHARDS, ROUNDS, SLICES, STATEMENTS = 3, 9, 50, 1000
local SLICE = 0.01 -- seconds from one slice of statements to the next

local shards = {}
for i = 1, SHARDS do
  shards[i] = { shard_id = "shard" .. i, host = "127.0.0.1", port = 1, database = "x", user = "x" }
end
local manager = lunashard.manager({ shards = shards, strategy = { "hash", shard_key = "user_id" } })
local router = lunashard.router({ shard_manager = manager })
local statistics, statements = router.statistics, router.statements

local SQL, result = "SELECT * FROM users WHERE user_id = $1", { command = "SELECT", duration = 0.0004 }
local params, opts = { 1 }, { routing_key = 1 }

local function count(n)
  for i = 1, n do
    local shard_id = shards[i % SHARDS + 1].shard_id
    params[1], opts.routing_key, result.shard_id = i, i, shard_id
    statistics:record(shard_id, result.duration, "127.0.0.1:1", result.command)
    statements:ended(router, result, SQL, params, opts)
  end
end

local times = {}
for round = 1, ROUNDS do
  local spent, due = 0, lunashard.now()
  for _ = 1, SLICES do
    local began = lunashard.now()
    count(STATEMENTS)
    spent, due = spent + lunashard.now() - began, due + SLICE
    lunashard.sleep(math.max(0, due - lunashard.now()))
  end
  times[round] = spent * 1e9 / (SLICES * STATEMENTS)
end
table.sort(times)
print(json.encode({ bench = "counting", statement_ns = times[(ROUNDS + 1) / 2] }))
