local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local system = require("lunashard.core.system")

local FOLDERS = { strategy = "strategies", aggregate = "aggregates", extractor = "extractors", policy = "policies",
  planner = "policies" }

local dir

local function new(...)
  return cli.run({ "new", ... }, { cwd = dir })
end

local function read(path)
  local file = assert(io.open(dir .. "/" .. path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

describe("lunashard new", function()
  before_each(function()
    dir = cli.directory()
  end)

  after_each(function()
    cli.remove_all()
  end)

  for kind, folder in pairs(FOLDERS) do
    it(("writes %s %s of at most 35 lines, with comments, whose spec passes"):format(
      kind == "aggregate" and "an" or kind == "extractor" and "an" or "a", kind), function()
      local result = new(kind, "tenant_tier")
      assert.equal(0, result.code, result.stderr)
      local path, spec = ("plugins/%s/tenant_tier.lua"):format(folder), ("spec/tenant_tier_%s_spec.lua"):format(kind)
      assert.equal(path .. "\n" .. spec .. "\n", result.stdout)
      local text = read(path)
      local _, lines = text:gsub("\n", "")
      local _, comments = text:gsub("%-%- ", "")
      assert.is_true(lines >= 10 and lines <= 35, lines .. " lines")
      assert.is_true(comments >= 3, comments .. " comments")
      assert.is_nil(text:find("$", 1, true))
      local tested = cli.run({ "test" }, { cwd = dir })
      assert.equal(0, tested.code, tested.stdout)
      assert.matches("[1-9]%d* successes / 0 failures / 0 errors / 0 pending\n$", tested.stdout)
    end)
  end

  local BROKEN = {
    strategy = { "state.pinned%[bucket%] or ", "" },
    aggregate = { "value > acc.value", "value < acc.value" },
    extractor = { "return params%[1%]", "return params[2]" },
    policy = { "return false", "return nil" },
    planner = { "rows%[id%] < rows%[best%]", "rows[id] > rows[best]" },
  }

  for kind, change in pairs(BROKEN) do
    it(("writes a spec that fails when the %s does something else"):format(kind), function()
      new(kind, "mine")
      local path = ("plugins/%s/mine.lua"):format(FOLDERS[kind])
      local text, n = read(path):gsub(change[1], change[2])
      assert.equal(1, n)
      cli.write(dir, path, text)
      assert.equal(1, cli.run({ "test" }, { cwd = dir }).code)
    end)
  end

  it("writes into the folder that is named, and the spec beside it", function()
    local result = new("strategy", "mine", "--dir", "deep/below/my_plugins/", "--json")
    assert.equal(0, result.code, result.stderr)
    assert.same({ plugin = "deep/below/my_plugins/strategies/mine.lua", spec = "deep/below/spec/mine_strategy_spec.lua" },
      cjson.decode(result.stdout))
    assert.equal(0, cli.run({ "test", "deep/below/spec" }, { cwd = dir }).code)
  end)

  it("overwrites nothing: neither a plug-in nor a spec", function()
    new("strategy", "mine")
    cli.write(dir, "plugins/strategies/mine.lua", "-- work of days\n")
    local result = new("strategy", "mine", "--json")
    assert.equal(1, result.code)
    assert.equal("plugins/strategies/mine.lua exists already", cjson.decode(result.stdout).error.message)
    assert.equal("-- work of days\n", read("plugins/strategies/mine.lua"))

    assert(system.unlink(dir .. "/plugins/strategies/mine.lua"))
    assert.equal(1, new("strategy", "mine").code)
    assert.is_nil(system.stat(dir .. "/plugins/strategies/mine.lua"))
  end)

  it("leaves nothing behind when the spec cannot be written", function()
    cli.write(dir, "spec", "a file where the folder should be")
    local result = new("policy", "mine")
    assert.equal(1, result.code)
    assert.matches("spec", result.stderr)
    assert.is_nil(system.stat(dir .. "/plugins/policies/mine.lua"))
  end)

  it("refuses names that scripts could not write, and those of shipped plug-ins", function()
    for _, name in ipairs({ "9lives", "a-b", "end", "../x", "" }) do
      local result = new("aggregate", name)
      assert.equal(2, result.code)
      assert.matches("cannot be a plug%-in's name", result.stderr)
    end
    for kind, name in pairs({ strategy = "hash", aggregate = "sum" }) do
      local result = new(kind, name)
      assert.equal(1, result.code)
      assert.matches(("%s %q is a shipped one"):format(kind, name), result.stderr, 1, true)
    end
    assert.is_nil(system.stat(dir .. "/plugins"))
  end)

  it("names the nearest kind", function()
    local result = new("stratgy", "mine")
    assert.equal(2, result.code)
    assert.matches('did you mean "strategy"?', result.stderr, 1, true)
  end)
end)
