local budget = require("lunashard.plugin.budget")
local errors = require("lunashard.errors")
local warn = require("lunashard.warn")

local MIB = 1024 * 1024

-- A strategy whose `route` is this text, with the library that plug-ins have; the text is plugin.lua's lines.
local function strategy(text)
  local chunk = assert(loadstring(text, "@plugin.lua"))
  local env = setmetatable({}, { __index = _G })
  for name, value in pairs(budget.library) do
    env[name] = type(value) == "table" and setmetatable({}, { __index = function(_, member)
      return value[member] or _G[name][member]
    end }) or value
  end
  setfenv(chunk, env)
  budget.confine(chunk)
  return { api = 1, kind = "strategy", name = "tier", new = function() return {} end, route = chunk() }
end

local function wrap(text, opts)
  return budget.wrap(strategy(text), opts)
end

-- What calling `route` raised.
local function failure(text, opts, ...)
  local limited = wrap(text, opts)
  local ok, err = pcall(limited.route, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err, "PLUGIN_FAILED"))
  return err
end

local function assert_healthy()
  assert.is_nil((debug.gethook()))
  assert.equal(string.find, getmetatable("").__index.find)
  local limited = wrap("return function(_, key) return 'shard' .. key end")
  assert.equal("shard7", limited.route({}, 7))
end

describe("A limited call", function()
  after_each(assert_healthy)

  it("gives what the function returns and takes what it is given", function()
    local limited = wrap("return function(...) return select('#', ...), ... end")
    assert.same({ 3, "a", nil, 3 }, { limited.route("a", nil, 3) })
    assert.equal(0, (limited.route()))
  end)

  it("of a trusted plug-in is the plug-in's own function", function()
    local contract = strategy("return function() end")
    assert.equal(contract, (budget.wrap(contract, { trusted = true })))
  end)

  it("leaves what is no function in the contract as it is", function()
    local contract = strategy("return function() end")
    contract.options = { "a" }
    local limited = budget.wrap(contract)
    assert.equal("tier", limited.name)
    assert.equal(contract.options, limited.options)
  end)

  it("that raises says so with the plug-in's file and line, and where it came from", function()
    local err = failure("return function(_, key)\n  return key.region.name\nend", nil, {}, {})
    assert.truthy(err.message:find("^strategy tier: route: plugin.lua:2: attempt to index"))
    assert.truthy(err.traceback:find("plugin.lua:2"))
  end)

  it("that waits is refused", function()
    local err = failure("return function() return coroutine.yield(1) end")
    assert.truthy(err.message:find("attempt to yield.*a plug%-in cannot wait"))
    err = failure("local lunashard = require 'lunashard'\nreturn function() lunashard.sleep(0) end")
    assert.equal("PLUGIN_FAILED", err.code)
  end)

  it("may use coroutines of its own", function()
    local limited = wrap([[
      return function(_, n)
        local sum = 0
        for i in coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end end) do sum = sum + i end
        local co = coroutine.create(function(a) return coroutine.yield(a) end)
        local _, first = coroutine.resume(co, sum)
        local _, second = coroutine.resume(co, "end")
        return first, second .. coroutine.status(co)
      end]])
    assert.same({ 55, "enddead" }, { limited.route({}, 10) })
  end)

  it("does not get hold of the task that it runs in", function()
    local limited = wrap([[
      return function()
        local own = coroutine.wrap(function() return coroutine.status(coroutine.running()) end)
        return tostring(coroutine.running()) .. " " .. own()
      end]])
    assert.equal("nil running", limited.route())
  end)

  it("of a strategy that returns a table, a function or a thread is a failure", function()
    for _, value in ipairs({ "{}", "print", "coroutine.create(print)" }) do
      local err = failure("return function() return " .. value .. " end")
      assert.truthy(err.message:find("returned a %a+; expected a number or a text"))
    end
  end)

  it("hands out no object of the plug-in's as a reason", function()
    local limited = wrap([[
      return function() return nil, setmetatable({}, { __tostring = function() while true do end end }) end]])
    local value, reason = limited.route()
    assert.is_nil(value)
    assert.equal("(a table)", reason)
  end)

  it("lets an error of ours through as a reason", function()
    local limited = wrap("return function(_, err) return nil, err end")
    local given = errors.new("NO_SHARD", { message = "no such tenant" })
    assert.equal(given, select(2, limited.route({}, given)))
  end)
end)

