local strategy = require("lunashard.strategy")

local SHARDS = {
  { shard_id = "us-east", region = "us-east-1" },
  { shard_id = "us-west", region = "us-west-2" },
  { shard_id = "eu-a", region = "eu-west-1" },
  { shard_id = "eu-b", region = "eu-west-1" },
}

local function bind(options, shards, opts)
  return strategy.bind(strategy.geographic(options), shards or SHARDS, opts)
end

local function raises(text, ...)
  local ok, message = pcall(bind, ...)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(text, 1, true), tostring(message))
end

describe("strategy.geographic", function()
  it("routes a region to its shard", function()
    local bound = bind({ shard_key = "region" })
    assert.same({ "us-east", "us-east-1" }, { bound:route("us-east-1") })
    assert.equal("us-west", (bound:route("us-west-2")))
    assert.equal("us-west", (bound:route({ "us-west-2", 42 })))
  end)

  it("hashes a second part over the shards of a region with several", function()
    local bound = bind({ shard_key = { "region", "user_id" }, key_type = { "text", "int8" } })
    local inner = strategy.bind("hash", { { shard_id = "eu-a" }, { shard_id = "eu-b" } }, { key_type = "int8" })
    for user = 1, 100 do
      local shard_id, bucket = inner:route(user)
      assert.same({ shard_id, "eu-west-1/" .. bucket }, { bound:route({ region = "eu-west-1", user_id = user }) })
      assert.equal(shard_id, bound:place("eu-west-1/" .. bucket))
    end
  end)

  it("asks for the second part where it is needed", function()
    local _, err = bind({}):route("eu-west-1")
    assert.equal("INVALID: region eu-west-1 has 2 shards: the routing key must be { region, key }", tostring(err))
    _, err = bind({}):route({ "eu-west-1" })
    assert.equal("NULL_KEY", err.code)
  end)

  it("sends unknown regions to the default region, or to none", function()
    assert.equal("us-east", (bind({ default_region = "us-east-1" }):route("ap-south-1")))
    local _, err = bind({}):route("us-east1")
    assert.equal("NO_SHARD", err.code)
    assert.matches('did you mean "us%-east%-1"', err.message)
  end)

  it("never uses the default when strict: residency", function()
    local _, err = bind({ default_region = "us-east-1", strict = true }):route("ap-south-1")
    assert.equal("NO_SHARD", err.code)
    assert.equal("us-east", (bind({ default_region = "us-east-1", strict = true }):route("us-east-1")))
  end)

  it("never takes NULL for an unknown region", function()
    local bound = bind({ default_region = "us-east-1" })
    assert.equal("NULL_KEY", select(2, bound:route(nil)).code)
    assert.equal("NULL_KEY", select(2, bound:route({ nil, 42 })).code)
    assert.equal("INVALID", select(2, bound:route(42)).code)
  end)

  it("refuses buckets that do not exist", function()
    local bound = bind({})
    for _, bucket in ipairs({ "eu-west-1", "eu-west-1/99999", "us-east-1/5", "mars", 7 }) do
      assert.equal("INVALID", select(2, bound:place(bucket)).code)
    end
  end)

  it("refuses shards without a region, unknown default regions and uneven weights", function()
    raises("shard a has no region", {}, { { shard_id = "a" } })
    raises('default_region is "us-east", but no shard has that region; did you mean "us-east-1"?',
      { default_region = "us-east" })
    raises("strict must be true or false", { strict = "yes" })
    raises("region r gives every shard the same share", {},
      { { shard_id = "a", region = "r" }, { shard_id = "b", region = "r", weight = 2 } })
    raises("region of type text", {}, nil, { key_type = "int8" })
  end)
end)
