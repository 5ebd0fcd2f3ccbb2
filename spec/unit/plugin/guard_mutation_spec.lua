local guard = require("lunashard.plugin.guard")
local samples = require("lunashard.plugin.samples")
local strategy = require("lunashard.strategy")
local task = require("lunashard.task")

-- With everything in it that a typo can be in: keys and texts in a table, a bound, remainders, an exception for a bucket.
local SOURCE = [[
local PINNED = { [42] = "s3", [90210] = "s1", [7000000] = "s4" }
local LIMIT = 250000
return {
  api = 1,
  kind = "strategy",
  name = "guard_mutation_spec",
  new = function(_, shards) return { shards = shards, n = #shards } end,
  bucket = function(_, key)
    if PINNED[key] then return "p" .. key end
    if key >= LIMIT and key < 260000 then return 2000 end
    if key % 1000 == 7 then return 2001 end
    return tonumber(key % 1024) % 1024
  end,
  place = function(state, bucket)
    if type(bucket) == "string" then return PINNED[tonumber(bucket:sub(2))] end
    if bucket == 2000 then return "s2" end
    if bucket == 777 then return "s1" end
    return state.shards[bucket % state.n + 1].shard_id
  end,
}
]]
local SHARDS = { { shard_id = "s1" }, { shard_id = "s2" }, { shard_id = "s3" }, { shard_id = "s4" } }
local OPERATORS = { "==", "~=", "<", ">", "<=", ">=", "+", "-", "%" }

local function bind(source)
  local chunk = loadstring(source)
  local ok, bound = pcall(function()
    strategy.register(chunk())
    return strategy.bind("guard_mutation_spec", SHARDS, { key_type = "int8" })
  end)
  return ok and bound or nil
end

local function places(pattern)
  local list = {}
  for at, text in SOURCE:gmatch("()(" .. pattern .. ")") do
    list[#list + 1] = { at = at, text = text }
  end
  return list
end

local words, operators = places("[%w_]+"), places("[%%+<>=~]+")

-- One word, number or operator is another one.
local function mutated(random)
  local place, text
  if random(2) == 0 then
    place = words[random(#words) + 1]
    local number = tonumber(place.text)
    text = number and ("%d"):format(({ number + 1, number - 1, number * 10, number / 10 })[random(4) + 1])
      or words[random(#words) + 1].text
  else
    place, text = operators[random(#operators) + 1], OPERATORS[random(#OPERATORS) + 1]
  end
  return SOURCE:sub(1, place.at - 1) .. text .. SOURCE:sub(place.at + #place.text)
end

-- Far more keys than the guard looks at.
local function oracle_keys()
  local keys = { 90210, 7000000, 6999999, 7000001, -1, -5, 123456789, 249999, 250000, 255555, 259999, 260000 }
  for key = 0, 20000 do
    keys[#keys + 1] = key
  end
  return keys
end

local function first_moved(before, after, keys)
  for _, key in ipairs(keys) do
    local from = before:route(key)
    if from ~= nil and after:route(key) ~= from then
      return key
    end
  end
end

describe("the placement guard", function()
  it("refuses every change of a script, however small, that moves one of twenty thousand keys", function()
    local long, seed = tonumber(os.getenv("LUNASHARD_LONG")), tonumber(os.getenv("LUNASHARD_SEED")) or os.time()
    local random, keys, before = samples.random(seed), oracle_keys(), bind(SOURCE)
    before.recent = nil -- nobody has routed anything
    local deadline = long and task.now() + long
    local changed, n = 0, 0
    while long and task.now() < deadline or not long and changed < 10 do
      n = n + 1
      local source = mutated(random)
      local after = bind(source)
      local moved = after and first_moved(before, after, keys)
      if moved then
        changed = changed + 1
        local ok = guard.check(before, after)
        assert.is_nil(ok, ("seed %d, change %d: key %d moves, and nobody minds:\n%s"):format(seed, n, moved, source))
      end
    end
    if long then
      print(("seed %d: %d changes, %d of them moved keys"):format(seed, n, changed))
    end
  end)
end)
