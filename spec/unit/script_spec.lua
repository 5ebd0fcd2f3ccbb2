local errors = require("lunashard.errors")
local meter = require("lunashard.script.meter")
local progress = require("lunashard.script.progress")
local state = require("lunashard.script.state")
local summary = require("lunashard.script.summary")
local system = require("lunashard.core.system")

describe("a script's meter", function()
  it("tells share, rate and time left of what was done in the last ten seconds", function()
    local one = meter.new(1000, 100)
    for second = 1, 20 do -- ten slow seconds, ten fast ones
      one:set(second <= 10 and second or 10 + (second - 10) * 50, 100 + second)
      one:read(100 + second)
    end
    local seen = one:read(120)
    assert.equal(510, seen.done)
    assert.near(0.51, seen.share, 1e-9)
    assert.near(50, seen.rate, 3)
    assert.near(490 / 50, seen.left, 1)
    assert.equal(20, seen.elapsed)
  end)

  it("says how long nothing has changed, and no time left while nothing moves", function()
    local one = meter.new(100, 0)
    one:set(10, 1)
    one:read(1)
    for second = 2, 30 do
      one:set(10, second)
      one:read(second)
    end
    local seen = one:read(30)
    assert.equal(29, seen.idle)
    assert.equal(0, seen.rate)
    assert.is_nil(seen.left)
  end)

  it("knows neither share nor end of work without a total", function()
    local one = meter.new(nil, 0)
    one:set(50, 5)
    local seen = one:read(5)
    assert.is_nil(seen.share)
    assert.is_nil(seen.left)
    assert.equal(10, seen.rate)
  end)

  it("keeps few samples however often it is read", function()
    local one = meter.new(nil, 0)
    for i = 1, 10000 do
      one:set(i, i / 50)
      one:read(i / 50)
    end
    assert.is_true(#one.samples <= 25)
  end)
end)

describe("a script's times", function()
  it("are written as clocks are", function()
    assert.equal("0:05", progress.clock(4.2))
    assert.equal("1:30", progress.clock(90))
    assert.equal("2:00:01", progress.clock(7201))
  end)
end)

describe("a script's summary", function()
  local down = errors.new("SHARD_DOWN")

  local function of(...)
    local all = summary.new()
    for i, state_name in ipairs({ ... }) do
      local err = state_name == "unreachable" and down or nil
      all:add("shard" .. i, state_name, nil, err)
    end
    return all
  end

  it("gives the exit code that the shards deserve", function()
    assert.equal(0, of("ok", "changed"):exit_code())
    assert.equal(0, of():exit_code())
    assert.equal(4, of("ok", "failed"):exit_code())
    assert.equal(4, of("changed", "unreachable", "skipped"):exit_code())
    assert.equal(1, of("failed", "unreachable"):exit_code())
    assert.equal(1, of("failed", "skipped"):exit_code())
  end)

  it("counts in words", function()
    assert.equal("2 shards ok, 1 changed, 1 unreachable", of("ok", "unreachable", "changed", "ok"):text())
    assert.equal("1 shard failed", of("failed"):text())
  end)

  it("keeps the worse of what was said about a shard", function()
    local all = of("ok", "failed", "changed")
    all:add("shard1", "changed")
    all:add("shard2", "ok")
    all:add("shard3", "ok")
    assert.equal("2 shards changed, 1 failed", all:text())
    assert.equal("unreachable", summary.state_of(down))
    assert.equal("failed", summary.state_of(errors.new("SQL", { message = "x" })))
  end)

  it("raises for a word that it does not know", function()
    assert.error_matches(function()
      summary.new():add("shard1", "fine")
    end, "expected one of ok, changed")
  end)
end)

describe("a script's state file", function()
  local path

  before_each(function()
    path = os.tmpname()
    os.remove(path)
  end)

  after_each(function()
    os.remove(path)
  end)

  it("brings a run back to where it stood", function()
    local first = assert(state.open(path, { table = "users" }))
    assert.is_false(first.is_resumed)
    first.values.last = { "42", "x" }
    assert(first:save())
    local second = assert(state.open(path, { table = "users" }))
    assert.is_true(second.is_resumed)
    assert.same({ "42", "x" }, second.values.last)
    assert.is_false(assert(state.open(path, { table = "users" }, { restart = true })).is_resumed)
    second:remove()
    assert.is_nil(system.stat(path))
  end)

  it("is refused when it is of another run, or none at all", function()
    assert(state.open(path, { table = "users" })):save()
    local none, err = state.open(path, { table = "orders" })
    assert.is_nil(none)
    assert.matches("another run %(table was users, and is orders now%)", err.message)
    assert(system.write_file(path, "{ half", 384))
    none, err = state.open(path, { table = "users" })
    assert.is_nil(none)
    assert.matches("is no state of a run", err.message)
  end)

  it("is told of when it cannot be written", function()
    local ok, err = assert(state.open("/nowhere/at/all", {})):save()
    assert.is_nil(ok)
    assert.equal("INVALID", err.code)
    assert.matches("state file /nowhere/at/all", err.message)
  end)
end)
