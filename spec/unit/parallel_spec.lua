local errors = require("lunashard.errors")
local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

describe("parallel.each", function()
  it("keeps results and errors at their items' places", function()
    local out = parallel.each({ 30, 10, 20 }, function(ms, i)
      task.sleep(ms / 1000)
      if i == 2 then
        return nil, errors.new("TIMEOUT")
      end
      return ms
    end)
    assert.same({ [1] = 30, [3] = 20 }, out.results)
    assert.equal("TIMEOUT", out.errors[2].code)
  end)

  it("runs everything at once, or no more than the limit", function()
    local function most(limit)
      local running, peak = 0, 0
      parallel.each({ 1, 2, 3, 4, 5, 6 }, function()
        running = running + 1
        peak = math.max(peak, running)
        task.sleep(0.01)
        running = running - 1
        return true
      end, { limit = limit })
      return peak
    end
    assert.equal(6, most(nil))
    assert.equal(2, most(2))
    assert.equal(1, most(1))
  end)

  it("starts nothing more after a failure when told to stop, and lets the rest end", function()
    local ended = {}
    local out = parallel.each({ 1, 2, 3, 4 }, function(i)
      task.sleep(i == 1 and 0.01 or 0.05)
      ended[i] = true
      if i == 1 then
        return nil, errors.new("TIMEOUT")
      end
      return i
    end, { limit = 2, stop_on_error = true })
    assert.same({ true, true }, ended)
    assert.is_nil(out.started[3])
    assert.equal(2, out.results[2])
  end)

  it("cancels what runs after a failure when told to", function()
    local started, ended = task.now(), 0
    local out = parallel.each({ 1, 2, 3 }, function(i)
      if i == 2 then
        return nil, errors.new("TIMEOUT")
      end
      task.sleep(10)
      ended = ended + 1
      return i
    end, { cancel_on_error = true })
    assert.is_true(task.now() - started < 2)
    assert.equal(0, ended)
    assert.equal("TIMEOUT", out.errors[2].code)
    assert.is_nil(out.errors[1])
    assert.is_nil(out.results[3])
  end)

  it("raises in the caller what a member raises", function()
    local ok, message = pcall(parallel.each, { 1, 2 }, function(i)
      if i == 2 then
        error("a bug in the function")
      end
      task.sleep(0.01)
      return i
    end)
    assert.is_false(ok)
    assert.is_truthy(message:find("a bug in the function", 1, true))
  end)

  it("takes a raised error object for a failure of its item", function()
    local out = parallel.each({ 1, 2 }, function(i)
      if i == 1 then
        error(errors.new("CLOSED"))
      end
      return i
    end)
    assert.equal("CLOSED", out.errors[1].code)
    assert.equal(2, out.results[2])
  end)

  it("takes its members along when the caller is cancelled", function()
    local ended = 0
    local caller = task.spawn(function()
      parallel.each({ 1, 2, 3 }, function()
        task.sleep(0.2)
        ended = ended + 1
        return true
      end)
    end):watch()
    task.sleep(0.05)
    caller:cancel()
    local ok, err = caller:join(5)
    assert.is_nil(ok)
    assert.equal("CANCELED", err.code)
    task.sleep(0.3)
    assert.equal(0, ended)
  end)

  it("raises when the function returns neither a value nor an error, and waits for no one for ever", function()
    assert.has_error(function()
      parallel.each({ 1, 2 }, function(item)
        return item == 1 or nil
      end)
    end, "parallel.each: the function returned neither a value nor an error")
  end)

  it("does nothing for no items", function()
    assert.same({}, parallel.each({}, function() error("never") end).results)
  end)
end)
