local cli = require("spec.support.cli")
local system = require("lunashard.core.system")

local dir

-- Runs one spec file and gives the result with the counts of its last line.
local function test(content, ...)
  cli.write(dir, "some_spec.lua", content)
  local result = cli.run({ "test", dir, ... })
  local pattern = "(%d+) successes / (%d+) failures / (%d+) errors / (%d+) pending\n$"
  local successes, failures, errors, pending = result.stdout:match(pattern)
  assert(successes, result.stdout .. result.stderr)
  result.counts = { tonumber(successes), tonumber(failures), tonumber(errors), tonumber(pending) }
  return result
end

describe("lunashard test", function()
  before_each(function()
    dir = cli.directory()
  end)

  after_each(function()
    cli.remove_all()
  end)

  it("ends with 0 and counts in the last line when all tests pass", function()
    local result = test("it('is so', function() end) it('waits', function() require('lunashard.task').sleep(0.01) end)")
    assert.same({ 2, 0, 0, 0 }, result.counts)
    assert.equal(0, result.code)
  end)

  it("ends with 1 when a test fails", function()
    local result = test("it('is wrong', function() assert.equal(1, 2) end) it('is so', function() end)")
    assert.same({ 1, 1, 0, 0 }, result.counts)
    assert.equal(1, result.code)
    assert.matches("is wrong", result.stdout)
  end)

  it("ends with 1 when a test raises, and goes on with the others", function()
    local result = test("it('raises', function() error('x') end) it('is so', function() end)")
    assert.same({ 1, 0, 1, 0 }, result.counts)
    assert.equal(1, result.code)
  end)

  it("ends with 1 when a spec file cannot be loaded", function()
    local result = test("this is not Lua")
    assert.equal(1, result.counts[3])
    assert.equal(1, result.code)
  end)

  it("ends with 1 when there is no such file", function()
    local result = cli.run({ "test", dir .. "/none_spec.lua" })
    assert.equal(1, result.code)
  end)

  it("counts pending tests apart and does not fail for them", function()
    local result = test("pending('later') it('is skipped', function() pending('why') end)")
    assert.same({ 0, 0, 0, 2 }, result.counts)
    assert.equal(0, result.code)
  end)

  it("passes busted's options on", function()
    local result = test("it('one', function() end) it('two', function() error('x') end)", "--filter=one")
    assert.same({ 1, 0, 0, 0 }, result.counts)
    assert.equal(0, result.code)
  end)

  it("fails a test that leaves a task behind", function()
    local result = test([[
      it('leaks', function()
        local task = require('lunashard.task')
        task.spawn(function() task.sleep(60) end)
      end)
    ]])
    assert.equal(1, result.code)
    assert.matches("the test left 1 tasks", result.stdout)
  end)

  it("does not take for a leak what after_each closes", function()
    local result = test([[
      local task, running = require('lunashard.task')
      after_each(function() running:cancel() end)
      it('is clean in the end', function()
        running = task.spawn(function() task.sleep(60) end)
      end)
    ]])
    assert.same({ 1, 0, 0, 0 }, result.counts)
    assert.equal(0, result.code)
  end)

  it("fails a spec file whose set-up leaves a task behind", function()
    local result = test([[
      setup(function()
        local task = require('lunashard.task')
        task.spawn(function() task.sleep(60) end)
      end)
      it('is so', function() end)
    ]])
    assert.equal(1, result.code)
    assert.matches("some_spec%.lua left 1 tasks", result.stdout)
  end)

  it("ends with 1 when a test calls os.exit(1), with that code for another", function()
    cli.write(dir, "some_spec.lua", "it('exits', function() os.exit(9) end)")
    assert.equal(9, cli.run({ "test", dir }).code)
  end)

  describe("with a cluster", function()
    local TEXT = [[
      local testing = require("lunashard.testing")
      describe("a script", function()
        local cluster
        setup(function()
          cluster = testing.cluster({ shards = 1, strategy = { "hash", shard_key = "tenant_id" } })
        end)
        it("reads from real servers", function()
          local result = assert(cluster.router:execute("SELECT $1::int8 AS n", { 42 }, { routing_key = 42 }))
          assert.equal(42, result.rows[1].n)
          assert.equal(1, #cluster.shards)
        end)
        it("may have one of its own, which goes with the test", function()
          local own = testing.cluster({ shards = 1 })
          assert.equal(1, #assert(own.router:scatter_gather("SELECT 1 AS n")).rows)
        end)
      end)
    ]]

    it("runs on servers that are started for the run and removed at its end, and says nothing of them", function()
      local base = cli.directory(493)
      cli.write(dir, "some_spec.lua", TEXT)
      local result = cli.run({ "test", dir }, { env = { TMPDIR = base } })
      assert.matches("\n2 successes / 0 failures / 0 errors / 0 pending\n$", result.stdout)
      assert.equal("", result.stderr)
      assert.equal(0, result.code)
      assert.same({}, system.listdir(base))
    end)

    it("removes the servers also when a test fails, and closes what the test opened", function()
      local base = cli.directory(493)
      cli.write(dir, "some_spec.lua", [[
        it("fails on a cluster", function()
          require("lunashard.testing").cluster({ shards = 1 })
          error("on purpose")
        end)
      ]])
      local result = cli.run({ "test", dir }, { env = { TMPDIR = base } })
      assert.matches("\n0 successes / 0 failures / 1 errors / 0 pending\n$", result.stdout)
      assert.matches("on purpose", result.stdout)
      assert.is_nil(result.stdout:find("behind", 1, true))
      assert.equal(1, result.code)
      assert.same({}, system.listdir(base))
    end)

    it("removes the servers when it is interrupted", function()
      local base = cli.directory(493)
      cli.write(dir, "some_spec.lua", [[
        it("is interrupted", function()
          require("lunashard.testing").cluster({ shards = 1 })
          require("lunashard.task").sleep(60)
        end)
      ]])
      local running = cli.spawn({ "test", dir }, { env = { TMPDIR = base } })
      local function sandboxes()
        local folder = (system.listdir(base) or {})[1]
        return folder and system.listdir(base .. "/" .. folder) or {}
      end
      cli.wait_until("the servers run", function()
        local name = sandboxes()[1]
        return name and system.stat(("%s/%s/%s/cluster.lua"):format(base, system.listdir(base)[1], name))
      end)
      running:signal("INT")
      cli.wait_until("they are gone", function()
        return #sandboxes() == 0
      end)
      running:close()
    end)
  end)
end)