describe("The time of a call", function()
  after_each(assert_healthy)

  local LOOPS = {
    ["a loop"] = "while true do end",
    ["a long for"] = "for i = 1, 1e15 do end",
    ["goto"] = "::again:: goto again",
    ["a recursion that never ends"] = "local function f() return f() end f()",
    ["a loop in a function of its own"] = "local function f() repeat until false end f()",
    ["a loop behind pcall"] = "pcall(function() while true do end end) return 1",
    ["a loop that catches what stops it"] = "while true do pcall(function() while true do end end) end",
    ["a loop around a pcall that fails"] = "while true do pcall(error) end",
    ["pcalls in pcalls"] = "local function f() return pcall(f) or f() end f()",
    ["the handler of an xpcall"] = "xpcall(error, function() while true do end end)",
    ["a loop whose handler loops as well"] = "xpcall(function() while true do end end, function() while true do end end)",
    ["a coroutine"] = "coroutine.wrap(function() while true do end end)()",
    ["coroutines that are caught"] =
      "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    ["two coroutines that hand over"] =
      "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
    ["an order that never decides"] = "table.sort({ 3, 2, 1 }, function() while true do end end)",
    ["sorting without end"] = "local t = {} for i = 1, 5e4 do t[i] = -i end while true do table.sort(t) end",
    ["a replacement"] = "string.gsub('abc', '.', function() while true do end end)",
    ["metamethods"] = "local t = setmetatable({}, { __index = function() while true do end end }) return t.x",
    ["an error object's __tostring"] = "error(setmetatable({}, { __tostring = function() while true do end end }))",
    ["an iterator"] = "for _ in function() return 1 end do end",
    ["joining a large table again and again"] = "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.concat(t) end",
  }

  for name, text in pairs(LOOPS) do
    it("stops " .. name, function()
      local err = failure("return function() " .. text .. " end", { time = 0.02 })
      assert.equal("time", err.limit)
      assert.truthy(err.message:find("^strategy tier: route: ran longer than 20 ms and was stopped"))
    end)
  end

  it("is over with the line that was running", function()
    local err = failure("return function()\n  local n = 0\n  while true do\n    n = n + 1\n  end\nend")
    assert.truthy(err.message:find("ran longer than 50 ms and was stopped at plugin.lua:[345]$"))
  end)

  it("is ten times as long for functions that see everything", function()
    local contract = strategy("return function() end")
    contract.new = loadstring("local t = ... for i = 1, 1e15 do t.n = i end")
    local limited = budget.wrap(contract, { time = 0.01 })
    local ok, err = pcall(limited.new, {})
    assert.is_false(ok)
    assert.truthy(err.message:find("new: ran longer than 100 ms"))
  end)

  it("stops patterns that would take for ever, as functions and as methods", function()
    for _, call in ipairs({
      "string.find(text, pattern)", "text:find(pattern)", "text:match(pattern)", "text:gsub(pattern, '')",
      "text:gmatch(pattern)()", "text:find('^' .. pattern)", "text:find(('x-'):rep(20) .. 'b')",
    }) do
      local err = failure("return function(_, text, pattern) return " .. call .. " end", nil, {}, ("x"):rep(3000),
        ("x*"):rep(20) .. "b")
      assert.truthy(err.message:find("pattern too costly", 1, true) or err.limit == "time")
    end
  end)

  it("counts the processor's work, not what passes on the clock", function()
    local lunashard = require("lunashard")
    local limited = wrap("return function(wait) return wait(0.1) or 'ended' end", { time = 0.02 })
    local nap = require("ffi")
    nap.cdef("int usleep(unsigned microseconds);")
    local started = lunashard.now()
    assert.equal("ended", limited.route(function(seconds) nap.C.usleep(seconds * 1e6) end))
    assert.is_true(lunashard.now() - started >= 0.1)
  end)

  it("leaves a hook of the script's own as it was", function()
    local hook = function() end
    debug.sethook(hook, "", 1000000)
    failure("return function() while true do end end", { time = 0.01 })
    local now, mask, count = debug.gethook()
    debug.sethook()
    assert.same({ hook, "", 1000000 }, { now, mask, count })
  end)
end)

