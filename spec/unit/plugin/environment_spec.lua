local compile = require("lunashard.loader.compile")
local plugins = require("spec.support.plugins")
local system = require("lunashard.core.system")

describe("the environment of a plug-in", function()
  after_each(plugins.clean)

  -- Run a text as a plug-in of a kind: its value, or nil and what was wrong.
  local function run(text, kind, how)
    local folder = plugins.folder({ ["p.lua"] = text })
    how = how or {}
    how.root, how.kind = folder.path, kind or "strategy"
    local loaded, message = compile.run(folder.path .. "/p.lua", how)
    return loaded and loaded.value, message
  end

  local function refused(text, expected, kind)
    local value, message = run(text, kind)
    assert.is_nil(value)
    assert.truthy(message:find(expected, 1, true), message)
    assert.is_nil(message:find("\n", 1, true))
  end

  it("has what computing takes", function()
    assert.equal("2 b 3.0 7 AB", run([[
      local t = { "b", "a" }
      table.sort(t, function(a, b) return a > b end)
      local co = coroutine.wrap(function() coroutine.yield(3) end)
      local ok = pcall(error, "x")
      assert(not ok and select("#", 1, 2) == 2 and type(next(t)) == "number" and bit.band(7, 3) == 3)
      return #t .. " " .. t[1] .. " " .. string.format("%.1f", co()) .. " " .. math.floor(7.5) .. " " .. ("ab"):upper()
    ]]))
  end)

  it("hashes as PostgreSQL partitions", function()
    local strategy = require("lunashard.strategy").bind("hash", { { shard_id = "a" }, { shard_id = "b" } },
      { key_type = "int8" })
    local hash = run("return lunashard.hash")
    for key = -50, 50 do
      assert.equal(strategy:bucket(key), hash(key, 16384, "int8"))
    end
    assert.equal(hash(42, 1000), hash(42LL, 1000))
    assert.error_matches(function() hash(nil, 10) end, "lunashard.hash: ")
    assert.error_matches(function() hash(1, 0.5) end, "n must be a whole number")
  end)

  it("has no way out, and says so before anything has run", function()
    for name, why in pairs({ io = "no I/O", os = "answer differently", debug = "insides", ffi = "insides", jit = "insides",
      load = "make no code", loadstring = "make no code", dofile = "make no code", getfenv = "environment",
      setfenv = "environment", newproxy = "insides", collectgarbage = "memory", print = "no I/O", package = "folder",
      _G = "locals" }) do
      refused(("local x = 1\nlocal function never() return %s end\nreturn never"):format(name),
        "plugins/p.lua:2: there is no global " .. name .. " in a plug-in: ")
      assert.truthy(select(2, run("return " .. name)):find(why, 1, true), name)
    end
    refused("return treshold", "plugins/p.lua:1: there is no global treshold in a plug-in")
    refused("return string.dump(function() end)", "attempt to call field 'dump'")
    refused("return getmetatable('').__index", "attempt to index a nil value")
  end)

  it("cannot be written, by whatever means", function()
    refused("local a\nlocal function f() count = 1 end\nreturn f", "plugins/p.lua:2: the global count cannot be written")
    refused("string = nil", "the global string cannot be written")
    refused("function helper() end", "the global helper cannot be written in a plug-in: make it local")
    refused("math.pi = 3", "plugins/p.lua:1: math.pi cannot be written")
    refused("rawset(math, 'pi', 3)", "cannot be written")
    refused("setmetatable(math, {})", "protected metatable")
    assert.equal(math.pi, run("return math.pi"))
  end)

  it("has no randomness and no clock where the answer must always be the same", function()
    for _, kind in ipairs({ "strategy", "extractor" }) do
      refused("return math.random()", "plugins/p.lua:1: there is no math.random in a plug-in of this kind", kind)
      refused("return os.time()", "there is no global os", kind)
      assert.equal("table function", run("return tostring({}) .. ' ' .. tostring(type)", kind))
    end
    for _, kind in ipairs({ "aggregate", "policy" }) do
      assert.equal("number", type(run("return math.random() + os.time()", kind)))
      refused("return os.exit(1)", "attempt to call field 'exit'", kind)
      refused("return os.getenv('HOME')", "attempt to call field 'getenv'", kind)
    end
  end)

  it("lets a policy say something, as a warning", function()
    local lines = {}
    local lunashard = require("lunashard")
    local before = lunashard.set_warn(function(line) lines[#lines + 1] = line end)
    run("print('shard', 1, 'is\\n down') return true", "policy")
    lunashard.set_warn(before)
    assert.same({ "plugins/p.lua: shard 1 is down" }, lines)
  end)

  it("is the program's own for a policy that is trusted", function()
    assert.equal(os.getenv("HOME"), run("return os.getenv('HOME')", "policy", { trusted = true }))
    assert.is_nil((run("return os.getenv('HOME')", "strategy", { trusted = true })))
    run("left_behind = 1 return 1", "policy", { trusted = true })
    assert.is_nil(rawget(_G, "left_behind"))
  end)
end)

describe("loading the file of a plug-in", function()
  after_each(plugins.clean)

  local function load(files, name)
    local folder = plugins.folder(files)
    return compile.run(folder.path .. "/" .. (name or "strategies/p.lua"), { root = folder.path, kind = "strategy" })
  end

  local function refused(files, expected)
    local loaded, message = load(type(files) == "table" and files or { ["strategies/p.lua"] = files })
    assert.is_nil(loaded)
    assert.truthy(message:find(expected, 1, true), message)
    assert.is_nil(message:find("\n", 1, true), message)
    return message
  end

  it("names file and line of syntax and runtime errors", function()
    refused("local x =\nreturn 1", "plugins/strategies/p.lua:2: unexpected symbol near 'return'")
    refused("local t\n\nreturn t.x", "plugins/strategies/p.lua:3: attempt to index local 't'")
    refused("error('my reason', 0)", "plugins/strategies/p.lua: my reason")
    refused("error({})", "plugins/strategies/p.lua: (a table)")
    assert.equal(7, load({ ["strategies/p.lua"] = "#!/usr/bin/env lua\nreturn 7" }).value)
  end)

  it("takes text in UTF-8 alone, of a decent size, from a file that others cannot write", function()
    refused(string.dump(loadstring("return 1")), "p.lua: is compiled code; a plug-in is given as text")
    refused("-- ok\n-- caf\233\nreturn 1", "p.lua:2: the byte 0xe9 is not UTF-8")
    refused("return '\237\160\128'", "p.lua:1: the byte 0xed is not UTF-8")
    assert.equal("ä€😀", load({ ["strategies/p.lua"] = "return 'ä€😀'" }).value)
    refused("--" .. ("x"):rep(10 * 1024 * 1024), "has 10485762 bytes; a plug-in has at most 1048576")
    local folder = plugins.folder()
    folder:write("a.lua", "return 1", 438)
    local _, message = compile.run(folder.path .. "/a.lua", { root = folder.path })
    assert.truthy(message:find("plugins/a.lua: others may write it (mode 666)", 1, true), message)
  end)

  it("says what stands in the place of a file", function()
    local folder = plugins.folder({ ["dir.lua/x"] = "" })
    local function why(name)
      return select(2, compile.run(folder.path .. "/" .. name, { root = folder.path }))
    end
    assert.equal("plugins/dir.lua: is a directory, not a file", why("dir.lua"))
    assert.equal("plugins/none.lua: No such file or directory", why("none.lua"))
    assert(os.execute(("ln -s nowhere %s/link.lua && mkfifo %s/fifo.lua"):format(folder.path, folder.path)))
    assert.equal("plugins/link.lua: a symbolic link that leads nowhere", why("link.lua"))
    assert.equal("plugins/fifo.lua: is something special, not a file", why("fifo.lua"))
    if system.getuid() ~= 0 then
      folder:write("secret.lua", "return 1", 0)
      assert.equal("plugins/secret.lua: Permission denied", why("secret.lua"))
    end
  end)

  it("finds what it requires beside it, then in the folder", function()
    local loaded = assert(load({
      ["strategies/p.lua"] = "local a, b = require 'a', require('lib.b')\nreturn a .. b .. tostring(require('a') == a)",
      ["strategies/a.lua"] = "return 'beside'",
      ["a.lua"] = "return 'above'",
      ["lib/b.lua"] = "return require('c')",
      ["lib/c.lua"] = "return ' beside b '",
    }))
    assert.equal("beside beside b true", loaded.value)
    local held = {}
    for path in pairs(loaded.files) do
      held[#held + 1] = path:match("plugins/(.*)")
    end
    table.sort(held)
    assert.same({ "lib/b.lua", "lib/c.lua", "strategies/a.lua", "strategies/lib/b.lua", "strategies/p.lua" }, held)
  end)

  it("keeps require to the folder and to the time of loading", function()
    for _, name in ipairs({ "../x", "/etc/passwd", "a/b", "", ".", "a..b", "x.", "lunashard" }) do
      refused(("return require(%q)"):format(name), "plugins/strategies/p.lua: require: ")
      refused(("local x = require(%q)"):format(name), "plugins/strategies/p.lua:1: require: ")
    end
    refused("return require(7)", "got a number")
    refused({ ["strategies/p.lua"] = "return require 'x'", ["strategies/x.lua"] = "local a\nreturn a.b" },
      "plugins/strategies/x.lua:2: attempt to index local 'a'")
    local fn = load({ ["strategies/p.lua"] = "require 'a' return function(name) return require(name) end",
      ["a.lua"] = "return 5", ["b.lua"] = "return 6" }).value
    assert.equal(5, fn("a"))
    assert.error_matches(function() fn("b") end, "require works while the plug%-in loads, not later")
    local folder = plugins.folder({ ["p.lua"] = "return require 'out'" })
    assert(os.execute(("echo 'return 1' > %s/out.lua && ln -s ../out.lua %s/out.lua"):format(folder.dir, folder.path)))
    local _, message = compile.run(folder.path .. "/p.lua", { root = folder.path })
    assert.truthy(message:find("plugins/out.lua: leads out of the plug-in folder", 1, true), message)
  end)

  it("ends a fork bomb of requires", function()
    refused("return require 'p'", "plugins/strategies/p.lua requires itself")
    refused({ ["strategies/p.lua"] = "return require 'a'", ["a.lua"] = "return require 'b'", ["b.lua"] = "return require 'a'" },
      "plugins/a.lua requires itself, by way of plugins/b.lua")
    local files = { ["strategies/p.lua"] = "return require 'f1'" }
    for i = 1, 300 do
      files[("f%d.lua"):format(i)] = ("return { require 'f%d', require 'f%d' }"):format(i + 1, i + 2)
    end
    refused(files, "plugins/strategies/p.lua: is made of more than 100 files")
    files = { ["strategies/p.lua"] = "for i = 1, 6 do require('big' .. i) end" }
    for i = 1, 6 do
      files[("big%d.lua"):format(i)] = "--" .. ("x"):rep(1000000)
    end
    refused(files, "is made of more than 4194304 bytes")
  end)
end)
