local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")
local ffi = require("ffi")
local placement = require("lunashard.strategy.placement")

local null = require("cjson").null -- the same light userdata as lunashard.null

local function shards(n)
  local list = {}
  for i = 1, n do
    list[i] = { shard_id = "shard" .. i }
  end
  return list
end

local function refused(code, text, value, err)
  assert.is_nil(value)
  assert.is_true(errors.is(err, code), tostring(err))
  assert.truthy(err.message:find(text, 1, true), err.message)
end

describe("core.placement: keys", function()
  it("takes every form of an int8 as one key", function()
    local map = core.hash_map("int8", shards(3))
    local forms = { 42, 42.0, 42LL, 42ULL, "42", "042", "+42", " 42 ", ffi.new("int64_t", 42) }
    for i, key in ipairs(forms) do
      local shard_id, bucket = map:route(key)
      assert.equal("shard1", shard_id, "form " .. i)
      assert.equal(6774, bucket, "form " .. i)
    end
  end)

  it("hashes as a PostgreSQL server does", function()
    -- hashint8extended(key, 0x7A5B22367996DCFD) + 0x49a0f4dd15e5a8e3 by a server, as a signed int8
    local combine = 0x49a0f4dd15e5a8e3LL
    assert.equal(7363975540656877951LL + combine, core.row_hash("int8", 42))
    assert.equal(6660635123915733087LL + combine, core.row_hash("int8", -42))
    assert.equal(-6549272185662802590LL + combine, core.row_hash("int8", "9007199254740993"))
    assert.equal(3628778498291917250LL + combine, core.row_hash("text", "abc"))
    assert.equal(424513190990560493LL + combine,
      core.row_hash("uuid", "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"))
  end)

  it("combines the columns of a composite key", function()
    local hash = ffi.cast("uint64_t", core.row_hash({ "int8", "text" }, { 7, "a" }))
    assert.equal(6143, tonumber(hash % 16384))
    assert.equal(11893, tonumber(hash % 16381))
    assert.are_not.equal(core.row_hash({ "int8", "text" }, { 7, "a" }), core.row_hash({ "text", "int8" }, { "a", 7 }))
  end)

  it("refuses NULL and NaN as NULL_KEY", function()
    local map = core.hash_map("int8", shards(3))
    refused("NULL_KEY", "NULL", map:route(nil))
    refused("NULL_KEY", "NULL", map:route())
    refused("NULL_KEY", "NULL", map:route(null))
    refused("NULL_KEY", "NaN", map:route(0 / 0))
  end)

  it("refuses what is no int8, quoting it", function()
    local map = core.hash_map("int8", shards(3))
    refused("INVALID", "routing key 42.5 is not an int8", map:route(42.5))
    refused("INVALID", 'routing key "4x2" is not an int8', map:route("4x2"))
    refused("INVALID", "beyond 2^53", map:route(2 ^ 53 + 2))
    refused("INVALID", "out of range for int8", map:route(0x8000000000000000ULL))
    refused("INVALID", "out of range for int8", map:route("9223372036854775808"))
    refused("INVALID", "inf", map:route(math.huge))
    refused("INVALID", "boolean", map:route(true))
    refused("INVALID", "table", map:route({}))
    refused("INVALID", "function", map:route(print))
    refused("INVALID", "cdata", map:route(ffi.new("int[2]")))
  end)

  it("loses no digit of an int64 beyond 2^53", function()
    local map = core.hash_map("int8", shards(7))
    local _, a = map:route(9007199254740993LL)
    local _, b = map:route(9007199254740992LL)
    local _, c = map:route("9007199254740993")
    assert.are_not.equal(a, b)
    assert.equal(a, c)
    assert.equal(9007199254740993LL, core.canonical("int8", "9007199254740993"))
    assert.equal("number", type(core.canonical("int8", 42LL)))
  end)

  it("takes UUIDs in any case and form as one key, and shows them one way", function()
    for _, form in ipairs({ "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}" }) do
      assert.equal("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", core.canonical("uuid", form))
    end
    refused("INVALID", "is not a uuid", core.canonical("uuid", "a0eebc99"))
  end)

  it("refuses numbers as text keys, and texts that PostgreSQL cannot store", function()
    refused("INVALID", "is a number, not a text", core.canonical("text", 42))
    refused("INVALID", "NUL byte", core.canonical("text", "a\0b"))
    refused("INVALID", "not valid UTF-8", core.canonical("text", "\255"))
  end)

  it("takes numbers as int8 and strings as text when no type is declared", function()
    assert.equal(core.row_hash("int8", 42), core.row_hash(nil, 42))
    assert.equal(core.row_hash("text", "42"), core.row_hash(nil, "42"))
  end)

  it("names the column of a composite key that is wrong", function()
    local map = core.hash_map({ "int8", "text" }, shards(3))
    refused("NULL_KEY", "column 2 of the shard key", map:route({ 7 }))
    refused("NULL_KEY", "column 1 of the shard key", map:route({ nil, "a" }))
    refused("INVALID", 'column 1 of the shard key: routing key "x" is not an int8', map:route({ "x", "a" }))
    refused("INVALID", "a table of 2 values", map:route(7))
    refused("INVALID", "a table of 2 values", map:route({ 7, "a", 1 }))
  end)

  it("raises for key types that do not exist", function()
    assert.error_matches(function()
      core.hash_map("bigint", shards(2))
    end, 'unknown key type "bigint"')
    assert.error_matches(function()
      core.hash_map({}, shards(2))
    end, "1 to 32 columns")
  end)
end)

