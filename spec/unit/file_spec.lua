describe("a file that takes nothing more", function()
  local jit_options = require("jit.opt")
  local good, full

  before_each(function()
    jit_options.start("hotloop=2")
    good, full = assert(io.open("/dev/null", "w")), assert(io.open("/dev/full", "w"))
  end)

  after_each(function()
    jit_options.start("hotloop=56")
    good:close()
    full:close()
  end)

  -- What it does for the full one once it is hot.
  local function hot(put)
    for _ = 1, 200 do
      put(good)
    end
    return put(full)
  end

  it("says so to code that has been compiled", function()
    local function put(file)
      local written, problem = file:write("some text\n")
      if written then
        written, problem = file:flush()
      end
      return written, problem
    end
    local written, problem = hot(put)
    assert.is_nil(written)
    assert.matches("No space left on device", problem)
  end)

  it("says so of a text that is longer than its buffer", function()
    local text = ("x"):rep(100000)
    local written, problem = hot(function(file)
      return file:write(text)
    end)
    assert.is_nil(written)
    assert.matches("No space left on device", problem)
  end)

  it("says so where it is the default output", function()
    local before = io.output()
    local written = hot(function(file)
      io.output(file)
      io.write("some text\n")
      return (io.output():flush())
    end)
    io.output(before)
    assert.is_nil(written)
  end)
end)
