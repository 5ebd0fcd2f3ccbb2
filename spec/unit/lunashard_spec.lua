local lunashard = require("lunashard")

describe("the public table", function()
  it("has everything that the documentation names", function()
    for _, name in ipairs({
      "manager", "router", "open", "spawn", "gather", "sleep", "now", "event", "json", "bytea", "set_warn", "set_dns_servers",
      "stats",
    }) do
      assert.equal("function", type(lunashard[name]), name)
    end
    for _, name in ipairs({ "strategy", "aggregate", "errors", "ids" }) do
      assert.equal("table", type(lunashard[name]), name)
    end
    assert.is_truthy(lunashard.cache)
    assert.is_truthy(lunashard.version:find("^%d+%.%d+%.%d+$"))
  end)

  it("has a NULL that is not nil and is the one of JSON", function()
    assert.is_not_nil(lunashard.null)
    assert.equal(require("cjson").null, lunashard.null)
  end)

  it("names the nearest when something is not there", function()
    local ok, message = pcall(function() return lunashard.manger end)
    assert.is_false(ok)
    assert.is_truthy(message:find('"manager"', 1, true), message)
    assert.is_truthy(message:find("lunashard_spec.lua", 1, true), message)
  end)

  it("lets a script take the warnings and give them back", function()
    local seen = {}
    local before = lunashard.set_warn(function(message) seen[#seen + 1] = message end)
    require("lunashard.warn").emit("one line")
    lunashard.set_warn(before)
    assert.same({ "one line" }, seen)
  end)
end)