describe("core.placement: bucket maps", function()
  it("count keys where they route each one", function()
    local seed = os.time()
    math.randomseed(seed)
    local map, keys = core.ring_map("int8", shards(5), 150), {}
    for i = 1, 5000 do
      keys[i] = math.random(-2 ^ 40, 2 ^ 40)
    end
    local counts = assert(map:count(keys))
    local naive = { shard1 = 0, shard2 = 0, shard3 = 0, shard4 = 0, shard5 = 0 }
    for _, key in ipairs(keys) do
      local shard_id, bucket = map:route(key)
      assert.equal(shard_id, map:owner(bucket), "seed " .. seed)
      assert.equal(bucket, map:bucket(key))
      naive[shard_id] = naive[shard_id] + 1
    end
    assert.same(naive, counts)
  end)

  it("say which of many keys is bad", function()
    local map = core.hash_map("int8", shards(2))
    local counts, err = map:count({ 1, 2, "x", 4 })
    refused("INVALID", 'key 3: routing key "x" is not an int8', counts, err)
    assert.equal(3, err.index)
    counts, err = map:count({ 1, null })
    refused("NULL_KEY", "key 2", counts, err)
    assert.equal(2, err.index)
  end)

  it("count shards without keys as 0", function()
    assert.same({ shard1 = 0, shard2 = 0, shard3 = 0 }, core.hash_map("int8", shards(3)):count({}))
  end)

  it("have N * ceil(16384 / N) buckets for hash and 16384 for the others", function()
    assert.equal(16384, core.hash_map("int8", shards(4)):buckets())
    assert.equal(16386, core.hash_map("int8", shards(3)):buckets())
    assert.equal(16384, core.ring_map("int8", shards(3), 150):buckets())
    assert.equal(16384, core.rendezvous_map("int8", shards(3)):buckets())
    assert.same({ shard1 = 5462, shard2 = 5462, shard3 = 5462 }, core.hash_map("int8", shards(3)):shares())
  end)

  it("know no owner of buckets that do not exist", function()
    local map = core.hash_map("int8", shards(4))
    assert.is_nil(map:owner(-1))
    assert.is_nil(map:owner(16384))
    assert.is_nil(map:owner(1.5))
    assert.is_nil(map:owner(0 / 0))
    assert.equal("shard4", map:owner(16383))
  end)

  it("never change: golden owners of ring and rendezvous buckets", function()
    local ring, rendezvous = core.ring_map("int8", shards(3), 150), core.rendezvous_map("int8", shards(3))
    local from_ring, from_rendezvous = {}, {}
    for i = 0, 31 do
      from_ring[i + 1] = ring:owner(i * 512):sub(6)
      from_rendezvous[i + 1] = rendezvous:owner(i):sub(6)
    end
    assert.equal("12112123133322321221312111123323", table.concat(from_ring))
    assert.equal("22223113233233232132311233221211", table.concat(from_rendezvous))
  end)

  it("raise for lists of shards that are none", function()
    for _, bad in ipairs({ {}, { 1 }, { {} }, { { shard_id = 1 } }, { { shard_id = "a", weight = "x" } } }) do
      assert.has_error(function()
        core.rendezvous_map("int8", bad)
      end)
    end
    assert.has_error(function()
      core.ring_map("int8", shards(2), 0)
    end)
    refused("INVALID", 'weight of shard "a" is -1', core.rendezvous_map("int8", { { shard_id = "a", weight = -1 } }))
  end)

  it("survive the collection of what they were made from", function()
    local map
    do
      local list = shards(3)
      map = core.hash_map("int8", list)
      list[1].shard_id, list[1] = nil, nil
    end
    collectgarbage()
    collectgarbage()
    assert.equal("shard1", (map:route(42)))
  end)
end)

describe("placement.quote_ident", function()
  it("doubles quotes and refuses what cannot be a name", function()
    assert.equal('"user"', placement.quote_ident("user"))
    assert.equal('"a""; DROP TABLE x; --"', placement.quote_ident('a"; DROP TABLE x; --'))
    assert.has_error(function()
      placement.quote_ident("")
    end)
    assert.has_error(function()
      placement.quote_ident("a\0b")
    end)
  end)
end)
