local look = require("lunashard.plugin.look")

-- A small environment, as a plug-in might get it.
local ENVIRONMENT = {
  pairs = pairs, ipairs = ipairs, tonumber = tonumber, tostring = tostring, error = error, require = require,
  math = { floor = math.floor, max = math.max },
  string = { byte = string.byte, sub = string.sub },
}

local function findings(text)
  local list = {}
  for i, one in ipairs(look.at(assert(loadstring(text)), ENVIRONMENT)) do
    list[i] = one.line .. ": " .. one.message
  end
  return list
end

describe("the look at a plug-in's code", function()
  it("finds nothing in what keeps to the environment", function()
    assert.same({}, findings([[
      -- io.write("this is a comment"), os.exit()
      local text = "math.random()"
      local os = { time = function() return 0 end }
      return { bucket = function(state, key)
        return math.floor(tonumber(key)) + os.time() + string.byte(text, 1)
      end, io = 1, state = { os = os } }
    ]]))
  end)

  it("finds a global that is set, in whatever function, with its line", function()
    assert.same({ "2: sets the global count: make it local", "4: sets the global f: make it local" },
      findings("return function()\n  count = 1\nend, function() return function()\n  function f() end end end"))
  end)

  it("finds I/O, clocks and randomness by their full names", function()
    local found = findings("local a = io.open\nlocal b = os.time()\nlocal c = math.random(3)\nlocal d = os.exit\nprint(1)")
    assert.equal(5, #found)
    assert.matches("^1: io.open reads and writes files", found[1])
    assert.matches("^2: os.time asks the clock", found[2])
    assert.matches("^3: math.random is random", found[3])
    assert.matches("^4: os.exit is the operating system", found[4])
    assert.matches("^5: print writes to stdout", found[5])
  end)

  it("finds what would make or reach other code", function()
    for _, name in ipairs({ "load", "loadstring", "dofile", "setfenv", "debug", "_G", "jit", "package" }) do
      local found = findings(("local x = %s"):format(name))
      assert.equal(1, #found, name)
      assert.matches("^1: " .. name .. " ", found[1])
    end
  end)

  it("names the nearest one of what there is for a name that is mistyped", function()
    assert.same({ "1: iparis is not among what a plug-in may use; did you mean ipairs?" }, findings("iparis({})"))
    assert.same({ "1: math.flor is not among what a plug-in may use; did you mean math.floor?" },
      findings("return math.flor(1)"))
  end)

  it("does not ask the environment more than it bears", function()
    local strict = setmetatable({}, { __index = function(_, name)
      error("no global " .. name)
    end })
    local found = look.at(assert(loadstring("return x, y.z")), strict)
    assert.equal(2, #found)
  end)

  it("finds names whatever the number of constants before them", function()
    local lines = {}
    for i = 1, 300 do
      lines[i] = ("local _%d = tonumber('text %d')"):format(i % 3, i)
    end
    lines[#lines + 1] = "return os.time()"
    local text = "return function()\n" .. table.concat(lines, "\n"):gsub("local", "do local"):gsub("%)\n", ") end\n") .. "\nend"
    local found = findings(text)
    assert.equal(1, #found)
    assert.matches("^302: os", found[1])
  end)
end)
