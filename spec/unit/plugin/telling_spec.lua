local budget = require("lunashard.plugin.budget")
local core = require("lunashard.core.placement")
local samples = require("lunashard.plugin.samples")
local strategy = require("lunashard.strategy")
local telling = require("lunashard.plugin.telling")

local SHARDS = { { shard_id = "s1" }, { shard_id = "s2" } }

local function define(fields)
  local contract = { api = 1, kind = "strategy", name = "telling_spec", new = function(options) return options end,
    route = function() return "s1" end }
  for name, value in pairs(fields) do
    contract[name] = value
  end
  strategy.register(contract)
end

local function named(key_type, options)
  local set = {}
  local given = { "telling_spec" }
  for name, value in pairs(options or {}) do
    given[name] = value
  end
  for _, key in ipairs(telling.keys(strategy.bind(given, SHARDS, { key_type = key_type }), key_type)) do
    set[samples.describe(key)] = true
  end
  return set
end

describe("the keys that a strategy names", function()
  it("are found in tables it closes over, deep inside, as keys and as values", function()
    local tenants = { [5000001] = "s2", big = { list = { 7000001, "8000001" } } }
    define({ route = function(_, key) return tenants[key] or "s1" end })
    local set = named("int8")
    for _, key in ipairs({ "5000001", "7000001", "8000001" }) do
      assert.is_true(set[key], key)
    end
  end)

  it("are found in its options and its state", function()
    define({ new = function() return { ids = { 222222 } } end })
    local set = named("int8", { first = 111111 })
    for _, key in ipairs({ "111111", "222222" }) do
      assert.is_true(set[key], key)
    end
  end)

  it("are found in its code, with their neighbours, inner functions and small numbers among them", function()
    define({
      route = function(_, key)
        local function is_old(id)
          return id < 1234567
        end
        if key < 300 then
          return "s2"
        end
        local special = { [4444444] = "s2" }
        return (is_old(key) or key == 9007199254740993LL) and "s2" or special[key] or "s1"
      end,
    })
    local set = named("int8")
    for _, key in ipairs({ "1234566", "1234567", "1234568", "299", "300", "4444444", "9007199254740993LL" }) do
      assert.is_true(set[key], key)
    end
  end)

  it("are found in functions that are called within limits", function()
    local tenants = { [5000001] = "s2" }
    local contract = budget.wrap({ api = 1, kind = "strategy", name = "telling_spec", new = function() return {} end,
      route = function(_, key)
        return key == 6000001 and "s2" or tenants[key] or "s1"
      end })
    strategy.register(contract)
    local set = named("int8")
    assert.is_true(set["5000001"] and set["6000001"])
  end)

  it("are not what our own code holds", function()
    define({ route = budget.wrap })
    local set = named("text")
    assert.is_nil(set['"defaults"'])
    assert.is_nil(set['"lunashard.core.budget"'])
  end)

  it("are texts for a text key, and what begins with them", function()
    define({
      route = function(_, key)
        return (key == "acme" or key:find("^vip_")) and "s2" or "s1"
      end,
    })
    local set = named("text")
    for _, key in ipairs({ '"acme"', '"acme1"', '"vip_"', '"vip_1"' }) do
      assert.is_true(set[key], key)
    end
  end)

  it("are found by parts of a text: its end, its length, a letter", function()
    define({
      route = function(_, key)
        return (key:find("%.de$") or #key > 77 or key:byte(1) == 94) and "s2" or "s1"
      end,
    })
    local set = named("text")
    for _, key in ipairs({ '"a.de"', '"^"', '"' .. ("x"):rep(57) .. '..."' }) do
      assert.is_true(set[key], key)
    end
  end)

  it("are found by parts of a number, a date and a UUID", function()
    local tenants = { [4242] = "s2" }
    define({ route = function(_, key) return tenants[math.floor(tonumber(key) / 1000000)] or "s1" end })
    assert.is_true(named("int8")["4242000000"])
    define({ route = function(_, key) return (key:sub(1, 4) < "1987" or key > "2031-03-01") and "s2" or "s1" end })
    local set = named("date")
    for _, key in ipairs({ "1986-12-31", "1987-01-01", "2031-02-28", "2031-03-01", "2031-03-02" }) do
      assert.is_true(set['"' .. key .. '"'], key)
    end
    define({ route = function(_, key) return key:sub(1, 4) == "beef" and "s2" or "s1" end })
    assert.is_true(named("uuid")['"beef0000-0000-0000-0000-000000000000"'])
  end)

  it("are only those that can be keys of the type", function()
    define({ new = function()
      return { "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "2024-02-29", "2024-02-30", "text" }
    end })
    assert.is_true(named("uuid")['"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'])
    local dates = named("date")
    assert.is_true(dates['"2024-02-29"'])
    assert.is_nil(dates['"2024-02-30"'])
    for key in pairs(dates) do
      assert.is_truthy(core.canonical("date", key:sub(2, -2)), key)
    end
  end)

  it("are found for each column of a composite key", function()
    define({ new = function() return { "acme", 77777 } end })
    local bound = strategy.bind({ "telling_spec", shard_key = { "a", "b" } }, SHARDS, { key_type = { "int8", "text" } })
    local first, second
    for _, key in ipairs(telling.keys(bound, { "int8", "text" })) do
      first = first or key[1] == 77777
      second = second or key[2] == "acme"
    end
    assert.is_true(first and second)
  end)

  it("are those of the members of a strategy, too", function()
    local tenants = { [5000001] = "s2" }
    define({ route = function(_, key) return tenants[key] or "s1" end })
    local bound = strategy.bind({ "first_of", { "pins", [6000001] = "s1" }, "telling_spec" }, SHARDS)
    local set = {}
    for _, key in ipairs(telling.keys(bound, "int8")) do
      set[key] = true
    end
    assert.is_true(set[5000001] and set[6000001])
  end)

  it("are found in tables of any size and shape, in bounded time", function()
    local endless, many = {}, {}
    endless.self, endless[endless] = endless, { endless }
    for i = 1, 100000 do
      many[i] = i * 1000
    end
    define({ new = function()
      return { endless, many, setmetatable({ 12345 }, { __index = error, __pairs = error }) }
    end })
    assert.is_true(#telling.values(strategy.bind("telling_spec", SHARDS)) <= 4096)
  end)
end)
