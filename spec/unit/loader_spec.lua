local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local plugins = require("spec.support.plugins")
local registry = require("lunashard.plugin.registry")
local system = require("lunashard.core.system")

local managers, warnings, restore = {}, {}, nil

-- A manager that connects nowhere, on a folder of plug-ins.
local function open(folder, given)
  local options = { shards = {}, plugins = folder.path, plugin_time = 0.05,
    strategy = { "tier", shard_key = "id", key_type = "int8" } }
  for i = 1, 3 do
    options.shards[i] = { shard_id = "s" .. i, host = "127.0.0.1", port = i, database = "d" }
  end
  for name, value in pairs(given or {}) do
    options[name] = value
  end
  local manager = lunashard.manager(options)
  managers[#managers + 1] = manager
  return manager
end

local function routes(manager)
  local list = {}
  for key = 1, 30 do
    list[key] = manager:get_shard_for_write(key).shard_id
  end
  return table.concat(list, " ")
end

local function plugin(manager, name)
  for _, one in ipairs(manager:get_cluster_status().plugins) do
    if one.name == name or one.path:find("/" .. name .. "%.lua$") then
      return one
    end
  end
end

-- A reload that is refused, and leaves everything as it was.
local function refused(manager, expected, code)
  local before, generation = manager.strategy, plugin(manager, "tier").generation
  local events, err = lunashard.reload()
  assert.is_nil(events)
  assert.equal(code or "PLUGIN_FAILED", err.code)
  assert.truthy(err.message:find(expected, 1, true), err.message)
  assert.is_nil(plugin(manager, "tier").problem:find("%c"))
  assert.is_nil(warnings[#warnings]:find("%c"))
  assert.equal(before, manager.strategy)
  assert.equal(generation, plugin(manager, "tier").generation)
  assert.truthy(plugin(manager, "tier").problem:find(expected, 1, true))
  return err
end

describe("the loader of plug-ins", function()
  before_each(function()
    managers, warnings = {}, {}
    restore = lunashard.set_warn(function(line) warnings[#warnings + 1] = line end)
  end)

  after_each(function()
    for _, manager in ipairs(managers) do
      manager:shutdown()
    end
    lunashard.set_warn(restore)
    plugins.clean()
  end)

  it("makes plug-ins known by their names, each kind in its folder, beside the shipped ones", function()
    local folder = plugins.folder({
      ["strategies/tier.lua"] = plugins.strategy(),
      ["aggregates/how_many.lua"] = [[return { api = 1, kind = "aggregate", name = "how_many", returns = "row",
        init = function() return { n = 0 } end, step = function(acc) acc.n = acc.n + 1 return acc end,
        merge = function(a, b) a.n = a.n + b.n return a end, finish = function(acc) return { n = acc.n } end }]],
      ["extractors/always.lua"] = [[return { api = 1, kind = "extractor", name = "always",
        extract = function() return 7 end }]],
      ["policies/calm.lua"] = [[return { api = 1, kind = "policy", name = "calm", on_health = function() end }]],
      ["any.lua"] = plugins.strategy({ name = "any" }),
      [".hidden.lua"] = "error('x')", ["strategies/tier.lua~"] = "error('x')", ["strategies/tier_spec.lua"] = "error('x')",
    })
    local manager = open(folder)
    assert.equal("tier", manager.strategy.name)
    assert.same({ n = 2 }, lunashard.aggregate.how_many()({ { success = true, rows = { {}, {} } } }))
    assert.equal("any", lunashard.strategy.any({ shards = { { shard_id = "a" } } }).name)
    assert.equal(folder.path .. "/policies/calm.lua", registry.get("policy", "calm").source)
    assert.equal(7, registry.get("extractor", "always").contract.extract())
    assert.equal(5, #manager:get_cluster_status().plugins)
    assert.same({}, warnings)
    assert.same({ path = folder.path .. "/strategies/tier.lua", kind = "strategy", name = "tier", generation = 1,
      trusted = false, failures = 0, state = "active" }, plugin(manager, "tier"))
  end)

  it("is one for a folder, whose limits are the same for all", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local tasks = {}
    for i = 1, 3 do
      tasks[i] = lunashard.spawn(function() return open(folder).plugins end)
    end
    local _, first = tasks[1]:join()
    for i = 2, 3 do
      assert.equal(first, select(2, tasks[i]:join()))
    end
    for _, manager in ipairs(managers) do
      manager:shutdown()
    end
    local failing = {}
    for i = 1, 3 do -- the first is given up while the others wait for it
      failing[i] = lunashard.spawn(function()
        return open(folder, { strategy = i == 1 and { "tier", key_type = "int9" } or nil })
      end):watch()
    end
    assert.is_nil((failing[1]:join()))
    local _, second = assert(failing[2]:join())
    local _, third = assert(failing[3]:join())
    assert.equal(second.plugins, third.plugins)
    assert.is_nil(second.plugins.closed)
    assert.equal(1, plugin(second, "tier").generation)
    assert.error_matches(function() open(folder, { plugin_time = 0.03 }) end, "in use already, with other limits")
    assert.error_matches(function() open(folder, { trusted_plugins = { "tier" } }) end, "in use already, with other limits")
  end)

  it("calls those that are trusted as they are", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local manager = open(folder, { trusted_plugins = { "tier" } })
    assert.is_true(plugin(manager, "tier").trusted)
    assert.matches("^@plugins/strategies/tier.lua$", debug.getinfo(manager.strategy.plugin.bucket, "S").source)
    folder:write("strategies/tier.lua", plugins.strategy({ bucket = "return treshold" }))
    refused(manager, "there is no global treshold")
  end)

  it("warns of a name in trusted_plugins that no file has", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    open(folder, { trusted_plugins = { "teir" } })
    assert.same({ ('trusted_plugins: there is no file teir.lua in %s; did you mean "tier"?'):format(folder.path) }, warnings)
  end)

  it("forgets them with the last manager that uses the folder", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local one, two = open(folder), open(folder)
    one:shutdown()
    assert.truthy(registry.get("strategy", "tier"))
    two:shutdown()
    assert.is_nil(registry.get("strategy", "tier"))
    assert.error_matches(function() open(plugins.folder()) end, 'unknown strategy "tier"')
  end)

  it("puts a new version in the place of the old one, in every manager that uses it, members included", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local one = open(folder)
    local two = open(folder, { strategy = { "first_of", { "pins", entries = { [1] = "s3" } }, { "tier" }, key_type = "int8" } })
    local before, before_two, expected = one.strategy, two.strategy, routes(one)
    folder:write("strategies/tier.lua", plugins.strategy({ head = "-- another text" }))
    local events = assert(lunashard.reload())
    assert.equal(1, #events)
    assert.equal("reloaded", events[1].action)
    assert.equal("plugins/strategies/tier.lua: strategy tier reloaded (generation 2)", events[1].message)
    assert.same({ events[1].message }, warnings)
    assert.not_equal(before, one.strategy)
    assert.not_equal(before_two, two.strategy)
    assert.equal(one.strategy, one.strategies.default)
    assert.equal(registry.get("strategy", "tier"), one.strategy.entry)
    assert.equal(registry.get("strategy", "tier"), two.strategy.state.members[2].entry)
    assert.equal(2, plugin(one, "tier").generation)
    assert.equal(expected, routes(one))
    assert.equal("s3", two:get_shard_for_write(1).shard_id)
    assert.equal(expected:match("^%S+"), (before:route(1))) -- whoever holds the old one goes on with it
    assert.same({}, assert(lunashard.reload())) -- nothing changed
  end)

  it("leaves the old version serving whatever is wrong with the new one", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local manager = open(folder)
    local expected = routes(manager)
    local cases = {
      { "return {", "plugins/strategies/tier.lua:1: unexpected symbol" },
      { "local x\nreturn x.y", "plugins/strategies/tier.lua:2: attempt to index" },
      { "", "plugins/strategies/tier.lua:1: strategy plug-in: expected the file to return a table" },
      { "return { api = 1, kind = 'strategy', name = 'tier' }", "tier.lua:1: strategy tier: new: expected a function" },
      { plugins.strategy({ name = "hash" }), '"hash" is a shipped one: choose another name' },
      { plugins.strategy({ more = "options = 'a\\nb\\27[2J'," }), "tier.lua:7: strategy tier: options: expected a list" },
      { "error('a\\nb\\27[2J')", "tier.lua:1: a b [2J" },
      { plugins.strategy({ name = "other" }), "it is strategy other now, but strategy tier is in use" },
      { plugins.strategy({ place = "return 's9'" }), 'placed a key on "s9", which is no shard' },
      { plugins.strategy({ place = "return nil" }), "strategy tier: self-test" },
      { plugins.strategy({ bucket = "return 0/0" }), "strategy tier: self-test" },
      { plugins.strategy({ bucket = "coroutine.yield()" }), "yield" },
      { plugins.strategy({ bucket = "state.n = state.n + 1 return state.n % 3" }), "the answer may depend on nothing but" },
      { plugins.strategy({ new = "error('no such option')" }), "plugins/strategies/tier.lua:4: no such option" },
      { plugins.strategy({ place = "os.exit(3)" }), "plugins/strategies/tier.lua:6: there is no global os" },
      { "while true do end", "tier.lua: ran longer than " },
      { "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(2^20) .. i end", "and was stopped" },
      { "return string.rep('x', 2147483647)", "tier.lua: took more than " },
      { "local function f() return f() + 1 end return f()", "stack overflow" },
      { "coroutine.yield()", "a plug-in cannot wait" },
      { plugins.strategy({ bucket = "while true do end" }), "bucket: ran longer than " },
      { plugins.strategy({ bucket = "return #(('a'):rep(30) .. key):find(('a?'):rep(30) .. ('a'):rep(30) .. 'b')" }),
        "strategy tier: self-test" },
      { plugins.strategy({ new = "return setmetatable({}, { __index = error })", bucket = "return state.n" }),
        "strategy tier: self-test" },
      { string.dump(loadstring("return 1")), "is compiled code" },
      { "--" .. ("x"):rep(10 * 1024 * 1024), "a plug-in has at most 1048576" },
    }
    for _, case in ipairs(cases) do
      folder:write("strategies/tier.lua", case[1])
      refused(manager, case[2])
      assert.equal(expected, routes(manager))
    end
    folder:write("strategies/tier.lua", plugins.strategy())
    assert(lunashard.reload())
    assert.is_nil(plugin(manager, "tier").problem)
    assert.equal(2, plugin(manager, "tier").generation)
    assert.equal("active", plugin(manager, "tier").state)
  end)

  it("refuses a version that would look for keys elsewhere, unless told that there are no rows", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local manager = open(folder)
    folder:write("strategies/tier.lua", plugins.strategy({ place = "return shards[1].shard_id" }))
    local err = refused(manager, "plugins/strategies/tier.lua would send ", "PLACEMENT_CHANGED")
    assert.is_true(err.movement.moved > 0)
    assert.is_nil((lunashard.reload())) -- by hand it is tried again, and refused again
    local events = assert(lunashard.reload({ path = "plugins/strategies/tier.lua", allow_placement_change = true }))
    assert.equal("reloaded", events[1].action)
    assert.is_nil(routes(manager):find("s[23]"))
    assert.same({}, manager:get_cluster_status().alerts)
  end)

  it("tells of a file that fails, once, and goes on with the others", function()
    local folder = plugins.folder({
      ["strategies/tier.lua"] = plugins.strategy(),
      ["aggregates/bad.lua"] = "return {",
      ["strategies/stray.lua"] = "return { limit = 5 }",
    })
    local manager = open(folder)
    assert.equal(2, #warnings)
    assert.matches("^plugins/aggregates/bad.lua:1: ", warnings[1])
    assert.matches("^plugins/strategies/stray.lua: expected the file to return a plug%-in", warnings[2])
    assert.equal("failed", plugin(manager, "bad").state)
    local alerts = manager:get_cluster_status().alerts
    assert.equal("plugin", alerts[1].kind)
    assert.equal(warnings[1], alerts[1].message)
    manager.plugins:look({})
    assert.equal(2, #warnings)
    local ok, message = pcall(open, folder, { strategy = "bad" })
    assert.is_false(ok)
    assert.truthy(message:find('unknown strategy "bad"', 1, true))
    assert.truthy(message:find("(plugins/aggregates/bad.lua:1: ", 1, true), message)
  end)

  it("loads anew what requires a file that has changed, and tries again when a missing one appears", function()
    local folder = plugins.folder({
      ["strategies/tier.lua"] = plugins.strategy({ head = "local tiers = require 'tiers'", more = "options = tiers" }),
      ["strategies/tiers.lua"] = "return { 'a' }",
    })
    local manager = open(folder)
    assert.same({}, warnings) -- a required file is no broken plug-in
    folder:write("strategies/tiers.lua", "return { 'a', 'b' }")
    assert.equal("plugins/strategies/tier.lua: strategy tier reloaded (generation 2)", lunashard.reload()[1].message)
    assert.same({ "a", "b" }, registry.get("strategy", "tier").contract.options)
    folder:write("strategies/tiers.lua", "return {")
    local err = refused(manager, "plugins/strategies/tiers.lua:1: ")
    assert.equal(2, #err.events)
    folder:remove("strategies/tiers.lua")
    refused(manager, "there is no file tiers.lua")
    folder:write("tiers.lua", "return {}")
    manager.plugins:look({})
    assert.equal(3, plugin(manager, "tier").generation)
  end)

  it("unloads a plug-in whose file is gone, but never one that is in use", function()
    local folder = plugins.folder({
      ["strategies/tier.lua"] = plugins.strategy(),
      ["strategies/spare.lua"] = plugins.strategy({ name = "spare" }),
    })
    local manager = open(folder)
    local expected = routes(manager)
    folder:remove("strategies")
    local events = assert(lunashard.reload())
    assert.equal(2, #events)
    assert.equal("removed", events[1].action)
    assert.equal("kept", events[2].action)
    assert.matches("the file was removed, but strategy tier is in use; generation 1 goes on serving", events[2].message)
    assert.is_nil(registry.get("strategy", "spare"))
    assert.equal("missing", plugin(manager, "tier").state)
    assert.equal(expected, routes(manager))
    assert.same({}, assert(lunashard.reload()))
    folder:write("strategies/tier.lua", plugins.strategy())
    assert(lunashard.reload())
    assert.equal("active", plugin(manager, "tier").state)
    assert.equal(2, plugin(manager, "tier").generation)
    assert(manager:reload({ shards = { { shard_id = "s1", host = "127.0.0.1", port = 1, database = "d" } },
      strategy = "hash", plugins = folder.path, plugin_time = 0.05 }, { allow_placement_change = true }))
    folder:remove("strategies/tier.lua")
    assert.equal("removed", lunashard.reload()[1].action)
    assert.is_nil(registry.get("strategy", "tier"))
  end)

  it("gives a plug-in another name when nobody uses the old one", function()
    local folder = plugins.folder({
      ["strategies/tier.lua"] = plugins.strategy(),
      ["strategies/spare.lua"] = plugins.strategy({ name = "spare" }),
    })
    open(folder)
    folder:write("strategies/spare.lua", plugins.strategy({ name = "extra" }))
    assert(lunashard.reload())
    assert.is_nil(registry.get("strategy", "spare"))
    assert.truthy(registry.get("strategy", "extra"))
    folder:write("strategies/more.lua", plugins.strategy({ name = "extra" }))
    local _, err = lunashard.reload()
    assert.truthy(err.message:find("strategies/more.lua: strategy extra is the plug-in of plugins/strategies/spare.lua",
      1, true), err.message)
  end)

  it("hands a copy of the old state to upgrade", function()
    local text = plugins.strategy({
      bucket = "return 1",
      new = "return { n = #shards, born = BORN, mark = {} }",
      more = "upgrade = function(old, new) old.mark.seen = true new.before = old.born new.mark = old.mark return new end",
    })
    local folder = plugins.folder({ ["strategies/tier.lua"] = (text:gsub("BORN", 1)) })
    local manager = open(folder)
    local first = manager.strategy
    assert.is_nil(first.state.before)
    folder:write("strategies/tier.lua", (text:gsub("BORN", 2)))
    assert(lunashard.reload())
    assert.equal(1, manager.strategy.state.before)
    assert.same({ seen = true }, manager.strategy.state.mark)
    assert.same({}, first.state.mark)
    folder:write("strategies/tier.lua", (text:gsub("BORN", 3):gsub("old.mark.seen = true", "error('cannot')")))
    refused(manager, "cannot")
  end)

  it("asks no directory when only a plug-in beside it changes, and keeps what that has looked up", function()
    local asked = 0
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local manager = open(folder, { strategy = lunashard.strategy.first_of({
      lunashard.strategy.directory({ lookup = function(key)
        asked = asked + 1
        return key == 5 and "s2" or nil
      end }), "tier", key_type = "int8" }) })
    assert.equal("s2", manager:get_shard_for_write(5).shard_id)
    assert.equal(1, asked)
    folder:write("strategies/tier.lua", plugins.strategy({ head = "-- another text" }))
    assert(lunashard.reload())
    assert.equal(2, plugin(manager, "tier").generation)
    assert.equal("s2", manager:get_shard_for_write(5).shard_id)
    assert.equal(1, asked)
    folder:write("strategies/tier.lua", plugins.strategy({ place = "return shards[1].shard_id" }))
    assert.equal("PLACEMENT_CHANGED", select(2, lunashard.reload()).code)
    folder:write("strategies/tier.lua", plugins.strategy({ bucket = "if key == 5 then return nil, 'none' end "
      .. "return lunashard.hash(key, 64)" }))
    assert(lunashard.reload()) -- the directory has that key
    assert.equal("s2", manager:get_shard_for_write(5).shard_id)
  end)

  it("knows of the extractors that are in use, those of routers and in lists included", function()
    local text = [[return { api = 1, kind = "extractor", name = "mine", new = function(n) if n ~= %d then error("no " .. n) end
      return n end, extract = function(_, params, n) return params and params[n], "no parameter" end }]]
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy(),
      ["extractors/mine.lua"] = text:format(2) })
    local manager = open(folder)
    local router = lunashard.router({ shard_manager = manager,
      extractor = lunashard.extractor.first_of({ "by_comment", lunashard.extractor.mine(2) }) })
    folder:write("extractors/mine.lua", text:format(3))
    local _, err = lunashard.reload()
    assert.equal("PLUGIN_FAILED", err.code)
    assert.matches("plugins/extractors/mine.lua:1: no 2", err.message)
    folder:remove("extractors/mine.lua")
    assert.equal("kept", lunashard.reload()[1].action)
    router.extractor = nil
    assert.equal("removed", lunashard.reload()[1].action)
    folder:write("extractors/mine.lua", text:format(2))
    assert(lunashard.reload())
    manager.options.extractor = { "mine", 2 }
    folder:remove("extractors/mine.lua")
    assert.equal("kept", lunashard.reload()[1].action)
  end)

  it("finds keys with the present version of an extractor, also for statements that were seen before", function()
    local text = [[return { api = 1, kind = "extractor", name = "mine",
      extract = function(_, params) return params and params[%d], "no parameter" end }]]
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy(),
      ["extractors/mine.lua"] = text:format(1) })
    local manager = open(folder, { extractor = "mine" })
    local router = lunashard.router(manager)
    local function shard_of(params)
      return assert(router:explain("SELECT lower($2) FROM users WHERE name = $1", params)).shards[1]
    end
    local one = manager:get_shard_for_write(1).shard_id
    local other = 2
    while manager:get_shard_for_write(other).shard_id == one do
      other = other + 1
    end
    assert.equal(one, shard_of({ 1, other }))
    folder:write("extractors/mine.lua", text:format(2))
    assert(lunashard.reload())
    assert.equal(manager:get_shard_for_write(other).shard_id, shard_of({ 1, other }))
  end)

  it("lets an aggregate that is held be used in its present version, also inside a chain", function()
    local text = [[return { api = 1, kind = "aggregate", name = "how_many", returns = "row",
      new = function(name) if name == "%s" then error("not this one") end return { name = name } end,
      init = function(options) return { name = options.name, n = 0 } end,
      step = function(acc) acc.n = acc.n + %d return acc end,
      merge = function(a, b) a.n = a.n + b.n return a end,
      finish = function(acc) return { [acc.name] = acc.n } end }]]
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy(),
      ["aggregates/how_many.lua"] = text:format("", 1) })
    open(folder)
    local aggregate = lunashard.aggregate
    local held, results = aggregate.how_many("rows"), { { success = true, rows = { {}, {} } } }
    local chain, sum = aggregate.chain({ held, aggregate.limit(1) }), aggregate.sum("n")
    assert.equal(held, aggregate.present(held))
    assert.equal(sum, aggregate.present(sum))
    folder:write("aggregates/how_many.lua", text:format("", 10))
    assert(lunashard.reload())
    assert.same({ rows = 2 }, held(results)) -- what runs ends with what it began with
    assert.same({ rows = 20 }, aggregate.present(held)(results))
    assert.same({ { rows = 20 } }, aggregate.present(chain)(results))
    assert.equal(print, aggregate.present(print))
    folder:write("aggregates/how_many.lua", text:format("rows", 10))
    assert(lunashard.reload())
    assert.equal(held, aggregate.present(held))
  end)

  it("refuses an aggregate whose result depends on how rows are dealt out", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy(),
      ["aggregates/bad.lua"] = [[return { api = 1, kind = "aggregate", name = "bad", init = function() return { n = 0 } end,
        step = function(acc) acc.n = acc.n + 1 return acc end, merge = function(a) return a end,
        finish = function(acc) return { n = acc.n } end }]] })
    local manager = open(folder)
    assert.equal("failed", plugin(manager, "bad").state)
    assert.matches("^plugins/aggregates/bad.lua: aggregate bad: self%-test: ", plugin(manager, "bad").problem)
    assert.is_nil(registry.get("aggregate", "bad"))
  end)

  it("keeps shards and options from what a plug-in does to them", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy({
      new = "shards[1].shard_id = 'x' options.list[1] = 'y' return { n = #shards }",
      place = "shards[4] = { shard_id = 'z' } return shards[bucket % state.n + 1].shard_id",
    }) })
    local list = { "a" }
    local manager = open(folder, { strategy = { "tier", key_type = "int8", list = list } })
    assert.equal("s1", manager.strategy.shards[1].shard_id)
    assert.equal(3, #manager.strategy.shards)
    assert.same({ "a" }, list)
  end)

  describe("with a version that fails again and again", function()
    -- Fails for the key 87112 alone, which no sample has and no constant tells.
    local function failing(head)
      return plugins.strategy({ head = head, bucket = "if key % 7919 == 3 and math.floor(key / 7919) == 11 then "
        .. "error('cannot') end return lunashard.hash(key, 64)" })
    end

    local function wait_for(state, manager)
      for _ = 1, 1000 do
        if plugin(manager, "tier").state == state then
          return
        end
        lunashard.sleep(0.005)
      end
      error("waited in vain for " .. state .. ", it is " .. plugin(manager, "tier").state)
    end

    local function fail(manager, times)
      for _ = 1, times do
        local _, err = manager:get_shard_for_write(87112)
        assert.equal("PLUGIN_FAILED", err.code)
      end
    end

    it("goes back to the one before it, and says so", function()
      local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
      local manager = open(folder, { max_plugin_failures = 3 })
      local expected = routes(manager)
      folder:write("strategies/tier.lua", failing("-- two"))
      assert(lunashard.reload())
      fail(manager, 2)
      routes(manager)
      fail(manager, 2) -- others succeeded in between
      lunashard.sleep(0)
      assert.equal("active", plugin(manager, "tier").state)
      fail(manager, 3)
      wait_for("tripped", manager)
      assert(manager:get_shard_for_write(87112))
      assert.equal(expected, routes(manager))
      assert.equal(1, plugin(manager, "tier").generation)
      assert.matches("failed 5 times in a row.* back to generation 1$", warnings[#warnings])
      assert.matches("failed 5 times in a row", manager:get_cluster_status().alerts[1].message)
      folder:write("strategies/tier.lua", plugins.strategy({ head = "-- three" }))
      assert(lunashard.reload())
      assert.equal(3, plugin(manager, "tier").generation)
      assert.equal("active", plugin(manager, "tier").state)
    end)

    it("goes on with it, with an alarm, when there is none to go back to", function()
      local manager = open(plugins.folder({ ["strategies/tier.lua"] = failing() }), { max_plugin_failures = 3 })
      fail(manager, 20)
      wait_for("failing", manager)
      local told = #warnings
      assert.matches("; there is no earlier version to go back to$", warnings[told])
      fail(manager, 20)
      lunashard.sleep(0)
      assert.equal(told, #warnings)
      assert(manager:get_shard_for_write(1))
      assert.equal(40, plugin(manager, "tier").failures)
    end)

    it("does not go back to one that would look for keys elsewhere", function()
      local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy({ place = "return shards[1].shard_id" }) })
      local manager = open(folder, { max_plugin_failures = 3 })
      folder:write("strategies/tier.lua", failing())
      assert(lunashard.reload({ allow_placement_change = true }))
      local expected = routes(manager)
      fail(manager, 3)
      wait_for("failing", manager)
      assert.matches("it cannot be gone back from: going back to an earlier version of ", warnings[#warnings])
      assert.equal(expected, routes(manager))
    end)
  end)

  describe("while it watches", function()
    local function wait_until(what, condition)
      for _ = 1, 2000 do
        if condition() then
          return
        end
        lunashard.sleep(0.005)
      end
      error("waited in vain until " .. what)
    end

    it("loads what was saved before it began", function()
      local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
      local manager = open(folder)
      folder:write("strategies/tier.lua", plugins.strategy({ head = "-- before" }))
      manager.plugins:watch()
      wait_until("generation 2", function() return plugin(manager, "tier").generation == 2 end)
    end)

    it("loads what editors save, in whatever way they do", function()
      local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
      local manager = open(folder)
      manager.plugins:watch()
      local function generation(n)
        wait_until("generation " .. n, function() return plugin(manager, "tier").generation == n end)
      end
      folder:write("strategies/tier.lua", plugins.strategy({ head = "-- renamed over" }))
      generation(2)
      local file = assert(io.open(folder.path .. "/strategies/tier.lua", "w"))
      file:write(plugins.strategy({ head = "-- truncated and written" }))
      file:close()
      generation(3)
      folder:write("strategies/fine.lua", plugins.strategy({ name = "fine" }))
      wait_until("fine is known", function() return registry.get("strategy", "fine") end)
      folder:remove("strategies/fine.lua")
      wait_until("fine is gone", function() return registry.get("strategy", "fine") == nil end)
      folder:write("strategies/tier.lua", "return {")
      wait_until("it is refused", function() return plugin(manager, "tier").problem end)
      assert.equal(3, plugin(manager, "tier").generation)
      folder:write("strategies/tier.lua", plugins.strategy({ head = "-- renamed over" }))
      generation(4)
    end)

    it("ends that with the last manager", function()
      local manager = open(plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() }))
      local loader = manager.plugins
      loader:watch()
      manager:shutdown()
      assert.is_nil(loader.watching)
    end)
  end)

  it("calls on_plugin with what happens, and whoever subscribed to events", function()
    local heard, seen = {}, {}
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local manager = open(folder, { on_plugin = function(event) heard[#heard + 1] = event end,
      on_health = function() error("not of health") end })
    local done = require("lunashard.events").subscribe(function(event) seen[#seen + 1] = event end)
    folder:write("strategies/tier.lua", "return {")
    lunashard.reload()
    folder:write("strategies/tier.lua", plugins.strategy())
    lunashard.reload()
    lunashard.sleep(0)
    lunashard.sleep(0)
    done()
    assert.equal(2, #heard)
    assert.same(heard, seen)
    assert.equal("refused", heard[1].action)
    assert.is_true(errors.is(heard[1].error, "PLUGIN_FAILED"))
    assert.matches("; generation 1 goes on serving$", heard[1].message)
    assert.same({ "plugin", "reloaded", "strategy", "tier", 2, folder.path .. "/strategies/tier.lua" },
      { heard[2].kind, heard[2].action, heard[2].plugin_kind, heard[2].name, heard[2].generation, heard[2].path })
    assert.equal(1, #manager:get_cluster_status().plugins)
  end)

  it("refuses at the start what could not serve, and a folder that is none", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy({ bucket = "return key" }) })
    assert.error_matches(function()
      open(folder, { strategy = { "tier", key_type = "text" } })
    end, "strategy tier: self%-test: ")
    assert.is_nil(registry.get("strategy", "tier"))
    assert.error_matches(function() open({ path = folder.dir .. "/none" }) end, "plugins: .*/none: No such file")
    folder:write("file", "x")
    assert.error_matches(function() open({ path = folder.path .. "/file" }) end, "plugins: .*/file: is no folder")
    local _, err = lunashard.reload({ path = "nowhere.lua" })
    assert.equal("INVALID", err.code)
    assert.error_matches(function() lunashard.reload({ file = "x" }) end, 'unknown option "file" of reload')
  end)

  it("says so when the folder cannot be read any more, and goes on", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local manager = open(folder)
    assert(system.rename(folder.path, folder.path .. ".away"))
    local _, err = lunashard.reload()
    assert.equal("INVALID", err.code)
    assert.matches("plugins: .*/plugins: No such file", err.message)
    assert.truthy(manager:get_shard_for_write(1))
    assert(system.rename(folder.path .. ".away", folder.path))
    assert.same({}, assert(lunashard.reload()))
  end)

  it("follows links: a release that is put in place by one swap", function()
    local folder = plugins.folder()
    local releases = plugins.folder({
      ["1/strategies/tier.lua"] = plugins.strategy(),
      ["2/strategies/tier.lua"] = plugins.strategy({ head = "-- two" }),
    })
    folder:remove("")
    assert(os.execute(("ln -s %s/1 %s"):format(releases.path, folder.path)))
    local manager = open(folder)
    assert(os.execute(("ln -s %s/2 %s.new && mv -T %s.new %s"):format(releases.path, folder.path, folder.path,
      folder.path)))
    assert.equal("reloaded", lunashard.reload()[1].action)
    assert.equal(2, plugin(manager, "tier").generation)
    system.unlink(folder.path)
  end)

  it("does one load at a time, and gives the lock back when a task is cancelled", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local manager = open(folder)
    local tasks = {}
    for i = 1, 4 do
      folder:write("strategies/tier.lua", plugins.strategy({ head = "-- " .. i }))
      tasks[i] = lunashard.spawn(function() return lunashard.reload() end)
    end
    lunashard.sleep(0)
    tasks[1]:cancel()
    for _, one in ipairs(tasks) do
      one:join()
    end
    assert.is_false(manager.plugins.busy)
    assert(lunashard.reload())
    assert.equal("active", plugin(manager, "tier").state)
    assert.is_true(plugin(manager, "tier").generation >= 2)
  end)
end)
