local contract = require("lunashard.plugin.contract")
local registry = require("lunashard.plugin.registry")

local function strategy(more)
  local value = { api = 1, kind = "strategy", name = "tier", new = print, bucket = print, place = print }
  for name, field in pairs(more) do
    value[name] = field
  end
  return value
end

-- The message of the violation.
local function violation(...)
  local ok, message = contract.check(...)
  assert.is_nil(ok)
  assert.is_nil(message:find("\n", 1, true))
  return message
end

describe("plug-in contracts", function()
  it("are kept by every plug-in that we ship", function()
    for _, kind in ipairs(contract.kinds) do
      for _, name in ipairs(registry.names(kind)) do
        local entry = registry.get(kind, name)
        if entry.source == registry.BUILT_IN then
          assert(contract.check(kind, entry.contract, nil, true))
          assert.equal(name, entry.contract.name)
        end
      end
    end
    assert.truthy(registry.get("strategy", "hash").contract.bucket)
  end)

  it("take a strategy with bucket and place, or with route", function()
    assert.is_true(contract.check("strategy", strategy({})))
    assert.is_true(contract.check(nil, strategy({})))
    assert.is_true(contract.check("strategy", { api = 1, kind = "strategy", name = "x", new = print, route = print }))
  end)

  it("take reducers, whole-result aggregates, extractors and policies", function()
    assert.is_true(contract.check(nil, { api = 1, kind = "aggregate", name = "x", aggregate = print }))
    assert.is_true(contract.check(nil, { api = 1, kind = "aggregate", name = "x", init = print, step = print, merge = print,
      finish = print, returns = "row" }))
    assert.is_true(contract.check(nil, { api = 1, kind = "extractor", name = "x", extract = print }))
    assert.is_true(contract.check(nil, { api = 1, kind = "policy", name = "x", on_health = print }))
    assert.is_true(contract.check(nil, { api = 1, kind = "policy", name = "x", choose_primary = print, new = print }))
  end)

  it("say of each violation which field it is, what was expected and what came", function()
    local cases = {
      { 5, "strategy plug-in: expected the file to return a table with api = 1, kind and name, got 5" },
      { strategy({ api = 2 }), "strategy plug-in: api: expected 1 (as in api = 1), got 2" },
      { strategy({ kind = "startegy" }), 'kind: expected "strategy", got "startegy"; did you mean "strategy"?' },
      { strategy({ kind = "policy" }), 'strategy plug-in: kind: expected "strategy", got "policy"' },
      { strategy({ name = "a b" }), 'name: expected an identifier (letters, digits and _, at most 63), got "a b"' },
      { strategy({ bucket = 7 }), "strategy tier: bucket: expected a function (bucket(state, key) -> integer or short text" },
      { strategy({ options = { "a", 2 } }), "strategy tier: options: expected a list of texts" },
      { strategy({ bukcet = print }), 'strategy tier: bukcet: no such field; did you mean "bucket"?' },
      { strategy({ shards_for_range = print }), "shards_for_range: no such field" },
      { setmetatable(strategy({}), {}), "got one with a metatable" },
      { { api = 1, kind = "strategy", name = "x", new = print, bucket = print },
        "strategy x: place: expected a function (place(state, bucket, shards) -> shard_id), got nothing; "
          .. "it needs the functions bucket and place, or route" },
    }
    for _, case in ipairs(cases) do
      local message = violation("strategy", case[1])
      assert.truthy(message:find(case[2], 1, true), message)
    end
    assert.truthy(violation(nil, { api = 1, kind = "x", name = "y" }):find("one of aggregate, extractor, policy, strategy", 1,
      true))
    assert.truthy(violation(nil, { api = 1, kind = "aggregate", name = "y", init = print, finish = print }):find(
      "step: expected a function (merge", 1, true) == nil)
  end)

  it("name the file and the line of the field, or of the return", function()
    local text = table.concat({
      "-- bucket = 1 in a comment",
      "local plugin = { api = 1, kind = 'strategy', name = 'tier' }",
      "function plugin.new() end",
      "plugin.bucket = 'no function'",
      "plugin.place = plugin.new",
      "return plugin",
    }, "\n")
    local value = assert(loadstring(text))()
    assert.matches("^plugins/tier.lua:4: strategy tier: bucket: expected a function",
      violation("strategy", value, { path = "plugins/tier.lua", text = text }))
    value.bucket, value.place = print, nil
    assert.matches("^plugins/tier.lua:5: strategy tier: place",
      violation("strategy", value, { path = "plugins/tier.lua", text = text }))
    value.new, value.place = nil, print
    assert.matches("^plugins/tier.lua:3: strategy tier: new",
      violation("strategy", value, { path = "plugins/tier.lua", text = text }))
    assert.matches("^x.lua:2: strategy plug%-in: expected the file to return a table",
      violation("strategy", nil, { path = "x.lua", text = "local x = 1\nreturn x" }))
    assert.matches("^nowhere.lua: strategy tier: new", violation("strategy", value, "nowhere.lua"))
  end)
end)

describe("the registry of plug-ins", function()
  after_each(function()
    registry.remove("aggregate", "of_mine")
  end)

  local function mine()
    return { api = 1, kind = "aggregate", name = "of_mine", aggregate = function() return {} end }
  end

  it("has ours and the users' by kind and name", function()
    local entry = registry.set("aggregate", mine(), { source = "plugins/of_mine.lua", generation = 3 })
    assert.equal(entry, registry.get("aggregate", "of_mine"))
    assert.equal(3, entry.generation)
    assert.equal("active", entry.state)
    assert.equal("built-in", registry.get("aggregate", "sum").source)
    assert.is_nil(registry.get("strategy", "of_mine"))
    assert.truthy(table.concat(registry.names("aggregate"), " "):find("min of_mine percentile", 1, true))
    assert.equal('unknown aggregate "off_mine"; did you mean "of_mine"?', registry.unknown("aggregate", "off_mine"))
  end)

  it("gives a new version its place, and the old one to whoever holds it", function()
    local first = registry.set("aggregate", mine())
    local second = registry.set("aggregate", mine())
    assert.equal(second, registry.get("aggregate", "of_mine"))
    assert.not_equal(first.contract, second.contract)
  end)

  it("lets a version be tried that nobody else sees, whatever happens", function()
    local first = registry.set("aggregate", mine())
    local second = registry.entry(mine())
    local ok, seen = registry.staged(second, function() return registry.get("aggregate", "of_mine") end)
    assert.is_true(ok)
    assert.equal(second, seen)
    assert.is_false((registry.staged(second, error, "no")))
    assert.equal(first, registry.get("aggregate", "of_mine"))
  end)
end)
