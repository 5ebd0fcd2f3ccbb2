local selftest = require("lunashard.plugin.selftest")
local strategy = require("lunashard.strategy")

local SHARDS = { { shard_id = "s1" }, { shard_id = "s2" }, { shard_id = "s3" } }

local function try(fields, key_type, declared)
  local contract = {
    api = 1,
    kind = "strategy",
    name = "selftest_spec",
    new = function(_, shards) return { shards = shards } end,
    bucket = function(_, key) return tonumber(key % 64) end,
    place = function(state, bucket) return state.shards[bucket % #state.shards + 1].shard_id end,
  }
  for name, value in pairs(fields or {}) do
    contract[name] = value
  end
  if fields and fields.route then
    contract.bucket, contract.place = nil, nil
  end
  strategy.register(contract)
  local bound = strategy.bind("selftest_spec", SHARDS, { key_type = declared })
  return selftest.strategy(bound, key_type)
end

local function refused(text, fields, key_type, declared)
  local ok, message = try(fields, key_type, declared)
  assert.is_nil(ok)
  assert.is_truthy(message:find(text, 1, true), message)
  assert.is_nil(message:find("\n"), message)
end

describe("the self-test of a strategy", function()
  it("passes one that answers every key by the key alone", function()
    assert.is_true(try(nil, nil, "int8"))
    assert.is_true(try()) -- int8 where no type is declared
    local function of_text(_, key)
      local sum = 0
      for i = 1, #key do
        sum = (sum * 31 + key:byte(i)) % 1024
      end
      return sum
    end
    for _, key_type in ipairs({ "text", "uuid", "date" }) do
      assert.is_true(try({ bucket = of_text }, nil, key_type))
    end
  end)

  it("passes a bucket that is an int64 where it is a whole number", function()
    assert.is_true(try({ bucket = function(_, key) return key % 64 end }, nil, "int8"))
  end)

  it("refuses an answer that is no shard, also for one key that only the plug-in names", function()
    refused('key 77000001: strategy selftest_spec placed a key on "s9", which is no shard', {
      route = function(_, key) return key == 77000001 and "s9" or "s1" end,
    }, nil, "int8")
    local tenants = { acme = "s11" }
    refused('key "acme"', { route = function(_, key) return tenants[key] or "s2" end }, nil, "text")
  end)

  it("refuses one that fails for a key, by its message", function()
    refused("selftest_spec: bucket: ", { bucket = function(_, key) return key.tenant.id end }, nil, "int8")
    refused("key 0: ", { bucket = function(_, key) return 10 % key == 0 and 1 or error("oops") end }, nil, "int8")
  end)

  it("says what a key beyond 2^53 is when only such a one fails", function()
    refused("tonumber(key % n) % n", {
      route = function(state, key) return state.shards[key % 3 + 1].shard_id end,
    }, nil, "int8")
    assert.is_true(try({
      route = function(state, key) return state.shards[tonumber(key % 3) % 3 + 1].shard_id end,
    }, nil, "int8"))
  end)

  it("refuses nil without a reason, and takes it with one", function()
    refused("return nil and the reason", { bucket = function(_, key) if key > 5 then return 1 end end }, nil, "int8")
    refused("return nil and the reason", { place = function() end }, nil, "int8")
    refused("return nil and the reason", { route = function() end }, nil, "int8")
    assert.is_true(try({ bucket = function(_, key) return key > 5 and 1 or nil, "too small" end }, nil, "int8"))
  end)

  it("refuses what is no bucket: NaN, an endless number, a fraction, a table, a long text", function()
    for _, answer in ipairs({ 0 / 0, math.huge, 1.5, {}, ("x"):rep(300), true }) do
      refused("a bucket must be an integer or a short text", { bucket = function() return answer end }, nil, "int8")
    end
  end)

  it("refuses one that yields", function()
    refused("it yields, but must answer at once", { bucket = function() return coroutine.yield(1) end }, nil, "int8")
    assert.is_true(try(nil, nil, "int8"))
  end)

  it("refuses one that counts, draws lots, or remembers", function()
    local n = 0
    refused("the answer may depend on nothing but the key", { bucket = function()
      n = n + 1
      return n % 64
    end }, nil, "int8")
    refused("the answer may depend on nothing but the key", { bucket = function() return math.random(0, 63) end }, nil,
      "int8")
    -- Each key its shard for good, in the order in which they came: right until the next start.
    refused("after a new start", {
      new = function(_, shards) return { shards = shards, seen = {}, n = 0 } end,
      bucket = function(state, key)
        key = tostring(key)
        if not state.seen[key] then
          state.n = state.n + 1
          state.seen[key] = state.n % 64
        end
        return state.seen[key]
      end,
    }, nil, "int8")
  end)

  it("refuses one that takes two spellings of a key for two keys, and says what to declare", function()
    refused('0 and "0" are one key of type int8', {
      bucket = function(_, key) return type(key) == "number" and 1 or 2 end,
    })
    refused('42 and "42" are one key of type int8, but one is on s2, the other on s1', {
      route = function(_, key) return ({ [42] = "s2" })[key] or "s1" end,
    })
    assert.is_true(try({ route = function(_, key) return ({ [42] = "s2" })[key] or "s1" end }, nil, "int8"))
  end)

  it("says that int8 keys were tried when no type is declared", function()
    refused("for no type is declared", { bucket = function(_, key) return key:byte() end })
  end)

  it("passes composite keys", function()
    strategy.register({ api = 1, kind = "strategy", name = "selftest_spec",
      new = function(_, shards) return shards end,
      bucket = function(_, key) return tonumber(key[1] % 8) .. "/" .. #key[2] end,
      place = function(shards, bucket) return shards[tonumber(bucket:match("^(-?%d+)")) % 3 + 1].shard_id end })
    local bound = strategy.bind({ "selftest_spec", shard_key = { "a", "b" } }, SHARDS, { key_type = { "int8", "text" } })
    assert.is_true(selftest.strategy(bound))
  end)

  it("leaves no keys among those routed lately, nor tasks waiting", function()
    strategy.register({ api = 1, kind = "strategy", name = "selftest_spec", new = function() return {} end,
      route = function() return "s1" end })
    local bound = strategy.bind("selftest_spec", SHARDS, { key_type = "int8" })
    assert.is_true(selftest.strategy(bound))
    assert.same({}, bound.recent:keys())
  end)
end)
