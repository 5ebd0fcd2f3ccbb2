local errors = require("lunashard.errors")
local strategy = require("lunashard.strategy")

local function shards(n)
  local list = {}
  for i = 1, n do
    list[i] = { shard_id = "shard" .. i }
  end
  return list
end

local function raises(text, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(text, 1, true), tostring(message))
end

describe("strategy", function()
  it("binds itself at once when given shards, as the guide's HashStrategy", function()
    local bound = strategy.hash({ shard_key = "user_id", shards = shards(3) })
    assert.equal("hash", bound.name)
    assert.equal("user_id", bound.shard_key)
    assert.equal("shard1", (bound:route(42)))
    assert.equal(3, #strategy.given_shards(bound))
  end)

  it("is a description until it is bound, and can be bound again", function()
    local spec = strategy.consistent_hash({ shard_key = "user_id" })
    assert.is_nil(strategy.given_shards(spec))
    local three = strategy.bind(spec, shards(3), { key_type = "int8" })
    local four = strategy.bind(three, shards(4), { key_type = "int8" })
    assert.equal("int8", three.key_type)
    assert.equal(3, #three.shards)
    assert.equal(4, #four.shards)
  end)

  it("can be written as a name or a table", function()
    for _, given in ipairs({ "hash", { "hash" }, { "hash", shard_key = "id" }, strategy.hash({}) }) do
      assert.equal("hash", strategy.bind(given, shards(2)).name)
    end
  end)

  it("gives a strategy no address and no secret", function()
    local list = shards(2)
    list[1].password, list[1].host = "secret", "db1"
    local bound = strategy.bind("hash", list)
    assert.is_nil(bound.shards[1].password)
    local own = strategy.hash({ shard_key = "user_id", shards = { { shard_id = "a", password = "s3cret" } } })
    assert.is_nil(require("inspect")(own):find("s3cret", 1, true))
    assert.is_nil(bound.shards[1].host)
  end)

  it("names the nearest strategy, option and key type for a mistyped one", function()
    raises('unknown strategy "consistent_hsah"; did you mean "consistent_hash"?', function()
      return strategy.consistent_hsah({})
    end)
    raises('unknown strategy "hassh"; did you mean "hash"?', strategy.bind, "hassh", shards(2))
    raises('unknown option "shardkey" of strategy hash; did you mean "shard_key"?', function()
      strategy.hash({ shardkey = "id" })
    end)
    raises('unknown key type "int88"; did you mean "int8"?', strategy.bind, "hash", shards(2), { key_type = "int88" })
    raises('unknown option "keytype" of strategy.bind; did you mean "key_type"?', strategy.bind, "hash", shards(2),
      { keytype = "int8" })
  end)

  it("blames the caller's line", function()
    local ok, message = pcall(function()
      strategy.hash({ shards = {} })
    end)
    assert.is_false(ok)
    assert.matches("strategy_spec.lua:%d+: shards must be a list", message)
  end)

  it("refuses shards that are none, have no id, the same id or a senseless weight", function()
    raises("at least one shard", strategy.bind, "hash", {})
    raises("at least one shard", strategy.bind, "hash", nil)
    raises("shards[2]: shard_id must be a text", strategy.bind, "hash", { { shard_id = "a" }, {} })
    raises('shards[2]: duplicate shard_id "a"', strategy.bind, "hash", { { shard_id = "a" }, { shard_id = "a" } })
    for _, weight in ipairs({ 0, -1, 0 / 0, math.huge, "1" }) do
      raises("weight is", strategy.bind, "rendezvous", { { shard_id = "a", weight = weight } })
    end
  end)

  it("refuses a key type that contradicts the table's or the columns", function()
    raises("has key_type text, but the table declares int8", strategy.bind, { "hash", key_type = "text" }, shards(2),
      { key_type = "int8" })
    raises("has 2 columns", strategy.bind, { "hash", shard_key = { "a", "b" }, key_type = "int8" }, shards(2))
    raises("several columns: give key_type", strategy.bind, { "hash", shard_key = { "a", "b" } }, shards(2))
    raises("is one column", strategy.bind, { "hash", shard_key = "a", key_type = { "int8", "text" } }, shards(2))
    raises("shard_key must be", strategy.bind, { "hash", shard_key = 7 }, shards(2))
  end)
end)

describe("a bound strategy", function()
  local composite = strategy.hash({
    shard_key = { "tenant_id", "user_id" },
    key_type = { "int8", "text" },
    shards = shards(5),
  })

  it("takes a composite key by position and by name", function()
    local shard_id, bucket = composite:route({ 7, "a" })
    local by_name, same = composite:route({ user_id = "a", tenant_id = 7 })
    assert.equal(shard_id, by_name)
    assert.equal(bucket, same)
    assert.same({ shard_id }, composite:route_many({ { tenant_id = 7LL, user_id = "a" } }))
    assert.equal(bucket, composite:bucket({ tenant_id = "7", user_id = "a" }))
    -- satisfies_hash_partition's remainder for modulus 16384
    assert.equal(6143, (strategy.bind(composite, shards(4)):bucket({ 7, "a" })))
  end)

  it("says which column of a composite key is missing or unknown", function()
    local _, err = composite:route({ tenant_id = 7 })
    assert.equal("NULL_KEY: column user_id of the shard key is NULL", tostring(err))
    _, err = composite:route({ tenant_id = 7, user_id = "a", user = "b" })
    assert.equal("INVALID", err.code)
    assert.matches('"user" is no column of the shard key', err.message)
    _, err = composite:route(nil)
    assert.equal("NULL_KEY", err.code)
    _, err = composite:route_many({ { 7, "a" }, { tenant_id = 7 } })
    assert.equal(2, err.index)
    assert.equal("NULL_KEY", err.code)
  end)

  it("agrees with itself: route, bucket and place, route_many and get_distribution", function()
    for _, name in ipairs({ "hash", "consistent_hash", "rendezvous" }) do
      local bound = strategy.bind(name, shards(4), { key_type = "int8" })
      local keys, counts = {}, { shard1 = 0, shard2 = 0, shard3 = 0, shard4 = 0 }
      for i = 1, 500 do
        keys[i] = i * 7919
      end
      local many = bound:route_many(keys)
      for i, key in ipairs(keys) do
        local shard_id, bucket = bound:route(key)
        assert.equal(bucket, bound:bucket(key))
        assert.equal(shard_id, bound:place(bucket))
        assert.equal(shard_id, many[i])
        counts[shard_id] = counts[shard_id] + 1
      end
      assert.same(counts, bound:get_distribution(keys))
    end
  end)

  it("refuses to place buckets that do not exist", function()
    local bound = strategy.bind("hash", shards(4))
    for _, bucket in ipairs({ -1, 16384, 0.5, "0" }) do
      local shard_id, err = bound:place(bucket)
      assert.is_nil(shard_id)
      assert.equal("INVALID", err.code)
    end
  end)

  it("says that any shard may hold a range of keys when it hashes", function()
    assert.same({ "shard1", "shard2" }, strategy.bind("hash", shards(2)):shards_for_range(1, 2))
  end)

  it("shows what would move: nearly all by hash, a share by ring and rendezvous, none between old shards", function()
    local hash = strategy.bind("hash", shards(4), { key_type = "int8" }):movement(shards(5))
    assert.equal("keys", hash.unit)
    assert.is_true(math.abs(hash.fraction - 4 / 5) < 0.02, "moved " .. hash.fraction)
    for _, name in ipairs({ "consistent_hash", "rendezvous" }) do
      local bound = strategy.bind(name, shards(4))
      local grown = bound:movement(shards(5))
      assert.equal("buckets", grown.unit)
      assert.equal(16384, grown.total)
      assert.is_true(math.abs(grown.fraction * 5 - 1) < (name == "rendezvous" and 0.05 or 0.25),
        name .. " moved " .. grown.fraction)
      local sum = 0
      for way, n in pairs(grown.by) do
        assert.matches("^shard[1-4]%->shard5$", way)
        sum = sum + n
      end
      assert.equal(grown.moved, sum)
      for way in pairs(bound:movement(shards(3)).by) do
        assert.matches("^shard4%->shard[1-3]$", way)
      end
      assert.equal(0, bound:movement(shards(4)).moved)
    end
  end)

  it("compares different strategies over given keys", function()
    local a = strategy.bind("hash", shards(2), { key_type = "int8" })
    local b = strategy.bind({ "range", ranges = { shard1 = { nil, 10 }, shard2 = { 11 } } }, shards(2))
    local keys, expected = {}, 0
    for i = 1, 20 do
      keys[i] = i
      expected = expected + (a:route(i) ~= b:route(i) and 1 or 0)
    end
    local result = a:movement(b, keys)
    assert.equal(expected, result.moved)
    assert.equal(20, result.total)
    raises("needs a list of keys", b.movement, b, a)
  end)
end)

describe("a strategy plug-in", function()
  local function define(fields)
    local contract = {
      api = 1,
      kind = "strategy",
      name = "custom",
      new = function(options, list)
        return { options = options, shards = list }
      end,
      bucket = function(state, key)
        return tonumber(key) % #state.shards
      end,
      place = function(state, bucket)
        return state.shards[bucket + 1].shard_id
      end,
    }
    for name, value in pairs(fields or {}) do
      contract[name] = value or nil
    end
    strategy.register(contract)
    return strategy.bind("custom", shards(3), { key_type = "int8" })
  end

  it("receives canonical keys, whatever form they came in", function()
    local seen = {}
    local bound = define({
      bucket = function(_, key)
        seen[#seen + 1] = type(key) .. tostring(key)
        return 0
      end,
    })
    for _, key in ipairs({ 42, "042", 42LL, 9007199254740993LL }) do
      bound:bucket(key)
    end
    assert.same({ "number42", "number42", "number42", "cdata9007199254740993LL" }, seen)
    assert.equal("NULL_KEY", select(2, bound:route(nil)).code)
  end)

  it("sees neither the addresses nor the passwords of shards", function()
    define()
    local list = shards(2)
    list[1].password = "secret"
    local bound = strategy.custom({ shards = list, key_type = "int8" })
    assert.is_nil(bound.state.options.shards)
    assert.is_nil(bound.state.shards[1].password)
  end)

  it("routes by bucket and place", function()
    local bound = define()
    assert.equal("shard2", (bound:route(4)))
    assert.equal(1, (bound:bucket(4)))
    assert.same({ shard1 = 1, shard2 = 2, shard3 = 0 }, bound:get_distribution({ 1, 3, 4 }))
  end)

  it("has its shards as buckets when it only routes", function()
    local bound = define({
      bucket = false,
      place = false,
      route = function(state, key)
        return state.shards[key % 3 + 1].shard_id
      end,
    })
    assert.same({ "shard2", "shard2" }, { bound:route(4) })
    assert.equal("shard2", bound:bucket(4))
    assert.equal("shard2", bound:place("shard2"))
  end)

  it("that throws fails with PLUGIN_FAILED and its traceback", function()
    local bound = define({
      bucket = function()
        error("oops")
      end,
    })
    local shard_id, err = bound:route(1)
    assert.is_nil(shard_id)
    assert.equal("PLUGIN_FAILED", err.code)
    assert.matches("strategy custom: bucket: .*oops", err.message)
    assert.matches("strategy_spec.lua", err.traceback)
  end)

  it("that answers nonsense fails instead of misplacing rows", function()
    for _, answer in ipairs({ 1.5, true, {}, ("x"):rep(256) }) do
      local bound = define({
        bucket = function()
          return answer
        end,
      })
      assert.equal("PLUGIN_FAILED", select(2, bound:route(1)).code)
    end
    local bound = define({
      place = function()
        return "shard9"
      end,
    })
    local _, err = bound:route(1)
    assert.equal("PLUGIN_FAILED", err.code)
    assert.matches('"shard9", which is no shard', err.message)
  end)

  it("says NO_SHARD by nil, or its own error", function()
    local own = errors.new("INVALID", { message = "mine" })
    local bound = define({
      bucket = function(_, key)
        if key == 1 then
          return nil, own
        end
      end,
    })
    assert.equal(own, select(2, bound:route(1)))
    assert.equal("NO_SHARD", select(2, bound:route(2)).code)
  end)

  it("must keep the contract and leave shipped names alone", function()
    raises("api = 1", strategy.register, { kind = "strategy", name = "x", new = print })
    raises("strategy x: new: expected a function", strategy.register, { api = 1, kind = "strategy", name = "x" })
    raises("bucket and place, or route", strategy.register, { api = 1, kind = "strategy", name = "x", new = print })
    raises("identifier", strategy.register, { api = 1, kind = "strategy", name = "../x", new = print })
    raises("shipped one", strategy.register, { api = 1, kind = "strategy", name = "hash", new = print, route = print })
  end)
end)
