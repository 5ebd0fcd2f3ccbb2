local ttl_cache = require("lunashard.cache.ttl")

describe("ttl_cache", function()
  local time, cache

  before_each(function()
    time = 100
    cache = ttl_cache.new(3, function()
      return time
    end)
  end)

  it("keeps a value until its time is over", function()
    cache:set("a", 1, 10)
    time = 109.9
    assert.same({ true, 1 }, { cache:get("a") })
    time = 110
    assert.same({ false }, { cache:get("a") })
    assert.equal(0, cache.size)
  end)

  it("can hold nil, which is not the same as nothing", function()
    cache:set("a", nil, 10)
    assert.is_true((cache:get("a")))
    assert.is_false((cache:get("b")))
  end)

  it("makes room by dropping what was used longest ago", function()
    cache:set("a", 1, 10)
    cache:set("b", 2, 10)
    cache:set("c", 3, 10)
    cache:get("a")
    cache:set("d", 4, 10)
    assert.is_false((cache:get("b")))
    for _, key in ipairs({ "a", "c", "d" }) do
      assert.is_true((cache:get(key)))
    end
    assert.equal(3, cache.size)
  end)

  it("replaces without growing, and forgets one or all", function()
    for i = 1, 10 do
      cache:set("a", i, 10)
    end
    assert.equal(1, cache.size)
    assert.equal(10, select(2, cache:get("a")))
    cache:set("b", 2, 10)
    cache:remove("a")
    cache:remove("never there")
    assert.is_false((cache:get("a")))
    assert.is_true((cache:get("b")))
    cache:clear()
    assert.equal(0, cache.size)
    assert.is_false((cache:get("b")))
  end)
end)
