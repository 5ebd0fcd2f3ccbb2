-- What routing a key costs from a compiled Lua loop: `lunashard run scripts/dev/bench/route.lua`.
-- One line of JSON for each number of shards: the median ns per key for numbers, int64 and texts, and per key of
-- `route_many`. Each loop also looks at the answer, as whoever routes does.

local json = require("cjson")
local lunashard = require("lunashard")

local KEYS, PASSES, ROUNDS = 4096, 100, 9

local function keys_of(form)
  local keys = {}
  for i = 1, KEYS do
    keys[i] = form((i * 2654435761) % 2 ^ 40)
  end
  return keys
end

local LISTS = {
  number_ns = keys_of(function(i) return i end),
  int64_ns = keys_of(function(i) return i + 0LL end),
  text_ns = keys_of(function(i) return ("user-%d"):format(i) end),
}

local function one_by_one(bound, keys, seen)
  local found = 0
  for _ = 1, PASSES do
    for i = 1, KEYS do
      local shard_id = bound:route(keys[i])
      found = found + seen[shard_id]
    end
  end
  return found
end

local function at_once(bound, keys)
  local found = 0
  for _ = 1, PASSES do
    found = found + #bound:route_many(keys)
  end
  return found
end

local function median_ns(fn, ...)
  local times = {}
  for round = 1, ROUNDS do
    local started = lunashard.now()
    assert(fn(...) == KEYS * PASSES)
    times[round] = (lunashard.now() - started) * 1e9 / (KEYS * PASSES)
  end
  table.sort(times)
  return times[(ROUNDS + 1) / 2]
end

for _, n in ipairs({ 16, 256 }) do
  local shards, seen = {}, {}
  for i = 1, n do
    shards[i], seen["shard" .. i] = { shard_id = "shard" .. i }, 1
  end
  local bound = lunashard.strategy.bind(lunashard.strategy.hash({ shard_key = "user_id" }), shards)
  local line = { bench = "route_lua", shards = n }
  for name, keys in pairs(LISTS) do
    line[name] = median_ns(one_by_one, bound, keys, seen)
  end
  line.many_ns = median_ns(at_once, bound, LISTS.number_ns)
  print(json.encode(line))
end
