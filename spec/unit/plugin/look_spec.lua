local environment = require("lunashard.plugin.environment")
local look = require("lunashard.plugin.look")

local function findings(text, kind)
  local list = {}
  local env = environment.new({ kind = kind or "strategy", shown = "x.lua", require = require })
  for i, one in ipairs(look.at(assert(loadstring(text)), env)) do
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
        return math.floor(tonumber(key)) + os.time() + string.byte(text, 1) + lunashard.hash(key, 8)
      end, io = 1, state = { os = os } }
    ]]))
  end)

  it("finds a global that is set, in whatever function, with its line", function()
    local found = findings("return function()\n  count = 1\nend, function() return function()\n  function f() end end end")
    assert.equal(2, #found)
    assert.matches("^2: .*count.*make it local", found[1])
    assert.matches("^4: .* f .*make it local", found[2])
  end)

  it("finds I/O, clocks and randomness by their full names", function()
    local found = findings("local a = io.open\nlocal b = os.time()\nlocal c = math.random(3)\nlocal d = os.exit\nprint(1)")
    assert.equal(5, #found)
    assert.matches("^1: there is no io%.open in a plug%-in: plug%-ins do no I/O", found[1])
    assert.matches("^2: there is no os%.time .*same answer", found[2])
    assert.matches("^3: there is no math%.random .*same answer", found[3])
    assert.matches("^4: there is no os%.exit ", found[4])
    assert.matches("^5: there is no global print .*no I/O", found[5])
  end)

  it("lets an aggregate ask the clock and chance, and no more", function()
    assert.same({}, findings("return math.random() + os.time()", "aggregate"))
    assert.equal(2, #findings("return os.exit, io.open", "aggregate"))
  end)

  it("finds what would make or reach other code", function()
    for _, name in ipairs({ "load", "loadstring", "dofile", "setfenv", "debug", "_G", "jit", "package" }) do
      local found = findings(("local x = %s"):format(name))
      assert.equal(1, #found, name)
      assert.matches("^1: there is no global " .. name .. " ", found[1])
    end
  end)

  it("names the nearest one of what there is for a name that is mistyped", function()
    assert.same({ "1: there is no global iparis in a plug-in; did you mean ipairs?" }, findings("iparis({})"))
    assert.same({ "1: there is no math.flor in a plug-in; did you mean math.floor?" }, findings("return math.flor(1)"))
  end)

  it("finds names whatever the number of constants before them", function()
    local lines = {}
    for i = 1, 300 do
      lines[i] = ("do local _%d = tonumber('text %d') end"):format(i % 3, i)
    end
    lines[#lines + 1] = "return os.time()"
    local found = findings("return function()\n" .. table.concat(lines, "\n") .. "\nend")
    assert.equal(1, #found)
    assert.matches("^302: .*os", found[1])
  end)
end)
