local options = require("lunashard.options")

local KNOWN = options.known({ a = "any", b = "boolean", c = "count" }, { d = "seconds", e = "string", f = "table" })
local GOOD = { a = false, b = true, c = 0, d = 0.5, e = "", f = {} }

-- Stands for a public function that was given options.
local function call(opts)
  return (options.check(opts, KNOWN, "call"))
end

local function fails(opts, text)
  local ok, message = pcall(function() call(opts) end)
  assert.is_false(ok)
  assert.is_truthy(message:find("^%S*options_spec.lua:%d+: "), message)
  assert.is_truthy(message:find(text, 1, true), message)
end

-- All sub-sets of the good options: one that is wrong may come at any place among any number of others.
local function each_set(visit)
  for bits = 0, 63 do
    local set, bit = {}, 1
    for name in pairs(GOOD) do
      if bits % (2 * bit) >= bit then
        set[name] = GOOD[name]
      end
      bit = bit * 2
    end
    visit(set)
  end
end

describe("options", function()
  it("are taken as they are when each is known and of its type", function()
    each_set(function(set)
      assert.equal(set, call(set))
    end)
    assert.same({}, call(nil))
  end)

  it("are refused for one unknown name, however many there are", function()
    each_set(function(set)
      set.bb = true
      fails(set, 'unknown option "bb"')
      set.bb, set[1] = nil, true
      fails(set, "unknown option")
    end)
  end)

  it("are refused for one wrong value, however many there are", function()
    local wrong = {
      b = { 1, "option b: expected a boolean, got 1" },
      c = { 0.5, "option c: expected a whole number, 0 or more, got 0.5" },
      d = { 0, "option d: expected a number of seconds above 0, got 0" },
      e = { false, "option e: expected a string, got false" },
      f = { "x", 'option f: expected a table, got "x"' },
    }
    for name, case in pairs(wrong) do
      each_set(function(set)
        set[name] = case[1]
        fails(set, case[2])
      end)
    end
  end)

  it("must be a table", function()
    fails("x", 'options must be a table, got "x"')
  end)
end)
