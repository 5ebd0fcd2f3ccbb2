local recent = require("lunashard.plugin.recent")
local samples = require("lunashard.plugin.samples")
local strategy = require("lunashard.strategy")

local SHARDS = { { shard_id = "s1" }, { shard_id = "s2" } }

strategy.register({
  api = 1,
  kind = "strategy",
  name = "recent_spec",
  new = function() return {} end,
  route = function(_, key)
    if key == "nowhere" then
      return nil, "it has none"
    end
    return "s1"
  end,
})

local function texts(keys)
  local list = {}
  for i, key in ipairs(keys) do
    list[i] = samples.describe(key)
  end
  table.sort(list)
  return list
end

describe("the keys routed lately", function()
  it("are each remembered once, whatever they are", function()
    local memory = recent.new()
    local composite = { 1, "a" }
    for _ = 1, 3 do
      for _, key in ipairs({ 42, "acme", 9007199254740993LL, composite, { 1, "a" }, { 11, "" }, { 1, "1" } }) do
        memory:note(key)
      end
    end
    composite[1] = 2 -- the caller's own
    assert.same(texts({ 42, "acme", 9007199254740993LL, { 1, "a" }, { 11, "" }, { 1, "1" } }), texts(memory:keys()))
  end)

  it("are those that came last, in memory that is bounded", function()
    local memory = recent.new(100)
    for key = 1, 1000 do
      memory:note(key)
    end
    local keys, seen = memory:keys(), {}
    for _, key in ipairs(keys) do
      seen[key] = true
    end
    assert.is_true(#keys <= 200)
    for key = 901, 1000 do
      assert.is_true(seen[key])
    end
  end)

  it("keep a key that is used again and again, however many others come in between", function()
    local memory = recent.new(50)
    for key = 1, 5000 do
      memory:note(key)
      memory:note("hot")
    end
    assert.is_truthy((" " .. table.concat(texts(memory:keys()), " ")):find('"hot"', 1, true))
  end)

  it("hold no long texts", function()
    local memory = recent.new()
    memory:note(("x"):rep(1000))
    assert.same({}, memory:keys())
  end)

  it("are those that a user's strategy found a shard for; a shipped one remembers nothing", function()
    local bound = strategy.bind("recent_spec", SHARDS)
    bound:route(1)
    bound:route_many({ "a", 2LL })
    bound:route("nowhere")
    bound:route(nil)
    assert.same({ '"a"', "1", "2LL" }, texts(recent.of(bound)))
    for _, shipped in ipairs({ "hash", "rendezvous", { "range", ranges = { s1 = {} } }, { "pins", [7] = "s1" } }) do
      local other = strategy.bind(shipped, SHARDS)
      assert.is_truthy(other:route(7))
      assert.is_nil(other.recent)
      assert.same({}, recent.of(other))
    end
  end)

  it("are those of the members of a strategy, and go on with those that take their place", function()
    local spec = { "first_of", { "pins", [7] = "s2" }, "recent_spec" }
    local bound = strategy.bind(spec, SHARDS)
    bound:route(7)
    bound:route(8)
    assert.same({ "8" }, texts(recent.of(bound)))
    local after = strategy.bind(spec, SHARDS)
    recent.carry(bound, after)
    after:route(9)
    assert.same({ "8", "9" }, texts(recent.of(after)))
    recent.carry(after, strategy.bind("hash", SHARDS))
  end)

  it("are not those that were only asked about", function()
    local bound = strategy.bind("recent_spec", SHARDS)
    assert.equal("s1", (recent.unnoticed(bound.route, bound, 5)))
    assert.same({}, recent.of(bound))
    assert.error_matches(function()
      recent.unnoticed(error, "oops")
    end, "oops")
    bound:route(6)
    assert.same({ "6" }, texts(recent.of(bound)))
  end)
end)
