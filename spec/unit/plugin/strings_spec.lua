local strings = require("lunashard.plugin.strings")

local LONG = os.getenv("LUNASHARD_LONG") ~= nil

local PIECES = {
  "a", "b", "x", "-", ".", "%a", "%d", "%w", "%s", "%p", "%S", "%U", "%l", "%x", "%c", "%g", "%z", "%.", "%%", "%-",
  "[ab]", "[^ab]", "[a-c]", "[%d-]", "[]]", "[^]x]", "[a%]b]", "[-a]", "[%w_]", "%b()", "%bxx", "%f[%a]", "%f[^%w]",
  "$", "^", "(a)", "(.)", "()", "(%a*)", "(.-)", "((a)b?)",
}
local REPEATS = { "", "", "", "*", "+", "-", "?" }
local BYTES = { "a", "b", "c", "x", "A", "1", "2", " ", "(", ")", "-", "%", "]", "^", "$", ".", "\0", "\n", "\255" }

local random

local function pick(list)
  return list[random(#list)]
end

local function a_pattern()
  local parts = { random(4) == 1 and "^" or "" }
  for _ = 1, random(5) do
    local piece = pick(PIECES)
    local repeats = piece:find("^%%[bf]") or piece:find("^%(") or piece == "$" or piece == "^"
    parts[#parts + 1] = piece .. (repeats and "" or pick(REPEATS))
  end
  if random(5) == 1 then
    parts[#parts + 1] = "%1"
  end
  if random(5) == 1 then
    parts[#parts + 1] = "$"
  end
  return table.concat(parts)
end

local function a_text()
  local parts = {}
  for i = 1, random(0, 15) do
    parts[i] = pick(BYTES)
  end
  return table.concat(parts)
end

local function all_of(fn, text, pattern)
  local list = {}
  for a, b, c in fn(text, pattern) do
    list[#list + 1] = { a, b, c }
    if #list > 50 then
      break
    end
  end
  return list
end

local function answer(fn, ...)
  local found = { pcall(fn, ...) }
  return found
end

local function replacement()
  return pick({ "<%0>", "%%", "%1", "", "x%0%0", "%a", { a = "1", ab = true, [""] = 2, x = false }, function(a, b)
    return a == "a" and "[" .. tostring(b) .. "]" or nil
  end })
end

describe("Bounded patterns", function()
  it("find what Lua's find", function()
    local seed = tonumber(os.getenv("LUNASHARD_SEED")) or os.time()
    local state = seed % 2147483647 + 1
    random = function(a, b)
      state = state * 16807 % 2147483647
      local low, high = b and a or 1, b or a
      return low + state % (high - low + 1)
    end
    local compared = 0
    for _ = 1, LONG and 200000 or 5000 do
      local pattern, text = a_pattern(), a_text()
      local init = pick({ 1, 1, 1, 0, 2, -1, -3, 8, 20, 17 })
      local note = ("seed %d: %q in %q from %d"):format(seed, pattern, text, init)
      local ours, theirs = answer(strings.find, text, pattern, init), answer(string.find, text, pattern, init)
      if ours[1] then -- what we refuse is malformed, which Lua may not notice
        compared = compared + 1
        assert.same(theirs, ours, note)
        assert.same(answer(string.match, text, pattern, init), answer(strings.match, text, pattern, init), note)
        local with, most = replacement(), pick({ 100, 100, 0, 1, 2 })
        assert.same(answer(string.gsub, text, pattern, with, most)[2], answer(strings.gsub, text, pattern, with, most)[2],
          note)
        if pattern:sub(1, 1) ~= "^" then
          assert.same(answer(all_of, string.gmatch, text, pattern), answer(all_of, strings.gmatch, text, pattern), note)
        end
      else
        assert.truthy(ours[2]:find("capture") or ours[2]:find("malformed"), note .. ours[2])
        assert.truthy(theirs[1] == false or theirs[2] == nil, note)
      end
    end
    assert.is_true(compared > 3500)
  end)

  it("take any bytes for a pattern", function()
    local seed = tonumber(os.getenv("LUNASHARD_SEED")) or os.time()
    math.randomseed(seed)
    local bytes = "%%%[]()^$.*+-?bfaw1]x\255" -- not \0, which to LuaJIT is a pattern's end
    for _ = 1, LONG and 300000 or 5000 do
      local parts = {}
      for i = 1, math.random(0, 12) do
        local at = math.random(#bytes)
        parts[i] = bytes:sub(at, at)
      end
      local pattern = table.concat(parts)
      local ours, theirs = answer(strings.find, "xab1(]%", pattern), answer(string.find, "xab1(]%", pattern)
      if ours[1] and theirs[1] then
        assert.same(theirs, ours, ("seed %d: %q"):format(seed, pattern))
      else
        assert.is_true(not ours[1], ("seed %d: %q"):format(seed, pattern))
      end
    end
  end)

  it("find plain texts", function()
    assert.same({ 3, 4 }, { strings.find("a.%d", "%d", 1, true) })
    assert.same({ 3, 2 }, { strings.find("ab", "", 3) })
    assert.same({ 1, 1 }, { strings.find("a", "a", -5) })
    assert.is_nil(strings.find("ab", "c", 1, true))
    assert.same({ 2, 2 }, { strings.find("a\0b", "\0") })
    assert.same({ 1, 3 }, { strings.find("a\0b", "%a\0b+") })
  end)

  it("say what is wrong with a pattern, whether or not it would be reached", function()
    for pattern, problem in pairs({
      ["x%"] = "malformed pattern (ends with '%')",
      ["x["] = "malformed pattern (missing ']')",
      ["x[a%"] = "malformed pattern (missing ']')",
      ["x%b"] = "malformed pattern (missing arguments to '%b')",
      ["x%bq"] = "malformed pattern (missing arguments to '%b')",
      ["x%fa"] = "malformed pattern (missing '[' after '%f')",
      ["x(a"] = "unfinished capture",
      ["xa)"] = "invalid pattern capture",
      ["x%1"] = "invalid capture index",
      ["x(a%1)"] = "invalid capture index",
      [("()"):rep(33)] = "too many captures",
      [("a*"):rep(250)] = "pattern too complex",
    }) do
      assert.error_matches(function() strings.find("b", pattern) end, problem, 1, true)
      assert.error_matches(function() strings.gsub("b", pattern, "") end, problem, 1, true)
    end
  end)

  it("give up when there are too many ways", function()
    local text = ("x"):rep(2000)
    for _, pattern in ipairs({ ("x*"):rep(10) .. "b", ("x-"):rep(10) .. "b", ("x?"):rep(150) .. "b" .. ("x"):rep(150),
      ("(x*)"):rep(8) .. "%1%2b" }) do
      assert.error_matches(function() strings.find(text, pattern) end, "pattern too costly", 1, true)
      assert.error_matches(function() strings.match(text, pattern) end, "pattern too costly", 1, true)
      assert.error_matches(function() strings.gsub(text, pattern, "") end, "pattern too costly", 1, true)
      assert.error_matches(function() strings.gmatch(text, pattern)() end, "pattern too costly", 1, true)
    end
  end)

  it("refuse what they cannot work on", function()
    assert.error_matches(function() strings.find({}, "a") end, "string expected, got table")
    assert.error_matches(function() strings.gsub("a", "a") end, "string, function or table expected")
    assert.error_matches(function() strings.gsub("a", "a", function() return {} end) end, "invalid replacement value")
    assert.error_matches(function() strings.gsub("a", "a", "%2") end, "invalid capture index")
    assert.equal("4-4", (strings.gsub(424, "2", "-")))
  end)
end)
