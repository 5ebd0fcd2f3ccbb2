local environment = require("lunashard.plugin.environment")
local ordered = require("lunashard.plugin.ordered")

local function listed(t)
  local list = {}
  for key, value in ordered.pairs(t) do
    list[#list + 1] = { key, value }
  end
  return list
end

local function by_next(t)
  local list = {}
  local key, value = ordered.next(t)
  while key ~= nil do
    list[#list + 1] = { key, value }
    key, value = ordered.next(t, key)
  end
  return list
end

describe("pairs in a plug-in", function()
  it("goes by numbers, then texts, then booleans, however the table was made", function()
    local expected = { { -2.5, "a" }, { 1, "b" }, { 10, "c" }, { "", "d" }, { "Z", "e" }, { "a", "f" }, { "é", "g" },
      { false, "h" }, { true, "i" } }
    local forth, back = {}, {}
    for i = 1, #expected do
      forth[expected[i][1]] = expected[i][2]
      back[expected[#expected - i + 1][1]] = expected[#expected - i + 1][2]
    end
    for _, t in ipairs({ forth, back }) do
      assert.same(expected, listed(t))
      assert.same(expected, by_next(t))
    end
    assert.same({}, listed({}))
    assert.is_nil(ordered.next({}))
  end)

  it("visits keys without an order once each, behind the others", function()
    local a, b, f = {}, {}, function() end
    local t = { [a] = 1, [b] = 2, [f] = 3, x = 0 }
    for _, list in ipairs({ listed(t), by_next(t) }) do
      assert.equal("x", list[1][1])
      local seen = {}
      for _, pair in ipairs(list) do
        assert.is_nil(seen[pair[1]])
        seen[pair[1]] = pair[2]
      end
      assert.same(t, seen)
    end
  end)

  it("may remove keys meanwhile, and does not see what is added", function()
    local t, seen = { a = 1, b = 2, c = 3 }, {}
    for key in ordered.pairs(t) do
      seen[#seen + 1] = key
      t.b, t.d = nil, 4
    end
    assert.same({ "a", "c" }, seen)
  end)

  it("visits what a table has itself, and refuses all else", function()
    local t = setmetatable({ a = 1 }, { __index = { b = 2 } })
    assert.same({ { "a", 1 } }, listed(t))
    assert.error_matches(function()
      ordered.pairs(nil)
    end, "bad argument #1 to 'pairs' %(table expected, got no value%)")
    assert.error_matches(function()
      ordered.next(42)
    end, "table expected, got number")
  end)

  it("is what strategies and extractors have, for they must answer alike in every process", function()
    for kind, is_pure in pairs({ strategy = true, extractor = true, aggregate = false, policy = false }) do
      local env = environment.new({ kind = kind, shown = "x.lua", require = require })
      assert.equal(is_pure, env.pairs == ordered.pairs)
      assert.equal(is_pure, env.next == ordered.next)
    end
  end)
end)