describe("The memory of a call", function()
  after_each(assert_healthy)

  local HOGS = {
    ["2 GiB of strings"] = "local t = {} for i = 1, 2048 do t[i] = ('x'):rep(1048576) .. i end",
    ["a string that doubles"] = "local s = 'x' while true do s = s .. s end",
    ["one string of 2 GiB"] = "return ('x'):rep(2 ^ 31 - 1)",
    ["a long repetition"] = "return ('x'):rep(1e9)",
    ["a repetition with separators"] = "return ('x'):rep(1e8, ', ')",
    ["many small tables"] = "local t for i = 1, 1e9 do t = { t, {}, {}, {} } end",
    ["a table that grows"] = "local t = {} for i = 1, 1e9 do t[i] = i end",
    ["closures"] = "local f for i = 1, 1e9 do local g = f f = function() return g, i end end",
    ["a replacement that grows"] = "local s = ('x'):rep(1000) return (s:gsub('x', ('y'):rep(1e6)))",
    ["a joined table"] = "local t, s = {}, ('x'):rep(1e6) for i = 1, 1000 do t[i] = s end return table.concat(t)",
    ["strings behind pcall"] = "while true do pcall(string.rep, 'x', 1e8) end",
    ["strings behind pcall that are kept"] =
      "local t = {} while true do pcall(function() t[#t + 1] = ('x'):rep(1e6) .. #t end) end",
    ["strings in a coroutine"] =
      "local co = coroutine.wrap(function() local s = 'x' while true do s = s .. s end end) co()",
    ["strings in a handler"] = "xpcall(error, function() local s = 'x' while true do s = s .. s end end)",
    ["an error as large as all memory"] = "error(('x'):rep(1e9))",
    ["coroutines that are kept"] = "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
  }

  for name, text in pairs(HOGS) do
    it("stops " .. name .. " and leaves nothing of it", function()
      collectgarbage()
      local before = collectgarbage("count")
      local err = failure("return function() " .. text .. " end", { memory = 16 * MIB, time = 5 })
      assert.equal("memory", err.limit)
      assert.equal("strategy tier: route: took more than 16 MiB of memory and was stopped", err.message)
      local rounds = 0 -- Lua's buffer for joining texts halves with each collection
      repeat
        collectgarbage()
        rounds = rounds + 1
      until collectgarbage("count") - before < 2048 or rounds == 20
      assert.is_true(rounds < 20, ("%d KiB more than before"):format(collectgarbage("count") - before))
    end)
  end

  it("is that of one call, not of all together", function()
    local limited = wrap("return function(_, n) return #('x'):rep(n) end", { memory = 4 * MIB })
    for i = 1, 100 do
      assert.equal(MIB + i, limited.route({}, MIB + i))
    end
  end)

  it("is counted for what is kept at once, when the collector can keep up", function()
    local limited = wrap("return function() local n = 0 for i = 1, 2e5 do n = n + #{ i } end return n end",
      { memory = 64 * MIB, time = 5 })
    assert.equal(2e5, limited.route())
  end)

  it("is not counted outside", function()
    failure("return function() return ('x'):rep(1e9) end", { memory = MIB })
    assert.equal(8 * MIB, #("x"):rep(8 * MIB))
  end)

  it("is not that of the collector, which may work meanwhile", function()
    local limited = wrap("local collect = collectgarbage return function() collect() collect() return 'done' end",
      { memory = 1, time = 5 })
    assert.equal("done", limited.route())
    local before = collectgarbage("setpause", 123) -- each collection sets it anew, by what is alive
    collectgarbage()
    collectgarbage()
    assert.equal(os.getenv("LUNASHARD_GCSTRESS") ~= nil, collectgarbage("setpause", before) == 123)
  end)

  it("lets the collector go on as before", function()
    for _ = 1, 20 do
      failure("return function() local t for i = 1, 1e9 do t = { t } end end", { memory = MIB, time = 5 })
    end
    -- were it not so, garbage would pile up until the collector's longest pause
    local highest = 0
    collectgarbage()
    for i = 1, 2e5 do
      local _ = { ("%d"):format(i), {} }
      highest = math.max(highest, collectgarbage("count"))
    end
    collectgarbage()
    assert.is_true(highest < 64 * 1024 + 4 * collectgarbage("count"), ("%d KiB, of which %d alive"):format(highest,
      collectgarbage("count")))
  end)
end)

describe("A call that goes deep", function()
  after_each(assert_healthy)

  local DEPTHS = {
    ["recursion"] = "local function f(n) return 1 + f(n + 1) end return f(1)",
    ["recursion through gsub"] = "local function f(s) return (s:gsub('.', f)) end return f('x')",
    ["recursion through sort"] = "local function f() table.sort({ 1, 2 }, f) return true end return f()",
    ["recursion through __tostring"] =
      "local t t = setmetatable({}, { __tostring = function() return tostring(t) end }) return tostring(t)",
    ["recursion through format"] =
      "local t t = setmetatable({}, { __tostring = function() return ('%s'):format(t) end }) return tostring(t)",
    ["coroutines in coroutines"] = "local function f() return coroutine.wrap(f)() end return f()",
    ["coroutines in coroutines that are caught"] =
      "local function f() return coroutine.resume(coroutine.create(f)) end error(tostring(select(2, f())))",
    ["__index in __index"] =
      "local t = setmetatable({}, {}) getmetatable(t).__index = function(s, k) return s[k .. 'x'] end return t.x",
    ["gsub in sort in coroutines"] = [[
      local function f()
        table.sort({ 1, 2 }, function()
          return #(("x"):gsub(".", function() return coroutine.wrap(f)() end)) > 0
        end)
        return ""
      end
      return f()]],
  }

  for name, text in pairs(DEPTHS) do
    it("ends in an error: " .. name, function()
      local err = failure("return function() " .. text .. " end", { time = 0.3 })
      assert.equal("PLUGIN_FAILED", err.code)
    end)
  end
end)

describe("What a plug-in raises", function()
  after_each(assert_healthy)

  it("is a text, whatever it was", function()
    for text, expected in pairs({
      ["error()"] = "(a nil)",
      ["error({})"] = "(a table)",
      ["error(true)"] = "(a boolean)",
      ["error(42, 0)"] = "42",
      ["error('plain', 0)"] = "plain",
      ["error(print)"] = "(a function)",
      ["error(setmetatable({}, { __tostring = function() return 'told' end }))"] = "told",
      ["error(setmetatable({}, { __tostring = function() return {} end }))"] = "(a table)",
      ["error(setmetatable({}, { __metatable = 5 }))"] = "(a table)",
      ["error(coroutine.create(print))"] = "(a thread)",
    }) do
      local err = failure("return function() " .. text .. " end")
      assert.equal("strategy tier: route: " .. expected, err.message)
      assert.equal("string", type(err.cause))
    end
  end)

  it("is an error also when its __tostring fails", function()
    local err = failure("return function() error(setmetatable({}, { __tostring = function() error('no') end })) end")
    assert.equal("PLUGIN_FAILED", err.code)
  end)

  it("is cut when it is long", function()
    local err = failure("return function() error(('x'):rep(100000), 0) end")
    assert.is_true(#err.message < 600)
  end)
end)

describe("Failures", function()
  it("are counted in a row for each function and told of, and a success ends the row", function()
    local seen = {}
    local limited, meter = wrap("return function(_, key) return key.id.x end", {
      on_failure = function(err, in_a_row, name)
        seen[#seen + 1] = ("%s %d %s"):format(name, in_a_row, err.code)
      end,
    })
    for _, key in ipairs({ {}, {}, { id = { x = 1 } }, {} }) do
      pcall(limited.route, {}, key)
    end
    assert.same({ "route 1 PLUGIN_FAILED", "route 2 PLUGIN_FAILED", "route 1 PLUGIN_FAILED" }, seen)
    assert.equal(3, meter.failures)
    assert.equal("PLUGIN_FAILED", meter.last_error.code)
  end)

  it("that are told of to a function which raises are reported all the same", function()
    local warned
    local before = warn.set(function(message) warned = message end)
    local err = failure("return function() error('first') end", { on_failure = function() error("second") end })
    warn.set(before)
    assert.truthy(err.message:find("first", 1, true))
    assert.truthy(warned:find("second", 1, true))
  end)

  it("of a call within a call are the inner one's own, but its time is the outer one's", function()
    local inner, inner_meter = wrap("return function(_, n) if n == 1 then error('inner') end while true do end end")
    local outer, outer_meter = wrap("local inner, n = ... return function(inner, n) return inner({}, n) end", { time = 0.02 })
    local _, err = pcall(outer.route, inner.route, 1)
    assert.truthy(err.message:find("inner", 1, true))
    assert.same({ 1, 1 }, { inner_meter.failures, outer_meter.failures })
    _, err = pcall(outer.route, inner.route, 2)
    assert.equal("time", err.limit)
    assert.same({ 1, 2 }, { inner_meter.failures, outer_meter.failures })
    assert_healthy()
  end)
end)

describe("Calling a file", function()
  after_each(assert_healthy)

  it("gives what it returns, or what is wrong with it", function()
    assert.same({ true, 1, 2 }, { budget.call("plug-in x", nil, loadstring("return ..."), 1, 2) })
    local ok, err = budget.call("plug-in x", { time = 0.01 }, loadstring("while true do end", "@x.lua"))
    assert.is_nil(ok)
    assert.equal("plug-in x: ran longer than 100 ms and was stopped at x.lua:1", err.message)
    ok, err = budget.call("plug-in x", nil, loadstring("error('no')", "@x.lua"))
    assert.is_nil(ok)
    assert.equal("plug-in x: x.lua:1: no", err.message)
  end)
end)
