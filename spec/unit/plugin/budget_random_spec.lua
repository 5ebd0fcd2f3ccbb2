local budget = require("lunashard.plugin.budget")
local errors = require("lunashard.errors")

-- LUNASHARD_SEED makes the same choices again, LUNASHARD_LONG many more of them.
local SEED = tonumber(os.getenv("LUNASHARD_SEED") or os.time() % 1000000)
local PROGRAMS = os.getenv("LUNASHARD_LONG") and 3000 or 60

-- What must be stopped, and what only fails or ends.
local ENDLESS = {
  "while true do end",
  "local s = 'x' while true do s = s .. s end",
  "local t = {} while true do t[#t + 1] = { #t } end",
  "while true do local t = {} for i = 1, 100 do t[i] = i .. 'x' end table.sort(t) end",
  "while true do pcall(string.rep, 'x', 1e9) end",
  "while true do pcall(string.find, ('x'):rep(100), ('x-'):rep(5) .. 'b') end",
  "while true do pcall(error, setmetatable({}, { __tostring = function() while true do end end })) end",
  "local t = {} while true do t[#t + 1] = coroutine.create(print) end",
  "while true do coroutine.wrap(coroutine.yield)() end",
  "local function f(n) return pcall(f, n + 1) and 1 end while true do f(1) end",
}
local ENDING = {
  "error('done')",
  "error({})",
  "local function f(n) return 1 + f(n + 1) end return f(1)",
  "local function f(s) return (s:gsub('.', f)) end return f('x')",
  "local function f() return coroutine.wrap(f)() end return f()",
  "return ('x'):rep(1e9)",
  "return ('x'):find('[a')",
  "return nil + 1",
  "coroutine.yield(1)",
  "return 1",
}

-- What may lie around it.
local AROUND = {
  "return pcall(function() @ end)",
  "return select(2, pcall(pcall, function() @ end))",
  "return xpcall(function() @ end, function(err) return err end)",
  "return xpcall(error, function() @ end)",
  "return coroutine.wrap(function() @ end)()",
  "return coroutine.resume(coroutine.create(function() @ end))",
  "table.sort({ 3, 1, 2 }, function() @ end)",
  "return (string.gsub('ab', '.', function() @ end))",
  "return setmetatable({}, { __index = function() @ end }).x",
  "return setmetatable({}, { __call = function() @ end })()",
  "return tostring(setmetatable({}, { __tostring = function() @ end }))",
  "return ('%s'):format(setmetatable({}, { __tostring = function() @ end }))",
  "return setmetatable({}, { __concat = function() @ end }) .. 'x'",
  "return setmetatable({}, { __lt = function() @ end }) < setmetatable({}, {})",
  "for _ in function() @ end do end",
  "error(setmetatable({}, { __tostring = function() @ end }))",
  "return (function(...) @ end)(1, 2, 3)",
}

local function program(random)
  local endless = random(2) == 1
  local text = endless and ENDLESS[random(#ENDLESS)] or ENDING[random(#ENDING)]
  for _ = 1, random(0, 4) do
    text = AROUND[random(#AROUND)]:gsub("@", function() return text end)
  end
  return text, endless
end

local function function_of(text)
  local chunk = assert(loadstring("return function() " .. text .. " end", "=program"))
  local env = { error = error, select = select, setmetatable = setmetatable, tostring = tostring, print = print }
  for name, value in pairs(budget.library) do
    env[name] = value
  end
  env.table = setmetatable({ insert = table.insert }, { __index = budget.library.table })
  setfenv(chunk, env)
  return budget.confine(chunk)()
end

describe("Whatever a plug-in does in a call", function()
  it("ends, and leaves the program as it was", function()
    math.randomseed(SEED)
    local healthy = budget.wrap({ kind = "strategy", name = "healthy", route = function_of("return ('x'):rep(3)") })
    for i = 1, PROGRAMS do
      local text, endless = program(math.random)
      local note = ("LUNASHARD_SEED=%d, program %d: %s"):format(SEED, i, text)
      local limited = budget.wrap({ kind = "aggregate", name = "tried", init = function_of(text) },
        { time = 0.01, memory = 8 * 1024 * 1024 })
      local ok, err = pcall(limited.init)
      assert.is_true(ok or errors.is(err, "PLUGIN_FAILED"), note)
      assert.is_nil((debug.gethook()), note)
      assert.equal(string.find, getmetatable("").__index.find, note)
      assert.equal("xxx", healthy.route(), note)
      if endless and text:sub(1, 5) == "while" then
        assert.truthy(not ok and err.limit, note .. " -> " .. tostring(err))
      end
    end
    for _ = 1, 5 do
      collectgarbage()
    end
  end)
end)
