local errors = require("lunashard.errors")
local task = require("lunashard.task")

-- A user's own coroutines inside tasks, and the places where a task may and may not wait.
describe("a coroutine inside a task", function()
  local CANNOT = "cannot wait inside table.sort, gsub, require and the like"

  local function is_sane()
    local spawned = task.spawn(function()
      task.sleep(0.002)
      return "sane"
    end)
    assert.same({ true, "sane" }, { spawned:join(5) })
  end

  it("may wait, and yields values as ever", function()
    local co = coroutine.create(function(a)
      task.sleep(0.001)
      local b = coroutine.yield(a + 1)
      task.sleep(0.001)
      return b + 1
    end)
    assert.same({ true, 2 }, { coroutine.resume(co, 1) })
    assert.equal("suspended", coroutine.status(co))
    assert.same({ true, 11 }, { coroutine.resume(co, 10) })
    assert.equal("dead", coroutine.status(co))
    assert.is_false((coroutine.resume(co)))
  end)

  it("passes nils and any number of values both ways", function()
    local co = coroutine.wrap(function(...)
      task.sleep(0)
      return select("#", coroutine.yield(nil, nil, select("#", ...)))
    end)
    local got = { n = 0 }
    local function pack(...)
      got = { n = select("#", ...), ... }
    end
    pack(co(1, nil, nil))
    assert.same({ n = 3, nil, nil, 3 }, got)
    assert.equal(2, co(nil, nil))
  end)

  it("works as a generator in a for loop, waiting between values", function()
    local sum = 0
    for value in coroutine.wrap(function()
      for i = 1, 20 do
        task.sleep(0)
        coroutine.yield(i)
      end
    end) do
      task.sleep(0)
      sum = sum + value
    end
    assert.equal(210, sum)
  end)

  it("waits through three levels, with yields at each", function()
    local function level(n)
      return coroutine.wrap(function()
        task.sleep(0.001)
        local inner = n < 3 and level(n + 1)
        for i = 1, 2 do
          coroutine.yield((inner and inner() or "") .. n .. i)
        end
      end)
    end
    local top = level(1)
    assert.equal("312111", top())
    assert.equal("322212", top())
  end)

  it("lets an error out through three levels of wrap, as it was raised", function()
    local raised = errors.new("NO_SHARD", { message = "deep" })
    local function level(n)
      return coroutine.wrap(function()
        task.sleep(0)
        if n == 3 then
          error(raised)
        end
        level(n + 1)()
      end)
    end
    local ok, err = pcall(level(1))
    assert.is_false(ok)
    assert.equal(raised, err)
  end)

  it("gets CANCELED in its innermost wait, and through all levels", function()
    local innermost
    local spawned = task.spawn(function()
      coroutine.wrap(function()
        coroutine.wrap(function()
          local ok, err = pcall(task.sleep, 1000)
          innermost = err
          error(ok or err, 0)
        end)()
      end)()
    end)
    task.sleep(0.005)
    spawned:cancel()
    local ok, err = spawned:join(5)
    assert.is_nil(ok)
    assert.is_true(errors.is(err, "CANCELED"))
    assert.equal("canceled", spawned:status())
    assert.is_true(errors.is(innermost, "CANCELED"))
  end)

  it("cannot be resumed by another task while it waits", function()
    local co = coroutine.create(function()
      task.sleep(0.02)
      return "undisturbed"
    end)
    local owner = task.spawn(function()
      return coroutine.resume(co)
    end)
    task.sleep(0.005)
    local ok, err = coroutine.resume(co, "disturbed")
    assert.is_false(ok)
    assert.truthy(err:find("cannot resume a coroutine that is waiting", 1, true), err)
    assert.same({ true, true, "undisturbed" }, { owner:join() })
  end)

  it("may move from task to task between waits", function()
    local co = coroutine.create(function()
      for i = 1, 3 do
        task.sleep(0.001)
        coroutine.yield(i)
      end
    end)
    for i = 1, 3 do
      assert.same({ true, true, i }, { task.spawn(coroutine.resume, co):join() })
    end
  end)

  it("left behind in the middle of a wait is collected with its task", function()
    local weak = setmetatable({}, { __mode = "k" })
    local spawned = task.spawn(function()
      local co = coroutine.create(function()
        while true do
          pcall(task.sleep, 1000)
        end
      end)
      weak[co] = true
      coroutine.resume(co)
    end)
    task.sleep(0.005)
    spawned:cancel()
    spawned:join(5)
    spawned = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)

  it("is needed for coroutine.yield: the task itself fails with a clear error", function()
    local ok, err = task.spawn(function()
      coroutine.yield("for nobody")
    end):watch():join(5)
    assert.is_nil(ok)
    assert.truthy(err.message:find("coroutine.yield called outside of a coroutine of one's own", 1, true), err.message)
    is_sane()
  end)

  describe("waiting", function()
    it("works inside pcall and xpcall, nested", function()
      local ok, value = pcall(function()
        local _, inner = xpcall(function()
          task.sleep(0.001)
          error("inner", 0)
        end, function(message)
          return message .. " handled"
        end)
        task.sleep(0.001)
        return inner
      end)
      assert.is_true(ok)
      assert.equal("inner handled", value)
    end)

    it("works inside metamethods and iterators", function()
      local slow = setmetatable({}, {
        __index = function(_, key)
          task.sleep(0.001)
          return key .. "!"
        end,
        __add = function()
          task.sleep(0.001)
          return "sum"
        end,
        __call = function(_, n)
          task.sleep(0.001)
          return n * 2
        end,
        __lt = function()
          task.sleep(0.001)
          return true
        end,
      })
      assert.equal("key!", slow.key)
      assert.equal("sum", slow + 1)
      assert.equal(8, slow(4))
      assert.is_true(slow < setmetatable({}, getmetatable(slow)))
      local seen = 0
      for _ in
        function(_, last)
          task.sleep(0.001)
          return last < 3 and last + 1 or nil
        end,
        nil,
        0
      do
        seen = seen + 1
      end
      assert.equal(3, seen)
    end)

    local places = {
      ["table.sort"] = function(wait)
        table.sort({ 3, 1, 2 }, function(a, b)
          wait()
          return a < b
        end)
      end,
      ["string.gsub"] = function(wait)
        return (("abc"):gsub(".", wait))
      end,
      ["require"] = function(wait)
        package.preload["spec.waits_in_require"] = wait
        package.loaded["spec.waits_in_require"] = nil
        require("spec.waits_in_require")
      end,
    }

    for name, place in pairs(places) do
      it("inside " .. name .. " is refused and leaves nothing behind", function()
        local event = task.event()
        for _, wait in ipairs({
          function()
            task.sleep(0.001)
          end,
          function()
            event:wait()
          end,
          function()
            task.spawn(function() end):join()
          end,
        }) do
          local ok, err = pcall(place, wait)
          assert.is_false(ok)
          assert.truthy(tostring(err):find(CANNOT, 1, true), tostring(err))
        end
        assert.equal(0, event:notify())
        is_sane()
      end)

      it("inside " .. name .. " by way of a coroutine is refused and leaves nothing behind", function()
        local event = task.event()
        local function wait()
          coroutine.wrap(function()
            event:wait()
          end)()
        end
        local co = coroutine.wrap(function() -- also when the place is not in the task's own coroutine
          return pcall(place, wait)
        end)
        for _, run in ipairs({ co, function()
          return pcall(place, wait)
        end }) do
          local ok, err = run()
          assert.is_false(ok)
          assert.truthy(tostring(err):find(CANNOT, 1, true), tostring(err))
        end
        assert.equal(0, event:notify())
        task.sleep(0.005)
        is_sane()
      end)
    end
  end)
end)
