local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local plugins = require("spec.support.plugins")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local FILE = "strategies/tier.lua"
local GOOD = plugins.strategy()

-- What may be in a plug-in's file, and a part of what is said of it. Functions put something else in its place.
local BAD = {
  ["a syntax error"] = { "return { api = 1,\n kind = }", "tier.lua:2: " },
  ["an error when it runs"] = { "local x = nil\nreturn x.y", "tier.lua:2: attempt to index" },
  ["an error value that is no text"] = { "error({})", "tier.lua" },
  ["nothing that it returns"] = { "local x = 1", "expected the file to return a table" },
  ["an empty file"] = { "", "expected the file to return a table" },
  ["a number in place of a plug-in"] = { "return 42", "expected the file to return a table" },
  ["another kind of plug-in"] = { 'return { api = 1, kind = "aggregate", name = "tier", aggregate = function() end }',
    'kind: expected "strategy", got "aggregate"' },
  ["a field of a wrong type"] = { (GOOD:gsub("new = function.-end,", "new = 42,")), "new: expected a function" },
  ["a misspelled field"] = { (GOOD:gsub("place =", "plcae =")), "place: expected a function" },
  ["a table that answers for every field"] = {
    "return setmetatable({}, { __index = function() return function() end end })", "metatable" },
  ["an unknown shard"] = { plugins.strategy({ place = 'return "shard99"' }), "shard99" },
  ["a shard that is a table"] = { plugins.strategy({ place = "return shards[1]" }), "tier" },
  ["nil for a shard"] = { plugins.strategy({ place = "return nil" }), "tier" },
  ["nil for a bucket"] = { plugins.strategy({ bucket = "return nil" }), "tier" },
  ["NaN for a bucket"] = { plugins.strategy({ bucket = "return 0/0" }), "bucket" },
  ["a bucket that is half"] = { plugins.strategy({ bucket = "return 0.5" }), "bucket" },
  ["a huge text for a bucket"] = { plugins.strategy({ bucket = 'return ("x"):rep(100000)' }), "bucket" },
  ["other answers for 42 and 42LL"] = {
    plugins.strategy({ route = "", bucket = 'return type(key) == "cdata" and 1 or lunashard.hash(key, 64)' }), "tier" },
  ["an answer that depends on how often it is asked"] = {
    plugins.strategy({ head = "local n = 0", bucket = "n = n + 1 return n % 7" }), "tier" },
  ["a key for which it raises"] = { plugins.strategy({ bucket = "if key == 0 then error('no zero') end return 1" }), "no zero" },
  ["a yield"] = { plugins.strategy({ bucket = "coroutine.yield() return 1" }), "tier" },
  ["a yield while it loads"] = { "coroutine.yield()\n" .. GOOD, "tier" },
  ["an exit"] = { plugins.strategy({ bucket = "os.exit(3)" }), "os" },
  ["an exit while it loads"] = { "os.exit(3)\n" .. GOOD, "os" },
  ["chance"] = { plugins.strategy({ bucket = "return math.random(64)" }), "random" },
  ["the clock"] = { plugins.strategy({ bucket = "return os.time() % 64" }), "os" },
  ["a file of its own"] = { plugins.strategy({ bucket = 'io.open("/tmp/x", "w") return 1' }), "io" },
  ["a global"] = { plugins.strategy({ bucket = "counter = 1 return 1" }), "counter" },
  ["a change of the libraries"] = { "string.format = nil\n" .. GOOD, "string.format" },
  ["a change of the libraries by rawset"] = { 'rawset(math, "floor", nil)\n' .. GOOD, "written" },
  ["the name of a shipped one"] = { plugins.strategy({ name = "hash" }), "hash" },
  ["a name that is none"] = { plugins.strategy({ name = "no name" }), "name: expected an identifier" },
  ["compiled code"] = { string.dump(loadstring("return 1")), "compiled code" },
  ["no UTF-8"] = { GOOD .. "-- caf\233\n", "UTF-8" },
  ["zero bytes"] = { "return {\0}", "tier.lua" },
  ["10 MiB"] = { GOOD .. "--" .. ("x"):rep(10 * 2^20), "10485" },
  ["a nesting without end"] = { "return " .. ("{"):rep(100000), "tier.lua" },
  ["a recursion without end"] = { plugins.strategy({ head = "local function f() return 1 + f() end", bucket = "return f()" }),
    "tier" },
  ["an endless loop"] = { plugins.strategy({ bucket = "while true do end" }), "longer than" },
  ["an endless loop while it loads"] = { "while true do end", "longer than" },
  ["an endless loop that catches every error"] = {
    plugins.strategy({ bucket = "while true do pcall(function() while true do end end) end" }), "longer than" },
  ["2 GiB of texts"] = {
    plugins.strategy({ bucket = 'local t = {} for i = 1, 2048 do t[i] = ("x"):rep(2^20) .. i end return 1' }), "was stopped" },
  ["one text of 2 GiB"] = { plugins.strategy({ bucket = 'return #("x"):rep(2^31 - 100) % 64' }), "was stopped" },
  ["a pattern that takes for ever"] = {
    plugins.strategy({ bucket = 'return #(("a"):rep(40):match(("a*"):rep(40) .. "b") or "")' }), "tier" },
  ["a file that requires itself"] = { 'require("strategies.tier")\n' .. GOOD, "itself" },
  ["a require that leads out of the folder"] = { 'require("../../etc/passwd")\n' .. GOOD, "require" },
  ["a require of nothing"] = { 'require("none")\n' .. GOOD, "none.lua" },
  ["a directory"] = { function(folder)
    folder:remove(FILE)
    assert(system.mkdir(folder.path .. "/" .. FILE, 493))
  end, "directory" },
  ["a device"] = { function(folder)
    folder:remove(FILE)
    assert(os.execute("ln -s /dev/zero " .. folder.path .. "/" .. FILE) == 0)
  end, "not a file" },
  ["a file that cannot be read"] = { function(folder)
    folder:remove(FILE)
    assert(os.execute("ln -s /proc/self/mem " .. folder.path .. "/" .. FILE) == 0)
  end, "tier.lua" },
  ["a file that others may write"] = { function(folder)
    folder:write(FILE, GOOD .. "\n", 438)
  end, "chmod" },
  ["a fork bomb of requires"] = { function(folder)
    for i = 1, 110 do
      folder:write(("lib/f%d.lua"):format(i), ('require("lib.f%d") require("lib.f%d") return 1'):format(i + 1, i + 2))
    end
    folder:write(FILE, 'require("lib.f1")\n' .. GOOD)
  end, "files" },
}

