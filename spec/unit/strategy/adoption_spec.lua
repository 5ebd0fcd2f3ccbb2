local adoption = require("lunashard.strategy.adoption")
local buckets = require("lunashard.catalog.buckets")
local errors = require("lunashard.errors")
local strategy = require("lunashard.strategy")

local THREE = { { shard_id = "s1", region = "eu" }, { shard_id = "s2", region = "us" }, { shard_id = "s3", region = "eu" } }
local FOUR = { THREE[1], THREE[2], THREE[3], { shard_id = "s4", region = "asia" } }

local RANGES = { s1 = { { nil, 99 }, { 200, 299 } }, s2 = { 100, 199 }, s3 = { 300 } }

strategy.register({ api = 1, kind = "strategy", name = "adoption_modulo", new = function() return {} end,
  bucket = function(_, key) return tonumber(key) % 7 end,
  place = function(_, bucket, shards) return shards[bucket % #shards + 1].shard_id end })

local CASES = {
  { "hash" }, { "consistent_hash" }, { "rendezvous" }, { "range", ranges = RANGES },
  { "threshold", below = 1000, old = { "hash" }, new = { "consistent_hash" } },
  { "first_of", { "pins", entries = { [5] = "s3" } }, { "hash" } },
  { "adoption_modulo" },
}

local function bind(spec, shards)
  return strategy.bind(spec, shards or THREE, { shard_key = "k", key_type = "int8" })
end

local function owners_of(bound)
  local owners = {}
  for _, one in ipairs((buckets.list(bound))) do
    owners[buckets.text(one[1])] = one[2]
  end
  return owners
end

local function routes(bound)
  local list = {}
  for key = 1, 1500 do
    local shard_id, bucket = bound:route(key)
    list[key] = { shard_id, bucket }
  end
  return list
end

describe("a strategy that places by a map", function()
  it("sends every key where it went when the map is its own", function()
    for _, spec in ipairs(CASES) do
      local bound = bind(spec)
      local before, owners = routes(bound), owners_of(bound)
      assert.is_true(adoption.adopt({ { bound = bound, owners = owners } }, THREE))
      assert.same(before, routes(bound), spec[1])
    end
  end)

  it("sends the keys of a bucket that has moved to its new owner, and no others", function()
    for _, spec in ipairs(CASES) do
      local bound = bind(spec)
      local before, owners = routes(bound), owners_of(bound)
      local moved = before[7][2]
      owners[buckets.text(moved)] = before[7][1] == "s1" and "s2" or "s1"
      assert(adoption.adopt({ { bound = bound, owners = owners } }, THREE))
      for key, after in ipairs(routes(bound)) do
        assert.equal(before[key][2], after[2])
        assert.equal(after[2] == moved and owners[buckets.text(moved)] or before[key][1], after[1], spec[1])
        assert.equal(after[1], bound:place(after[2]))
      end
    end
  end)

  it("moves nothing when the shards have become more", function()
    for _, name in ipairs({ "hash", "consistent_hash", "rendezvous" }) do
      local before = bind({ name })
      local after = bind({ name }, FOUR)
      assert(adoption.adopt({ { bound = after, owners = owners_of(before) } }, FOUR))
      assert.same(routes(before), routes(after))
      assert.equal(0, after:get_distribution({ 1, 2, 3 }).s4)
    end
  end)

  it("prunes ranges by who owns them now", function()
    local bound = bind({ "range", ranges = RANGES })
    local owners = owners_of(bound)
    owners["100..199"] = "s3"
    assert(adoption.adopt({ { bound = bound, owners = owners } }, THREE))
    assert.same({ "s3" }, bound:shards_for_range(120, 130))
  end)

  it("keeps a key of no region with the default one, also when the region has a shard later", function()
    local function geographic(shards)
      return strategy.bind({ "geographic", default_region = "us" }, shards, { shard_key = { "r", "k" },
        key_type = { "text", "int8" } })
    end
    local before, after = geographic(THREE), geographic(FOUR)
    assert(adoption.adopt({ { bound = after, owners = owners_of(before) } }, FOUR))
    for key = 1, 100 do
      for _, region in ipairs({ "eu", "us", "asia" }) do
        assert.same({ before:route({ region, key }) }, { after:route({ region, key }) })
      end
    end
  end)

  it("is refused, and stays as it was, when the map and the strategy have other buckets", function()
    local bound = bind({ "range", ranges = RANGES })
    local before, owners = routes(bound), owners_of(bound)
    owners["100..199"] = nil
    local ok, message = adoption.adopt({ { bound = bound, owners = owners } }, THREE)
    assert.is_nil(ok)
    assert.truthy(message:find("the range 100..199 is not in the catalog's map", 1, true))
    owners["100..199"], owners["300..400"] = "s2", "s3"
    assert.is_nil(adoption.adopt({ { bound = bound, owners = owners } }, THREE))
    local hash = bind({ "hash" })
    local map = owners_of(hash)
    map["16386"], map["16390"] = "s1", "s1" -- one that is missing is not made up
    assert.is_nil(adoption.adopt({ { bound = hash, owners = map } }, THREE))
    map = owners_of(hash)
    map["12"] = "s9"
    ok, message = adoption.adopt({ { bound = hash, owners = map } }, THREE)
    assert.is_nil(ok)
    assert.equal("bucket 12 belongs to shard s9, which is not among the shards", message)
    assert.same(before, routes(bound))
  end)

  it("adopts all strategies of a list or none", function()
    local one, other = bind({ "hash" }), bind({ "hash" })
    local moved = owners_of(one)
    moved[tostring(select(2, one:route(7)))] = "s9"
    local fine = owners_of(one)
    for bucket in pairs(fine) do
      fine[bucket] = "s1"
    end
    assert.is_nil(adoption.adopt({ { bound = one, owners = fine }, { bound = other, owners = moved } }, THREE))
    assert.same(routes(bind({ "hash" })), routes(one))
  end)

  it("knows that it does not know an owner", function()
    local bound = bind({ "hash" })
    local owners = owners_of(bound)
    local _, bucket = bound:route(7)
    owners[tostring(bucket)] = adoption.UNKNOWN
    assert(adoption.adopt({ { bound = bound, owners = owners } }, THREE))
    assert.is_true(bound.has_unknown)
    assert.equal(adoption.UNKNOWN, (bound:route(7)))
    assert.not_equal(adoption.UNKNOWN, (bound:route(8)))
  end)

  it("sends nothing anywhere once its map is not to be believed", function()
    for _, spec in ipairs(CASES) do
      local bound = bind(spec)
      adoption.refuse({ one = bound }, THREE)
      for key = 1, 300 do
        local shard_id, err = bound:route(key)
        assert.is_true(shard_id == adoption.UNKNOWN or shard_id == nil and errors.is(err), spec[1])
      end
    end
  end)
end)
