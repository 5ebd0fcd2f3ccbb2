local cluster = require("lunashard.cluster")
local ldoc = require("scripts.dev.annotations.ldoc")
local lunashard = require("lunashard")
local process = require("lunashard.process")
local system = require("lunashard.core.system")
local testing = require("lunashard.testing")
local tx_module = require("lunashard.router.tx")

local FILE = "lua/lunashard.d.lua"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- "Manager:reload" -> "options, opts", as the annotations say.
local function declared()
  local found = {}
  local text = read(FILE) .. read("lua/lunashard.testing.d.lua")
  for holder, separator, name, arguments in text:gmatch("\nfunction ([%w_]+)([.:])([%w_]+)%((.-)%) end\n") do
    found[holder .. separator .. name] = arguments
  end
  return found
end

-- As the function itself has them; nil for one in C.
local function parameters(fn, is_method)
  local info = debug.getinfo(fn, "Su")
  if info.what == "C" then
    return nil
  end
  local names = {}
  for i = 1, info.nparams do
    names[i] = debug.getlocal(fn, i)
  end
  if is_method then
    assert.equal("self", table.remove(names, 1))
  end
  if info.isvararg then
    names[#names + 1] = "..."
  end
  return table.concat(names, ", ")
end

local function upvalue(fn, name)
  for i = 1, 100 do
    local found, value = debug.getupvalue(fn, i)
    if found == name then
      return value
    end
  end
  error("no upvalue " .. name)
end

-- Functions whose comments say that they are not for users.
local function internal_functions()
  local found = {}
  local pipe = assert(io.popen("find lua/lunashard -name '*.lua'"))
  for path in pipe:lines() do
    for _, documented in ipairs(ldoc.functions(path)) do
      found[documented.name] = found[documented.name] or documented.is_internal
    end
  end
  pipe:close()
  return found
end

-- The classes as they are at work, by their names in the annotations.
local function classes()
  local manager = lunashard.manager({
    shards = { { shard_id = "shard1", host = "localhost", database = "app" } },
    strategy = { "hash", shard_key = "user_id" },
  })
  local router = lunashard.router({ shard_manager = manager })
  local spawned = lunashard.spawn(function() end)
  spawned:join()
  local of = {
    Manager = manager,
    Router = router,
    Rebalancer = lunashard.rebalancer({ shard_manager = manager }),
    Strategy = manager.strategy,
    Stream = router:stream("SELECT 1"),
    Plan = assert(router:explain(nil, nil, { routing_key = 1 })),
    Cache = lunashard.cache({ router = router }),
    Aggregate = lunashard.aggregate.sum("n"),
    IdGenerator = lunashard.ids.new({ shard = 1 }),
    Counter = lunashard.metrics.counter({ name = "spec_total", help = "x" }),
    Gauge = lunashard.metrics.gauge({ name = "spec_level", help = "x" }),
    Histogram = lunashard.metrics.histogram({ name = "spec_size", help = "x" }),
    Task = spawned,
    TaskEvent = lunashard.event(),
  }
  local methods = { Cluster = upvalue(cluster.open, "Cluster"), Transaction = upvalue(tx_module.open, "Tx") }
  for name, object in pairs(of) do
    methods[name] = getmetatable(object).__index
  end
  return methods
end

describe("the annotations for the language server", function()
  it("have every public method of the classes, and no other, with the parameters of the code", function()
    local annotated, internal = declared(), internal_functions()
    for class, methods in pairs(classes()) do
      for name, fn in pairs(methods) do
        local arguments = annotated[class .. ":" .. name]
        if type(fn) == "function" and name:sub(1, 2) ~= "__" and not internal[name] then
          assert(arguments, ("%s:%s is missing: run `make annotations`, or mark it with @local"):format(class, name))
          assert.equal(parameters(fn, true), arguments, class .. ":" .. name)
        end
      end
      for name in pairs(annotated) do
        local holder, method = name:match("^(%u%w+):(.*)$")
        if holder == class then
          assert.equal("function", type(methods[method]), name .. " is annotated, and does not exist")
        end
      end
    end
  end)

  it("name no class that the code does not have", function()
    local known = classes()
    for name in pairs(declared()) do
      local class = name:match("^(%u%w+)[.:]")
      assert(class == nil or known[class], name)
    end
  end)

  it("have everything in the public table, and nothing else", function()
    local annotated, text = declared(), read(FILE)
    local exports = upvalue(getmetatable(lunashard).__index, "EXPORTS")
    for name in pairs(exports) do
      local value = lunashard[name]
      local arguments = annotated["lunashard." .. name]
      if type(value) == "function" then
        assert(arguments, name .. " is missing")
        assert.equal(parameters(value) or arguments, arguments, name)
      else
        assert.truthy(text:find(("\n---@field %s "):format(name), 1, true), name)
      end
    end
    for name in pairs(annotated) do
      local member = name:match("^lunashard%.(.*)$")
      assert(member == nil or exports[member], name)
    end
  end)

  it("have the functions of the modules in it, with the parameters of the code", function()
    local annotated, count = declared(), 0
    for name, arguments in pairs(annotated) do
      local module, member = name:match("^(%l+)%.(.*)$")
      if module and module ~= "lunashard" then
        count = count + 1
        local fn = rawget(module == "testing" and testing or lunashard[module], member)
        assert.equal("function", type(fn), name)
        assert.equal(parameters(fn), arguments, name)
      end
    end
    assert.is_true(count > 10)
    for name, fn in pairs(testing) do
      local is_public = type(fn) == "function" and not internal_functions()[name]
      assert(not is_public or annotated["testing." .. name], name)
    end
  end)

  it("name every shipped plug-in", function()
    local text = read(FILE)
    for _, folder in ipairs({ "strategies", "aggregates", "extractors", "policies" }) do
      for _, file in ipairs(system.listdir("lua/lunashard/" .. folder) or {}) do
        assert.truthy(text:find(("\n---@field %s fun("):format(file:gsub("%.lua$", "")), 1, true), file)
      end
    end
  end)

  it("are what the code and its comments say, to the letter", function()
    local result = assert(process.run({
      argv = { assert(system.realpath("/proc/self/exe")), "run", "scripts/dev/annotations.lua", "--check" },
      env = { LUNASHARD_CLUSTER = false },
      timeout = 60,
    }))
    assert.equal(0, result.code, result.stderr)
  end)

  it("are valid Lua, and are not in the program", function()
    for _, path in ipairs({ FILE, "lua/lunashard.testing.d.lua" }) do
      assert(loadfile(path))
      assert.is_false((pcall(require, (path:match("^lua/(.*)%.lua$")))))
    end
  end)
end)
