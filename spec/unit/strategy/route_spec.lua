local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")
local ffi = require("ffi")
local lunashard = require("lunashard")
local strategy = require("lunashard.strategy")

local function shards(n)
  local list = {}
  for i = 1, n do
    list[i] = { shard_id = "shard" .. i }
  end
  return list
end

-- The bucket by the hash that the server's answers are checked against, and a division.
local function bucket_of(key_type, key, buckets)
  return tonumber(ffi.cast("uint64_t", ffi.cast("int64_t", core.row_hash(key_type, key))) % buckets)
end

describe("strategy:route", function()
  it("finds, for each form of a key, the bucket of its row hash", function()
    for _, n in ipairs({ 1, 3, 16, 256 }) do
      local bound = strategy.bind("hash", shards(n))
      local buckets = bound.map:buckets()
      for key = -300, 300 do
        local bucket = bucket_of("int8", key, buckets)
        local expected = "shard" .. bucket % n + 1
        for _, form in ipairs({ key, key + 0LL }) do
          local shard_id, found = bound:route(form)
          assert.equal(bucket, found)
          assert.equal(expected, shard_id)
        end
        local text = "tenant-" .. key
        bucket = bucket_of("text", text, buckets)
        assert.same({ "shard" .. bucket % n + 1, bucket }, { bound:route(text) })
      end
    end
  end)

  it("takes numbers, int64 and texts as one key of type int8", function()
    local bound = strategy.bind("hash", shards(256), { key_type = "int8" })
    for key = -300, 300 do
      local shard_id, bucket = bound:route(key)
      for _, form in ipairs({ key + 0LL, tostring(key), (" %d "):format(key) }) do
        assert.same({ shard_id, bucket }, { bound:route(form) })
      end
    end
    assert.same({ bound:route(42) }, { bound:route(42ULL) })
  end)

  it("says why it refuses a key, also in a loop that was compiled with good ones", function()
    local bound, bad = strategy.bind("hash", shards(3)), {}
    local last = { 0 / 0, 1 / 0, 0.5, 2 ^ 53 + 2, "a\0b", "\255", true, {} }
    for i, key in ipairs(last) do
      local keys = {}
      for k = 1, 200 do
        keys[k] = type(key) == "string" and "key" .. k or k
      end
      keys[201] = key
      for k = 1, 201 do
        local shard_id, err = bound:route(keys[k])
        if not shard_id then
          bad[i] = bad[i] or {}
          bad[i][#bad[i] + 1] = err
        end
      end
      assert.equal(1, #bad[i], tostring(key))
      assert.is_true(errors.is(bad[i][1], i == 1 and "NULL_KEY" or "INVALID"), tostring(bad[i][1]))
    end
    assert.is_true(errors.is(select(2, bound:route(nil)), "NULL_KEY"))
  end)

  it("says which of many keys it refuses", function()
    local bound = strategy.bind("hash", shards(2), { key_type = "int8" })
    assert.same({ (bound:route(1)), (bound:route("2")) }, bound:route_many({ 1, "2" }))
    local list, err = bound:route_many({ 1, 2, "x", 4 })
    assert.is_nil(list)
    assert.is_true(errors.is(err, "INVALID"))
    assert.equal('key 3: routing key "x" is not an int8', err.message)
    assert.equal(3, err.index)
    list, err = bound:route_many({ 1, lunashard.null })
    assert.is_nil(list)
    assert.is_true(errors.is(err, "NULL_KEY"))
    assert.equal(2, err.index)
  end)

  it("stays inside a compiled loop", function()
    if not jit.status() then
      return -- as under LUNASHARD_GCSTRESS
    end
    local bound, links, found = strategy.bind("hash", shards(16)), {}, 0
    local traceinfo = require("jit.util").traceinfo
    local function on_trace(what, trace)
      if what == "stop" then
        links[traceinfo(trace).linktype] = true
      end
    end
    -- the compiler gives a recording up for reasons of its own, too
    local function run()
      jit.flush()
      jit.attach(on_trace, "trace")
      for key = 1, 2000 do
        if bound:route(key) then
          found = found + 1
        end
      end
      jit.attach(on_trace)
    end
    local runs = 0
    repeat
      run()
      runs = runs + 1
    until links.loop or runs == 5
    assert.equal(2000 * runs, found)
    assert.is_true(links.loop)
    assert.is_nil(links.stitch)
  end)

  it("works with the compiler off", function()
    local bound = strategy.bind("hash", shards(3), { key_type = "int8" })
    local function all()
      local seen = {}
      for key = 1, 300 do
        seen[key] = { bound:route(key) }
      end
      return seen
    end
    jit.off(all, true)
    jit.off(bound.route, true)
    local seen = all()
    jit.on(bound.route, true)
    for key = 1, 300 do
      assert.same(seen[key], { bound:route(key) })
    end
  end)
end)
