local lunashard = require("lunashard")
local plugins = require("spec.support.plugins")
local policy = require("lunashard.policy")
local registry = require("lunashard.plugin.registry")

local ONE = { endpoint = "db1:5432", host = "db1", port = 5432 }
local TWO = { endpoint = "db2:5432", host = "db2", port = 5432 }

local manager, restore

local function open(folder, given)
  local options = { shards = { { shard_id = "s1", host = "127.0.0.1", port = 1, database = "d" } }, strategy = "hash",
    plugins = folder and folder.path }
  for name, value in pairs(given) do
    options[name] = value
  end
  manager = lunashard.manager(options)
  return manager
end

local function text(body, more)
  return ([[return { api = 1, kind = "policy", name = "calm", %s
    choose_primary = function(candidates, shard, options) %s end }]]):format(more or "", body)
end

describe("a policy", function()
  before_each(function()
    manager, restore = nil, lunashard.set_warn(function() end)
  end)

  after_each(function()
    if manager then
      manager:shutdown()
    end
    lunashard.set_warn(restore)
    plugins.clean()
  end)

  it("is named in the options in place of a function, with options of its own", function()
    for _, given in ipairs({ { "prefer", hosts = { "db2" } }, lunashard.policy.prefer({ hosts = { "db2:5432" } }) }) do
      open(nil, { choose_primary = given })
      assert.equal("db2:5432", manager.options.choose_primary({ ONE, TWO }, {}))
      assert.equal("db1:5432", manager.options.choose_primary({ ONE }, {}))
      manager:shutdown()
    end
    local fn = function() end
    assert.equal(fn, policy.handler(fn, "on_health"))
    assert.is_nil(policy.handler(nil, "on_health"))
  end)

  it("called prefer never takes a server that it is told not to take", function()
    local choose = policy.handler({ "prefer", hosts = { "db1", "db2" }, never = { "db1" } }, "choose_primary")
    assert.equal("db2:5432", choose({ ONE, TWO }))
    assert.is_false(choose({ ONE }))
    local _, message = policy.handler({ "prefer", host = { "db1" } }, "choose_primary")
    assert.equal("choose_primary: policy prefer: unknown option host; there are hosts and never", message)
    assert.matches("give hosts, never, or both", select(2, policy.handler("prefer", "choose_primary")))
  end)

  it("that cannot serve is refused where it is named", function()
    local folder = plugins.folder({ ["policies/calm.lua"] = text("return nil") })
    local function refused(expected, given)
      local ok, message = pcall(open, folder, given)
      assert.is_false(ok)
      assert.truthy(message:find(expected, 1, true), message)
      assert.is_nil(registry.get("policy", "calm"))
    end
    refused("choose_primary: expected a function, or a policy", { choose_primary = 5 })
    refused('choose_primary: unknown policy "clam"; did you mean "calm"?', { choose_primary = "clam" })
    refused("on_health: policy calm has no function on_health", { on_health = "calm" })
    folder:write("policies/calm.lua", text("", "new = function() error('no such host') end,"))
    refused("plugins/policies/calm.lua:1: no such host", { choose_primary = "calm" })
    assert.error_matches(function() return lunashard.policy.none end, 'unknown policy "none"')
  end)

  it("is called in its present version, and stays while it is in use", function()
    local folder = plugins.folder({ ["policies/calm.lua"] = text("return options.first", "new = function(options) "
      .. "return { first = options.endpoint } end,") })
    open(folder, { choose_primary = { "calm", endpoint = "a" } })
    local choose = manager.options.choose_primary
    assert.equal("a", choose({ ONE }, {}))
    folder:write("policies/calm.lua", text("return 'b' .. options.endpoint"))
    assert(lunashard.reload())
    assert.equal("ba", choose({ ONE }, {}))
    folder:write("policies/calm.lua", text("return 'c'", "new = function() error('broken') end,"))
    local _, err = lunashard.reload()
    assert.equal("PLUGIN_FAILED", err.code)
    assert.equal("ba", choose({ ONE }, {}))
    folder:remove("policies/calm.lua")
    assert.equal("kept", lunashard.reload()[1].action)
    assert.equal("ba", choose({ ONE }, {}))
    assert(manager:reload({ shards = { { shard_id = "s1", host = "127.0.0.1", port = 1, database = "d" } },
      strategy = "hash", plugins = folder.path, choose_primary = { "prefer", never = { "db1" } } }))
    assert.is_false(manager.options.choose_primary({ ONE }, {}))
    assert.equal("removed", lunashard.reload()[1].action)
  end)
end)
