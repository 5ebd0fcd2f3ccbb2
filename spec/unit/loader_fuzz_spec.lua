local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local mutate = require("spec.support.mutate")
local plugins = require("spec.support.plugins")
local process = require("lunashard.process")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local CORPUS = "spec/corpus/plugins"
local ROUNDS = tonumber(os.getenv("LUNASHARD_FUZZ") or "") or 60
local SEED = tonumber(os.getenv("LUNASHARD_SEED") or "") or os.time()
local SLOWEST = 30 -- seconds: so that what never ends is told from what is slow under a sanitizer

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- All files of the corpus: relative path -> text.
local function corpus()
  local files, names = {}, {}
  for _, folder in ipairs({ "strategies", "aggregates", "extractors", "policies" }) do
    local list = assert(system.listdir(CORPUS .. "/" .. folder))
    table.sort(list)
    for _, name in ipairs(list) do
      local path = folder .. "/" .. name
      files[path] = read(CORPUS .. "/" .. path)
      names[#names + 1] = path
    end
  end
  return files, names
end

describe("the loader of plug-ins", function()
  local restore, managers

  before_each(function()
    restore, managers = lunashard.set_warn(function() end), {}
  end)

  after_each(function()
    for _, manager in ipairs(managers) do
      manager:shutdown()
    end
    lunashard.set_warn(restore)
    plugins.clean()
  end)

  local function open(folder, name)
    local shards = {}
    for i = 1, 3 do
      shards[i] = { shard_id = "s" .. i, host = "127.0.0.1", port = i, database = "d" }
    end
    local manager = lunashard.manager({ shards = shards, plugins = folder.path,
      strategy = { name, shard_key = "id", key_type = "int8" } })
    managers[#managers + 1] = manager
    return manager
  end

  local function routes(manager)
    local list = {}
    for key = -5, 60 do
      list[#list + 1] = manager:get_shard_for_write(key).shard_id
    end
    return table.concat(list, " ")
  end

  it(("takes mutated files, or refuses them in one line, and keeps every key where it is (seed %d)"):format(SEED), function()
    local files, names = corpus()
    local folder = plugins.folder(files)
    local tier, route_only = open(folder, "tier"), open(folder, "route_only")
    local expected, expected_other = routes(tier), routes(route_only)
    math.randomseed(SEED)
    local refused, loaded = 0, 0
    for round = 1, ROUNDS do
      local path = names[math.random(#names)]
      local text = mutate.text(math.random, files[path], files[names[math.random(#names)]])
      folder:write(path, text)
      local began = task.now()
      local ok, events, err = pcall(lunashard.reload)
      local about = ("seed %d, round %d, %s:\n%s"):format(SEED, round, path, text)
      assert(ok, tostring(events) .. "\n" .. about)
      assert(task.now() - began < SLOWEST, "it took long: " .. about)
      if events then
        loaded = loaded + 1
      else
        refused = refused + 1
        assert(errors.is(err), about)
        assert(not err.message:find("%c"), err.message .. "\n" .. about)
      end
      assert(routes(tier) == expected and routes(route_only) == expected_other, about)
      folder:write(path, files[path])
      assert(lunashard.reload())
      assert(routes(tier) == expected and routes(route_only) == expected_other, about)
    end
    assert.is_true(refused > 0 and loaded + refused == ROUNDS)
  end)

  it("never ends a program by what a plug-in's file says", function()
    -- In a process of its own, for that is what would be ended.
    local folder = plugins.folder({ ["any.lua"] = "error({}, 0)", ["strategies/x.lua"] = "return os",
      ["strategies/y.lua"] = "coroutine.yield()", ["policies/z.lua"] = "while true do coroutine.yield(1) end" })
    local script = folder.dir .. "/script.lua"
    assert(system.write_file(script, ([[
      local lunashard = require("lunashard")
      lunashard.manager({ shards = { { shard_id = "a", host = "h", database = "d" } }, strategy = "hash", plugins = %q })
      print("still here")
    ]]):format(folder.path), 420))
    local result = assert(process.run({ argv = { assert(system.realpath("/proc/self/exe")), "run", script }, timeout = 30,
      env = { LUNASHARD_CLUSTER = false } }))
    assert.equal("still here\n", result.stdout)
    assert.equal(0, result.code)
  end)
end)
