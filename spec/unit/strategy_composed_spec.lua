local strategy = require("lunashard.strategy")

local SHARDS = { { shard_id = "shard1" }, { shard_id = "shard2" }, { shard_id = "shard3" } }

local function bind(spec)
  return strategy.bind(spec, SHARDS, { key_type = "int8" })
end

local function raises(text, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(text, 1, true), tostring(message))
end

describe("strategy.pins", function()
  it("answers for its keys and passes all others on", function()
    local bound = bind(strategy.pins({ [42] = "shard2", [7] = "shard3" }))
    assert.equal("shard2", (bound:route("42")))
    assert.equal("shard3", (bound:route(7LL)))
    assert.equal("NO_SHARD", select(2, bound:route(8)).code)
  end)

  it("keeps keys that read like options apart, under entries", function()
    local bound = strategy.bind({ "pins", entries = { shards = "shard2" }, acme = "shard3" }, SHARDS)
    assert.equal("shard2", (bound:route("shards")))
    assert.equal("shard3", (bound:route("acme")))
  end)

  it("keeps its keys when written as a table", function()
    assert.equal("shard2", (bind({ "pins", [42] = "shard2" }):route(42)))
  end)

  it("refuses pins to unknown shards", function()
    raises('there is no shard "shard9"', function()
      bind(strategy.pins({ [1] = "shard9" }))
    end)
  end)
end)

describe("strategy.threshold", function()
  local old = strategy.range({ ranges = { shard1 = { 0, 99 } } })

  it("keeps the keys below by the old strategy and sends the others by the new one", function()
    local bound = bind(strategy.threshold({ below = 100, old = old, new = "consistent_hash" }))
    local ring = bind("consistent_hash")
    assert.same({ "shard1", "1:0..99" }, { bound:route(99) })
    for key = 100, 200 do
      local shard_id, bucket = ring:route(key)
      assert.same({ shard_id, "2#" .. bucket }, { bound:route(key) })
      assert.equal(shard_id, bound:place(bound:bucket(key)))
    end
    assert.equal("NO_SHARD", select(2, bound:route(-1)).code)
  end)

  it("takes texts and dates", function()
    local pins = strategy.pins({ [0] = "shard1" })
    local by_date = strategy.bind(strategy.threshold({
      key_type = "date",
      below = "2024-01-01",
      old = strategy.range({ ranges = { shard1 = {} } }),
      new = strategy.range({ ranges = { shard2 = {} } }),
    }), SHARDS)
    assert.same({ "shard1", "shard2" }, by_date:route_many({ "2023-12-31", "2024-01-01" }))
    raises("below: \"x\" is not an int8", function()
      bind(strategy.threshold({ below = "x", old = pins, new = pins }))
    end)
  end)

  it("names what is missing, and the member that is wrong", function()
    raises("needs the options below, old and new; new is missing", function()
      bind(strategy.threshold({ below = 1, old = old }))
    end)
    raises('threshold: new: unknown strategy "hassh"; did you mean "hash"?', function()
      bind(strategy.threshold({ below = 1, old = old, new = "hassh" }))
    end)
  end)
end)

describe("strategy.first_of", function()
  local spec = strategy.first_of({
    strategy.pins({ [42] = "shard3", [150] = "shard1" }),
    { "range", ranges = { shard2 = { 100, 200 } } },
    "rendezvous",
  })

  it("takes the answer of the first member that has one", function()
    local bound, rest = bind(spec), bind("rendezvous")
    assert.same({ "shard3", "1#42" }, { bound:route(42) })
    assert.same({ "shard1", "1#150" }, { bound:route(150) })
    assert.same({ "shard2", "2:100..200" }, { bound:route(151) })
    local shard_id, bucket = rest:route(99)
    assert.same({ shard_id, "3#" .. bucket }, { bound:route(99) })
  end)

  it("finds the shard of each of its buckets again", function()
    local bound = bind(spec)
    for _, key in ipairs({ 42, 150, 151, 99, "9007199254740993" }) do
      local shard_id, bucket = bound:route(key)
      assert.equal(bucket, bound:bucket(key))
      assert.equal(shard_id, bound:place(bucket))
    end
    for _, bucket in ipairs({ "9#1", "x", "0#1", 5, "2:1..2" }) do
      assert.equal("INVALID", select(2, bound:place(bucket)).code)
    end
  end)

  it("passes on only what has no shard: other failures are the answer", function()
    local bound = bind(strategy.first_of({
      strategy.directory({
        lookup = function(key)
          if key == 1 then
            return nil, "broken"
          end
        end,
      }),
      "hash",
    }))
    assert.equal("PLUGIN_FAILED", select(2, bound:route(1)).code)
    assert.equal((bind("hash"):route(2)), (bound:route(2)))
    assert.equal("NULL_KEY", select(2, bound:route(nil)).code)
    assert.equal("INVALID", select(2, bound:route("x")).code)
    assert.equal("NO_SHARD", select(2, bind(strategy.first_of({ strategy.pins({}) })):route(5)).code)
  end)

  it("hands attach and invalidate on to its members", function()
    local calls = 0
    local bound = bind(strategy.first_of({
      { "directory", table = "t", on = "shard1", key_column = "k", shard_column = "s" },
      "hash",
    }))
    bound:attach(function()
      calls = calls + 1
      return { rows = { { shard_id = "shard2" } } }
    end)
    assert.equal("shard2", (bound:route(5)))
    bound:route(5)
    assert.equal(1, calls)
    bound:invalidate(5)
    bound:route(5)
    assert.equal(2, calls)
  end)

  it("nests, and counts over all shards", function()
    local bound = bind(strategy.first_of({
      strategy.first_of({ strategy.pins({ [1] = "shard1" }) }),
      strategy.range({ ranges = { shard2 = {} } }),
    }))
    assert.same({ shard1 = 1, shard2 = 2, shard3 = 0 }, bound:get_distribution({ 1, 2, 3 }))
    assert.equal("shard1", bound:place((bound:bucket(1))))
  end)

  it("needs members that are strategies", function()
    raises("at least one member", function()
      bind(strategy.first_of({}))
    end)
    raises("first_of: member 2: a strategy is a name", function()
      bind(strategy.first_of({ "hash", 7 }))
    end)
    raises('unknown option "shrad_key" of strategy first_of', function()
      strategy.first_of({ "hash", shrad_key = "x" })
    end)
  end)
end)
