local core = require("lunashard.core.task")
local errors = require("lunashard.errors")
local task = require("lunashard.task")

describe("task", function()
  local function wait_until(condition)
    local deadline = task.now() + 5
    while not condition() do
      assert(task.now() < deadline, "waited in vain")
      task.sleep(0.001)
    end
  end

  -- A task that waits for ever, and says in `seen` what ended its wait.
  local function parked(seen)
    local spawned = task.spawn(function()
      local ok, err = pcall(task.sleep, 1000)
      seen[#seen + 1] = err
      if not ok then
        error(err, 0)
      end
    end)
    wait_until(function()
      return spawned:status() == "waiting"
    end)
    return spawned
  end

  local function is_canceled(ok, err)
    assert.is_nil(ok)
    assert.is_true(errors.is(err, "CANCELED"), tostring(err))
  end

  describe("spawn", function()
    it("starts the function in a later turn, with its arguments, holes included", function()
      local got
      local spawned = task.spawn(function(...)
        got = { n = select("#", ...), ... }
      end, 1, nil, "three", nil)
      assert.is_nil(got)
      assert.equal("starting", spawned:status())
      assert.is_true((spawned:join()))
      assert.same({ n = 4, 1, nil, "three", nil }, got)
    end)

    it("starts tasks in the order in which they were spawned", function()
      local order, last = {}, nil
      for i = 1, 20 do
        last = task.spawn(function()
          order[i] = #order + 1
        end)
      end
      last:join()
      for i = 1, 20 do
        assert.equal(i, order[i])
      end
    end)

    it("refuses what is no function, where it was called", function()
      local ok, err = pcall(task.spawn, 42)
      assert.is_false(ok)
      assert.truthy(err:find("spawn: expected a function, got number", 1, true), err)
    end)

    it("chains 10,000 deep", function()
      local depth = 0
      local function dig(n)
        depth = n
        if n < 10000 then
          local ok, result = task.spawn(dig, n + 1):join()
          assert(ok, result)
          return result
        end
        return "bottom"
      end
      local ok, result = task.spawn(dig, 1):join()
      assert.is_true(ok)
      assert.equal("bottom", result)
      assert.equal(10000, depth)
    end)
  end)

  describe("join", function()
    it("returns everything that the function returned, nils included", function()
      local function pack(...)
        return { n = select("#", ...), ... }
      end
      local got = pack(task.spawn(function()
        return nil, 2, nil
      end):join())
      assert.same({ n = 4, true, nil, 2, nil }, got)
      assert.equal(1, pack(task.spawn(function() end):join()).n)
    end)

    it("returns thousands of values", function()
      local got = { task.spawn(function()
        local many = {}
        for i = 1, 5000 do
          many[i] = i
        end
        return unpack(many)
      end):join() }
      assert.equal(5001, #got)
      assert.equal(5000, got[5001])
    end)

    it("gives the same outcome as often as it is asked, also long after the end", function()
      local spawned = task.spawn(function()
        return "once", 2
      end)
      for _ = 1, 3 do
        local ok, a, b = spawned:join()
        assert.same({ true, "once", 2 }, { ok, a, b })
        collectgarbage()
      end
    end)

    it("gives an error object as it was raised", function()
      local raised = errors.new("NO_SHARD", { message = "mine" })
      local ok, err = task.spawn(function()
        task.sleep(0)
        error(raised)
      end):watch():join()
      assert.is_nil(ok)
      assert.equal(raised, err)
    end)

    it("wraps an error that is a string or a table, and keeps it as the cause", function()
      local ok, err = task.spawn(function()
        error("plain text", 0)
      end):watch():join()
      assert.is_nil(ok)
      assert.is_true(errors.is(err, "PLUGIN_FAILED"))
      assert.equal("plain text", err.message)
      local cause = { reason = 7 }
      ok, err = task.spawn(error, cause):watch():join()
      assert.is_nil(ok)
      assert.equal(cause, err.cause)
    end)

    it("returns TIMEOUT while the task goes on, and its result later", function()
      local spawned = task.spawn(function()
        task.sleep(0.1)
        return "late"
      end)
      local started = task.now()
      local ok, err = spawned:join(0.02)
      assert.is_nil(ok)
      assert.is_true(errors.is(err, "TIMEOUT"))
      assert.is_true(task.now() - started >= 0.0199)
      assert.equal("waiting", spawned:status())
      local result
      ok, result = spawned:join(5)
      assert.is_true(ok)
      assert.equal("late", result)
    end)

    it("with timeout 0 asks an ended task for its outcome and another for none", function()
      local ended = task.spawn(function()
        return 1
      end)
      ended:join()
      assert.same({ true, 1 }, { ended:join(0) })
      local seen = {}
      local waits = parked(seen)
      local _, err = waits:join(0)
      assert.is_true(errors.is(err, "TIMEOUT"))
      waits:cancel()
      waits:join()
    end)

    it("serves many joiners, in the order in which they came", function()
      local order, joiners = {}, {}
      local spawned = task.spawn(function()
        task.sleep(0.02)
        return "shared"
      end)
      for i = 1, 50 do
        joiners[i] = task.spawn(function()
          local _, result = spawned:join()
          order[#order + 1] = i
          return result
        end)
      end
      for i = 1, 50 do
        assert.same({ true, "shared" }, { joiners[i]:join() })
        assert.equal(i, order[i])
      end
    end)

    it("of oneself is refused, not waited for", function()
      local self
      self = task.spawn(function()
        return pcall(self.join, self)
      end)
      local _, ok, err = self:join(5)
      assert.is_false(ok)
      assert.truthy(err:find("a task cannot join itself", 1, true), err)
    end)

    it("ends when the joiner is cancelled, and leaves the joined task alone", function()
      local seen = {}
      local joined = parked(seen)
      local joiner = task.spawn(function()
        return joined:join()
      end)
      wait_until(function()
        return joiner:status() == "waiting"
      end)
      joiner:cancel()
      is_canceled(joiner:join(5))
      assert.equal("waiting", joined:status())
      joined:cancel()
      joined:join()
    end)
  end)

  describe("cancel", function()
    it("before the start keeps the function from running", function()
      local ran = false
      local spawned = task.spawn(function()
        ran = true
      end)
      spawned:cancel()
      is_canceled(spawned:join(5))
      assert.is_false(ran)
      assert.equal("canceled", spawned:status())
    end)

    it("raises CANCELED out of the present wait, at once", function()
      local seen = {}
      local spawned, started = parked(seen), task.now()
      spawned:cancel()
      is_canceled(spawned:join(5))
      assert.is_true(errors.is(seen[1], "CANCELED"))
      assert.is_true(task.now() - started < 1)
    end)

    it("raises CANCELED at each later wait too", function()
      local caught = 0
      local spawned = task.spawn(function()
        for _ = 1, 5 do
          local ok, err = pcall(task.sleep, 1000)
          caught = caught + ((not ok and errors.is(err, "CANCELED")) and 1 or 0)
        end
        return "cleaned up"
      end)
      task.sleep(0)
      spawned:cancel()
      assert.same({ true, "cleaned up" }, { spawned:join(5) })
      assert.equal(5, caught)
    end)

    it("reaches a task that runs at its next wait", function()
      local self
      self = task.spawn(function()
        self:cancel()
        assert.equal("running", self:status())
        task.sleep(1000)
      end)
      is_canceled(self:join(5))
    end)

    it("twice is the same as once, and does nothing to a task that has ended", function()
      local seen = {}
      local spawned = parked(seen)
      spawned:cancel()
      spawned:cancel()
      is_canceled(spawned:join(5))
      assert.equal(1, #seen)
      local ended = task.spawn(function()
        return "kept"
      end)
      ended:join()
      ended:cancel()
      assert.equal("ended", ended:status())
      assert.same({ true, "kept" }, { ended:join() })
    end)

    it("wins over a wait that is over but not yet reported", function()
      local event = task.event()
      local spawned = task.spawn(function()
        event:wait()
        return "woken"
      end)
      wait_until(function()
        return spawned:status() == "waiting"
      end)
      event:notify()
      spawned:cancel()
      is_canceled(spawned:join(5))
    end)

    it("abandons a task that swallows it again and again", function()
      local attempts = 0
      local spawned = task.spawn(function()
        while true do
          attempts = attempts + 1
          pcall(task.sleep, 1000)
        end
      end)
      task.sleep(0)
      spawned:cancel()
      is_canceled(spawned:join(5))
      assert.is_true(attempts > 10 and attempts < 1000, attempts)
    end)

    it("keeps an error that the clean-up raises", function()
      local spawned = task.spawn(function()
        pcall(task.sleep, 1000)
        error("clean-up failed", 0)
      end):watch()
      task.sleep(0)
      spawned:cancel()
      local ok, err = spawned:join(5)
      assert.is_nil(ok)
      assert.equal("clean-up failed", err.message)
    end)
  end)

  describe("status", function()
    it("tells starting, waiting, ended, failed and canceled apart", function()
      local function fails()
        error("x")
      end
      local ended, failed = task.spawn(function() end), task.spawn(fails):watch()
      assert.equal("starting", ended:status())
      ended:join()
      failed:join()
      assert.equal("ended", ended:status())
      assert.equal("failed", failed:status())
      local waits = parked({})
      waits:cancel()
      waits:join()
      assert.equal("canceled", waits:status())
    end)
  end)

  describe("gather", function()
    it("returns first results in the order of the functions, whatever order they end in", function()
      local fns = {}
      for i = 1, 10 do
        fns[i] = function()
          task.sleep((11 - i) * 0.002)
          if i ~= 5 then
            return i * i, "second results are dropped"
          end
        end
      end
      local results = assert(task.gather(fns))
      assert.equal(10, results.n)
      for i = 1, 10 do
        assert.equal(i ~= 5 and i * i or nil, results[i])
      end
    end)

    it("of nothing is an empty list", function()
      assert.same({ n = 0 }, task.gather({}))
    end)

    it("runs the functions at the same time", function()
      local running, most = 0, 0
      local function one()
        running = running + 1
        most = math.max(most, running)
        task.sleep(0.01)
        running = running - 1
      end
      assert(task.gather({ one, one, one, one }))
      assert.equal(4, most)
    end)

    it("fails with the first failure and cancels the others", function()
      local seen, first = {}, errors.new("SHARD_DOWN", { message = "the first" })
      local results, err = task.gather({
        function()
          local _, caught = pcall(task.sleep, 1000)
          seen[1] = caught
        end,
        function()
          task.sleep(0.01)
          error(first)
        end,
        function()
          task.sleep(0.5)
          error("never reached")
        end,
      })
      assert.is_nil(results)
      assert.equal(first, err)
      wait_until(function()
        return seen[1] ~= nil
      end)
      assert.is_true(errors.is(seen[1], "CANCELED"))
    end)

    it("returns TIMEOUT for all together and cancels them", function()
      local seen, started = {}, task.now()
      local function slow()
        local ok, err = pcall(task.sleep, 1000)
        seen[#seen + 1] = err
        error(ok or err, 0)
      end
      local results, err = task.gather({ slow, slow }, { timeout = 0.03 })
      assert.is_nil(results)
      assert.is_true(errors.is(err, "TIMEOUT"), tostring(err))
      assert.is_true(task.now() - started < 1)
      wait_until(function()
        return #seen == 2
      end)
      assert.is_true(errors.is(seen[2], "CANCELED"))
    end)

    it("nests", function()
      local function leaf(value)
        return function()
          task.sleep(0.001)
          return value
        end
      end
      local results = assert(task.gather({
        function()
          return assert(task.gather({ leaf("a"), leaf("b") }))
        end,
        function()
          return assert(task.gather({ leaf("c") }))
        end,
      }))
      assert.same({ n = 2, { n = 2, "a", "b" }, { n = 1, "c" } }, results)
    end)

    it("passes the cancelling of its caller on, through nested gathers", function()
      local seen = {}
      local function leaf()
        local _, err = pcall(task.sleep, 1000)
        seen[#seen + 1] = err
      end
      local outer = task.spawn(function()
        task.gather({
          leaf,
          function()
            task.gather({ leaf, leaf })
          end,
        })
      end)
      task.sleep(0.01)
      outer:cancel()
      is_canceled(outer:join(5))
      wait_until(function()
        return #seen == 3
      end)
      for i = 1, 3 do
        assert.is_true(errors.is(seen[i], "CANCELED"))
      end
    end)
  end)

  describe("an event", function()
    it("wakes those who wait, in the order in which they came, as many as asked", function()
      local event, order, tasks = task.event(), {}, {}
      for i = 1, 5 do
        tasks[i] = task.spawn(function()
          assert(event:wait())
          order[#order + 1] = i
        end)
      end
      task.sleep(0.005)
      assert.equal(2, event:notify(2))
      tasks[2]:join()
      assert.same({ 1, 2 }, order)
      assert.equal(3, event:notify())
      tasks[5]:join()
      assert.same({ 1, 2, 3, 4, 5 }, order)
      assert.equal(0, event:notify())
    end)

    it("returns false when the deadline comes first, and then takes no notification", function()
      local event, started = task.event(), task.now()
      assert.is_false(event:wait(started + 0.02))
      assert.is_true(task.now() - started >= 0.0199)
      assert.equal(0, event:notify())
      assert.is_false(event:wait(started))
    end)

    it("drops a waiter that was cancelled", function()
      local event = task.event()
      local waits = task.spawn(function()
        event:wait()
      end)
      task.sleep(0)
      waits:cancel()
      waits:join()
      assert.equal(0, event:notify())
    end)
  end)

  describe("sleep", function()
    it("never ends early", function()
      for _, seconds in ipairs({ 0, 0.001, 0.007, 0.03 }) do
        local started = task.now()
        task.sleep(seconds)
        assert.is_true(task.now() - started >= seconds - 2e-4)
      end
    end)

    it("ends in the order of the times, not of the calls", function()
      local order, tasks = {}, {}
      for i, seconds in ipairs({ 0.04, 0.01, 0.03, 0.02 }) do
        tasks[i] = task.spawn(function()
          task.sleep(seconds)
          order[#order + 1] = i
        end)
      end
      tasks[1]:join()
      assert.same({ 2, 4, 3, 1 }, order)
    end)

    it("is right after the loop was held up", function()
      local started = task.now()
      local other = task.spawn(function()
        task.sleep(0.05)
        return task.now()
      end)
      task.sleep(0)
      while task.now() - started < 0.03 do
        math.random()
      end
      task.sleep(0.03)
      assert.is_true(task.now() - started >= 0.0598)
      local _, ended = other:join()
      assert.is_true(ended - started >= 0.0498)
    end)

    it("refuses negative and NaN", function()
      assert.is_false(pcall(task.sleep, -1))
      assert.is_false(pcall(task.sleep, 0 / 0))
    end)
  end)

  it("costs less than 4 KiB, parked, by the ten thousand", function()
    local event, tasks = task.event(), {}
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for i = 1, 10000 do
      tasks[i] = task.spawn(function(n)
        event:wait()
        return n
      end, i)
    end
    task.sleep(0)
    collectgarbage()
    collectgarbage()
    local each = (collectgarbage("count") - before) * 1024 / 10000
    assert.equal(10000, event:notify())
    for i = 1, 10000, 999 do
      assert.same({ true, i }, { tasks[i]:join() })
    end
    tasks[10000]:join()
    assert.is_true(each < 4096, each .. " bytes each")
  end)

  it("survives collections while it waits, with what it holds", function()
    local weak = setmetatable({}, { __mode = "v" })
    local event, tasks = task.event(), {}
    for i = 1, 50 do
      tasks[i] = task.spawn(function()
        local mine = { i }
        weak[i] = mine
        event:wait()
        return mine[1]
      end)
    end
    task.sleep(0)
    for _ = 1, 3 do
      collectgarbage()
      task.sleep(0)
    end
    event:notify()
    for i = 1, 50 do
      assert.same({ true, i }, { tasks[i]:join() })
    end
    tasks = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)

  it("nobody refers to still runs to its end", function()
    local ended = false
    task.spawn(function()
      task.sleep(0.01)
      ended = true
    end)
    collectgarbage()
    collectgarbage()
    wait_until(function()
      return ended
    end)
  end)

  it("counts only what is alive", function()
    local before = core.counts()
    local seen = {}
    local spawned = parked(seen)
    local during = core.counts()
    assert.equal(before.tasks + 1, during.tasks)
    assert.equal(before.ops + 1, during.ops)
    spawned:cancel()
    spawned:join()
    assert.same(before, core.counts())
  end)
end)
