local cli = require("spec.support.cli")
local process = require("lunashard.process")
local sockets = require("spec.support.sockets")

-- How a script ends: what it says on stderr, its exit code, and what becomes of what it left running.
describe("the end of a script", function()
  local function run(script, ...)
    return assert(process.run({
      argv = { "/proc/self/exe", "run", "-", ... },
      stdin = 'local task = require("lunashard.task")\n' .. script,
      timeout = 30,
    }))
  end

  -- Alive and no zombie: nobody may be there to reap a grandchild.
  local function runs(pid)
    local file = io.open(("/proc/%s/stat"):format(pid))
    local state = file and file:read("*a"):match("%) (%a)")
    if file then
      file:close()
    end
    return state ~= nil and state ~= "Z"
  end

  it("without anything left running is quiet, with code 0", function()
    local result = run("task.sleep(0.001)")
    assert.same({ 0, "", "" }, { result.code, result.stdout, result.stderr })
  end)

  it("reports an uncaught error in a task, with its traceback, and goes on", function()
    local result = run([[
      local function deep() error("broken") end
      task.spawn(function() task.sleep(0.001) deep() end)
      task.sleep(0.05)
      print("went on")
    ]])
    assert.equal("went on\n", result.stdout)
    assert.truthy(result.stderr:find("uncaught error in a task: stdin:2: broken", 1, true), result.stderr)
    assert.truthy(result.stderr:find("stack traceback:", 1, true), result.stderr)
    assert.truthy(result.stderr:find("deep", 1, true), result.stderr)
  end)

  it("reports an uncaught error object by its text, and one without text all the same", function()
    local result = run([[
      local errors = require("lunashard.errors")
      task.spawn(function() error(errors.new("NO_SHARD", { message = "lost my way" })) end)
      task.spawn(function() error(setmetatable({}, { __tostring = function() error("no") end })) end)
      task.sleep(0.02)
    ]])
    assert.equal(1, result.code)
    assert.truthy(result.stderr:find("NO_SHARD: lost my way", 1, true), result.stderr)
    assert.truthy(result.stderr:find("(error object)", 1, true), result.stderr)
  end)

  it("does not report an error that somebody joins or has promised to look at", function()
    local result = run([[
      print(select("#", task.spawn(error, "joined"):join()))
      local watched = task.spawn(error, "watched"):watch()
      task.sleep(0.02)
      print((watched:join()))
    ]])
    assert.same({ "2\nnil\n", "" }, { result.stdout, result.stderr })
  end)

  it("cancels what is left running, newest first, and lets it clean up", function()
    local result = run([[
      for i = 1, 3 do
        task.spawn(function()
          local ok, err = pcall(task.sleep, 1000)
          print(i, ok, err.code)
        end)
      end
      task.sleep(0.01)
      print("end")
    ]])
    assert.equal(0, result.code)
    assert.equal("end\n3\tfalse\tCANCELED\n2\tfalse\tCANCELED\n1\tfalse\tCANCELED\n", result.stdout)
    assert.equal("", result.stderr)
    assert.is_true(result.duration < 2, result.duration)
  end)

  it("kills the child processes that were left running", function()
    local result = run([[
      local process = require("lunashard.process")
      local child = assert(process.spawn({ argv = { "sleep", "1000" } }))
      local other
      task.spawn(function() other = assert(process.spawn({ argv = { "sleep", "1000" } })) other:wait() end)
      task.sleep(0.01)
      print(child.pid, other.pid)
    ]])
    assert.equal(0, result.code)
    local pids = 0
    for pid in result.stdout:gmatch("%d+") do
      pids = pids + 1
      cli.wait_until("process " .. pid .. " is gone", function()
        return not runs(pid)
      end)
    end
    assert.equal(2, pids)
  end)

  it("does not wait for a task that swallows its cancelling", function()
    local result = run([[
      task.spawn(function() while true do pcall(task.sleep, 1000) end end)
      task.sleep(0.01)
    ]])
    assert.equal(0, result.code)
    assert.is_true(result.duration < 2, result.duration)
  end)

  it("does not wait for a server that never answers", function()
    local server = sockets.silent_server()
    local result = run(([[
      local pool = require("lunashard.pool").new({ port = %d, host = "127.0.0.1", user = "nobody", min_size = 3 })
      task.spawn(function() print((pcall(pool.execute, pool, "SELECT 1"))) end)
      task.spawn(function() print((pcall(pool.acquire, pool))) end)
      task.sleep(0.05)
      print("end")
    ]]):format(server.port))
    server.close()
    assert.same({ 0, "end\nfalse\nfalse\n", "" }, { result.code, result.stdout, result.stderr })
    assert.is_true(result.duration < 2, result.duration)
  end)

  it("does not wait for a name server that never answers", function()
    local result = run([[
      local pool = require("lunashard.pool").new({ host = "no-such-host.invalid", user = "nobody", min_size = 1 })
      task.sleep(0)
    ]])
    assert.equal(0, result.code)
    assert.is_true(result.duration < 2, result.duration)
  end)

  describe("by os.exit", function()
    it("has the code that was asked for, unwinding nothing but tasks", function()
      for code, call in pairs({ [0] = "os.exit()", [3] = "os.exit(3)", [1] = "os.exit(false)", [254] = "os.exit(-2)" }) do
        local result = run(call .. ' print("not reached")')
        assert.same({ code, "", "" }, { result.code, result.stdout, result.stderr })
      end
      assert.equal(0, run("os.exit(true)").code)
    end)

    it("inside nested coroutines and pcall ends the program there", function()
      local result = run([[
        pcall(function()
          coroutine.wrap(function()
            xpcall(function()
              coroutine.wrap(function() os.exit(7) end)()
            end, print)
            print("not reached")
          end)()
        end)
        print("not reached")
      ]])
      assert.same({ 7, "", "" }, { result.code, result.stdout, result.stderr })
    end)

    it("in a task cancels the main script and the others, which clean up", function()
      local result = run([[
        task.spawn(function() print((pcall(task.sleep, 1000))) end)
        task.spawn(function() task.sleep(0.01) os.exit(5) end)
        task.sleep(1000)
      ]])
      assert.same({ 5, "false\n", "" }, { result.code, result.stdout, result.stderr })
    end)

    it("where a task cannot wait ends the program too", function()
      local result = run('table.sort({ 2, 1 }, function() os.exit(9) end) print("not reached")')
      assert.same({ 9, "", "" }, { result.code, result.stdout, result.stderr })
    end)

    it("flushes what was printed", function()
      assert.equal("kept", run('io.write("kept") os.exit(0)').stdout)
    end)
  end)
end)