local function names()
  local list = {}
  for name in pairs(BAD) do
    list[#list + 1] = name
  end
  table.sort(list)
  return list
end

describe("a plug-in's file with", function()
  local folder, router, manager, expected
  local load, failures, statements, stop
  local warnings, restore

  setup(function()
    warnings = {}
    restore = lunashard.set_warn(function(line)
      warnings[#warnings + 1] = line
    end)
    folder = plugins.folder({ [FILE] = GOOD })
    router, manager = cluster.connect({ plugins = folder.path, strategy = { "tier", shard_key = "id", key_type = "int8" },
      tables = {} })
    expected = {}
    for key = 1, 100 do
      expected[key] = manager:get_shard_for_write(key).shard_id
    end
    -- Statements all the while, each of which has to come from the right shard.
    failures, statements, stop = {}, 0, false
    load = task.spawn(function()
      while not stop do
        local key = statements % 100 + 1
        local result, err = router:execute("SELECT $1::int8 AS id", { key }, { routing_key = key })
        statements = statements + 1
        if not result or result.shard_id ~= expected[key] then
          failures[#failures + 1] = tostring(err or result.shard_id)
        end
      end
    end)
  end)

  teardown(function()
    stop = true
    load:join()
    lunashard.set_warn(restore)
    plugins.clean()
    cluster.release()
  end)

  local function status()
    for _, one in ipairs(manager:get_cluster_status().plugins) do
      if one.path:find(FILE, 1, true) then
        return one
      end
    end
  end

  for _, name in ipairs(names()) do
    it(name .. " is refused in one line, and the version before goes on serving", function()
      local content, said = unpack(BAD[name])
      local strategy, generation, before = manager.strategy, status().generation, statements
      if type(content) == "function" then
        content(folder)
      else
        folder:write(FILE, content)
      end
      local events, err = lunashard.reload()
      assert.is_nil(events, "it was loaded")
      assert.truthy(err.message:find(said, 1, true), err.message)
      assert.truthy(err.message:find("tier", 1, true), err.message)
      assert.is_nil(err.message:find("[%c]"), err.message)
      assert.is_true(#err.message < 600, err.message)
      assert.equal(strategy, manager.strategy)
      assert.equal(generation, status().generation)
      assert.truthy(status().problem)
      cluster.wait_until("statements went on", function()
        return statements > before + 3
      end)
      assert.same({}, failures)

      folder:remove(FILE)
      folder:remove("lib")
      folder:write(FILE, GOOD .. "-- " .. name .. "\n")
      assert(lunashard.reload())
      assert.equal(generation + 1, status().generation)
      assert.is_nil(status().problem)
    end)
  end

  it("nothing in it any more, for it was deleted while it was loaded, leaves a version serving", function()
    for round = 1, 2 do
      -- Slow enough that others get their turn while it is tried.
      folder:write(FILE, plugins.strategy({
        head = "-- round " .. round,
        bucket = "for _ = 1, 3000 do end return lunashard.hash(key, 64)",
      }))
      local reload = task.spawn(lunashard.reload)
      while not manager.plugins.busy and reload:status() ~= "ended" do
        task.sleep(0)
      end
      assert.is_true(manager.plugins.busy) -- it is being tried now
      folder:remove(FILE)
      assert(reload:join())
      lunashard.reload()
      assert.equal("missing", status().state)
      for key = 1, 100 do
        assert.equal(expected[key], manager:get_shard_for_write(key).shard_id)
      end
      assert.same({}, failures)
    end
    folder:write(FILE, GOOD)
    assert(lunashard.reload())
    assert.equal("active", status().state)
  end)
end)
