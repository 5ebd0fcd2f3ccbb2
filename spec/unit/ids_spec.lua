local ids = require("lunashard.ids")

local EPOCH = 1704067200

local function raises(text, options)
  local ok, message = pcall(ids.new, options)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(text, 1, true), tostring(message))
end

describe("ids", function()
  it("put time, shard and sequence where the layout says", function()
    local gen = ids.new({ shard = 5 })
    assert.equal(1000 * 2LL ^ 23 + 5 * 2LL ^ 10, (gen:next(EPOCH + 1)) + 0LL)
    assert.equal(1000 * 2LL ^ 23 + 5 * 2LL ^ 10 + 1, (gen:next(EPOCH + 1)) + 0LL)
    local narrow = ids.new({ shard = 5, width = 53 })
    assert.equal(1000 * 2 ^ 13 + 5 * 2 ^ 6, (narrow:next(EPOCH + 1)))
  end)

  it("can be taken apart again", function()
    local gen = ids.new({ shard = 8191, worker = 3, worker_bits = 2 })
    gen:next(EPOCH + 86400.25)
    local id = gen:next(EPOCH + 86400.25)
    assert.same({ time = EPOCH + 86400.25, shard = 8191, worker = 3, sequence = 1 }, gen:decode(id))
  end)

  it("are int64 beyond 2^53 and plain numbers within it", function()
    assert.equal("cdata", type((ids.new():next(EPOCH + 86400 * 365))))
    local gen = ids.new({ width = 53, shard = 127 })
    local id = gen:next(EPOCH + 34.8 * 365 * 86400)
    assert.equal("number", type(id))
    assert.is_true(id < 2 ^ 53 and id % 1 == 0)
  end)

  it("use the system's clock by default", function()
    local gen = ids.new({ shard = 1 })
    local time = gen:decode(gen:next()).time
    assert.is_true(math.abs(time - os.time()) < 3)
  end)

  it("only grow, also when the clock goes back or a millisecond is used up", function()
    local seed = os.time()
    math.randomseed(seed)
    for _, width in ipairs({ 64, 53 }) do
      local gen, now, last = ids.new({ width = width }), EPOCH + 1000, -1LL
      for _ = 1, 20000 do
        now = now + (math.random(50) == 1 and 0.001 or 0) - (math.random(2000) == 1 and 5 or 0)
        local id = assert(gen:next(now)) + 0LL
        assert.is_true(id > last, "seed " .. seed)
        last = id
      end
    end
  end)

  it("start above an id that is known", function()
    local last = ids.new({ shard = 2 }):next(EPOCH + 5000)
    local gen = ids.new({ shard = 2, after = last })
    assert.is_true(gen:next(EPOCH + 10) + 0LL > last)
  end)

  it("are told by time when they come from different shards", function()
    local a, b = ids.new({ shard = 8000 }), ids.new({ shard = 1 })
    assert.is_true((a:next(EPOCH + 1)) + 0LL < (b:next(EPOCH + 1.001)) + 0LL)
  end)

  it("end with an error, not with negative numbers, when the epoch is over", function()
    local gen = ids.new({ epoch = 0 })
    assert.is_true((gen:next(2 ^ 40 / 1000 - 0.001)) > 0)
    local id, err = gen:next(2 ^ 40 / 1000)
    assert.is_nil(id)
    assert.equal("INVALID", err.code)
    id, err = ids.new():next(EPOCH - 1)
    assert.is_nil(id)
    assert.matches("before the ids' epoch", err.message)
  end)

  it("refuse parts that do not fit and unknown options", function()
    raises("shard is 8192: must be 0 to 8191", { shard = 8192 })
    raises("shard is 128: must be 0 to 127", { shard = 128, width = 53 })
    raises("worker is 4: must be 0 to 3 with 2 worker_bits", { worker = 4, worker_bits = 2 })
    raises("worker is 1: must be 0 to 0 with 0 worker_bits", { worker = 1 })
    raises("worker_bits is 10: must be 0 to 9", { worker_bits = 10 })
    raises("width must be 64 or 53", { width = 32 })
    raises("option shard", { shard = -1 })
    raises("option shard", { shard = 1.5 })
    raises('did you mean "worker_bits"?', { worker_bit = 1 })
    raises("epoch must be a Unix time", { epoch = 0 / 0 })
  end)
end)
