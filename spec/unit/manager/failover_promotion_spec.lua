local errors = require("lunashard.errors")
local promotion = require("lunashard.manager.failover.promotion")

local function standby(name, position, more)
  local one = { name = name, in_recovery = true, streaming = false, timeline = 1, lsn = position, received = position }
  for field, value in pairs(more or {}) do
    one[field] = value
  end
  return one
end

local function names(list)
  local found = {}
  for i, one in ipairs(list) do
    found[i] = one.name
  end
  return found
end

describe("who may be promoted", function()
  local function refused(found, written)
    local list, reason = promotion.most_advanced(found, written)
    assert.is_nil(list)
    return reason
  end

  it("is the standby that holds the most, received or replayed, not the one that replayed the most", function()
    assert.same({ "b" }, names(promotion.most_advanced({ standby("a", 100), standby("b", 90, { received = 120 }) })))
    assert.same({ "a" }, names(promotion.most_advanced({ standby("a", 100, { received = 80 }), standby("b", 90) })))
    assert.same({ "a" }, names(promotion.most_advanced({ { name = "a", in_recovery = true, timeline = 1, lsn = 5 } })))
  end)

  it("are all that hold the same, in configured order", function()
    assert.same({ "a", "c" }, names(promotion.most_advanced({ standby("a", 9), standby("b", 8), standby("c", 9) }, 9)))
  end)

  it("is nobody while one of them does not answer, be it the last", function()
    local silent = { name = "b", err = errors.new("SHARD_DOWN", { message = "refused" }) }
    assert.is_truthy(refused({ standby("a", 100), silent }):find("^b, which may hold more"))
  end)

  it("is nobody while a primary is heard of: by a replica that streams, or by being one", function()
    assert.is_truthy(refused({ standby("a", 9), standby("b", 9, { streaming = true }) }):find("b still receives WAL"))
    assert.is_truthy(refused({ standby("a", 9), standby("b", 9, { in_recovery = false }) }):find("b accepts writes"))
  end)

  it("is nobody when what the primary was seen to have written is nowhere", function()
    assert.is_truthy(refused({ standby("a", 90), standby("b", 99) }, 100):find("b lacks the last 1 bytes", 1, true))
    assert.same({ "b" }, names(promotion.most_advanced({ standby("a", 90), standby("b", 100) }, 100)))
  end)

  it("is nobody when the one that is ahead is on an old timeline, nor another database cluster, nor without replicas",
    function()
      assert.is_truthy(refused({ standby("a", 90, { timeline = 2 }), standby("b", 99) }):find("latest timeline"))
      assert.is_truthy(refused({ standby("a", 90), standby("b", 99, { is_foreign = true }) }):find("b is no copy"))
      assert.is_truthy(refused({}):find("no replica"))
    end)
end)
