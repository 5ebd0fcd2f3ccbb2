local errors = require("lunashard.errors")
local process = require("lunashard.process")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local function sh(script, options)
  local all = { argv = { "/bin/sh", "-c", script, "sh" }, timeout = 20 }
  for name, value in pairs(options or {}) do
    all[name] = value
  end
  return assert(process.run(all))
end

local function wait_until(condition)
  local deadline = task.now() + 10
  while not condition() do
    assert(task.now() < deadline, "waited in vain")
    task.sleep(0.005)
  end
end

describe("process", function()
  it("captures stdout and stderr apart and gives the exit code", function()
    local result = sh("echo out; echo err >&2; exit 3")
    assert.equal("out\n", result.stdout)
    assert.equal("err\n", result.stderr)
    assert.equal(3, result.code)
    assert.is_nil(result.signal)
    assert.is_false(result.truncated)
  end)

  it("passes arguments as they are, without a shell", function()
    local result = assert(process.run({ argv = { "printf", "%s|", "a b", "$HOME", "'\"", "" } }))
    assert.equal("a b|$HOME|'\"||", result.stdout)
  end)

  it("passes stdin byte for byte, NULs and megabytes included", function()
    local input = ("\0binary\255\n"):rep(200000)
    local result = assert(process.run({ argv = { "cat" }, stdin = input, max_output = 4e6 }))
    assert.is_true(result.stdout == input)
  end)

  it("gives a child no input unless told to", function()
    assert.equal("", sh("cat").stdout)
  end)

  it("cuts captured output at max_output, says so, and lets the child end", function()
    local result = sh("head -c 3000000 /dev/zero; echo done >&2", { max_output = 1000 })
    assert.equal(1000, #result.stdout)
    assert.is_true(result.truncated)
    assert.equal("done\n", result.stderr)
    assert.equal(0, result.code)
  end)

  it("adds to the environment and removes from it", function()
    local result = sh("echo $LUNA_A-${PATH:+path}-${HOME-none}", { env = { LUNA_A = "x=y", HOME = false } })
    assert.equal("x=y-path-none\n", result.stdout)
  end)

  it("runs in the directory that is named", function()
    assert.equal("/usr\n", sh("pwd", { cwd = "/usr" }).stdout)
  end)

  it("appends to files when told to", function()
    local path = os.tmpname()
    sh("echo one", { stdout_file = path })
    sh("echo two >&2", { stderr_file = path })
    local file = assert(io.open(path))
    assert.equal("one\ntwo\n", file:read("*a"))
    file:close()
    os.remove(path)
  end)

  it("says which program cannot be run, and why", function()
    local result, err = process.run({ argv = { "no-such-program-here" } })
    assert.is_nil(result)
    assert.is_true(errors.is(err, "INVALID"))
    assert.equal("cannot run no-such-program-here: No such file or directory", err.message)
  end)

  it("says which directory cannot be entered", function()
    local _, err = process.run({ argv = { "true" }, cwd = "/no/such/place" })
    assert.matches("true in directory /no/such/place: No such file", err.message)
  end)

  it("says which user does not exist", function()
    local _, err = process.run({ argv = { "true" }, user = "no-such-user" })
    assert.equal("cannot run as no-such-user: no such user", err.message)
  end)

  it("runs as another user with that user's groups and home", function()
    if system.getuid() ~= 0 then
      pending("takes root")
      return
    end
    local user = system.user("nobody")
    local result = sh("id -u; id -G; echo $HOME; pwd", { user = "nobody" })
    assert.equal(("%d\n%d\n%s\n/\n"):format(user.uid, user.gid, user.home), result.stdout)
  end)

  it("refuses an unknown option by name", function()
    assert.has_error(function()
      process.run({ argv = { "true" }, stdinn = "x" })
    end, "spawn: unknown option stdinn")
  end)

  it("kills the child, and what it started, when the timeout is over", function()
    local path = os.tmpname()
    local started = task.now()
    local result, err = process.run({
      argv = { "/bin/sh", "-c", 'sleep 60 & echo $! > "$1"; wait', "sh", path },
      timeout = 0.3,
    })
    assert.is_nil(result)
    assert.is_true(errors.is(err, "TIMEOUT"))
    assert.is_true(task.now() - started < 5)
    local file = assert(io.open(path))
    local grandchild = file:read("*n")
    file:close()
    os.remove(path)
    wait_until(function()
      return not process.is_alive(grandchild)
    end)
  end)

  it("kills the child when the waiting task is cancelled", function()
    local child
    local running = task.spawn(function()
      child = assert(process.spawn({ argv = { "sleep", "60" } }))
      local ok, err = pcall(child.wait, child)
      child:close()
      assert(not ok)
      error(err, 0)
    end)
    running:watch()
    wait_until(function()
      return running:status() == "waiting"
    end)
    running:cancel()
    local _, err = running:join(5)
    assert.is_true(errors.is(err, "CANCELED"))
    wait_until(function()
      return not process.is_alive(child.pid)
    end)
  end)

  it("lets other tasks run while it waits", function()
    local ticks = 0
    local ticker = task.spawn(function()
      for _ = 1, 5 do
        task.sleep(0.01)
        ticks = ticks + 1
      end
    end)
    sh("sleep 0.3")
    assert.equal(5, ticks)
    assert(ticker:join(1))
  end)

  it("reports the signal that ended a child", function()
    local child = assert(process.spawn({ argv = { "sleep", "60" } }))
    assert.is_true(child:is_running())
    child:signal("TERM")
    local result = assert(child:wait(5))
    assert.is_nil(result.code)
    assert.equal(process.signals.TERM, result.signal)
    assert.is_false(child:is_running())
    child:close()
  end)

  it("shows output while the child runs, and a wait that timed out can be repeated", function()
    local child = assert(process.spawn({ argv = { "/bin/sh", "-c", "echo first; sleep 0.4; echo last" } }))
    wait_until(function()
      return child:output() == "first\n"
    end)
    local result, err = child:wait(0.01)
    assert.is_nil(result)
    assert.is_true(errors.is(err, "TIMEOUT"))
    assert.equal("first\nlast\n", assert(child:wait(10)).stdout)
    child:close()
  end)

  it("does not wait for a daemon that keeps the pipes open", function()
    local result = sh("sleep 30 & echo $!")
    assert.is_true(result.duration < 10)
    assert(system.kill(tonumber(result.stdout), process.signals.KILL))
  end)

  it("runs many children at the same time", function()
    local fns = {}
    for i = 1, 50 do
      fns[i] = function()
        return sh("echo " .. i).stdout
      end
    end
    local results = assert(task.gather(fns, { timeout = 30 }))
    for i = 1, 50 do
      assert.equal(i .. "\n", results[i])
    end
  end)

  it("leaves no descriptor and no zombie behind", function()
    local function descriptors()
      collectgarbage() -- what earlier tests did not close
      collectgarbage()
      return #assert(system.listdir("/proc/self/fd"))
    end
    sh("true")
    local before = descriptors()
    for _ = 1, 20 do
      sh("echo x; echo y >&2", { stdin = "z" })
      process.run({ argv = { "no-such-program-here" } })
    end
    assert.equal(before, descriptors())
    for _, pid in ipairs(assert(system.listdir("/proc"))) do
      local file = tonumber(pid) and io.open("/proc/" .. pid .. "/stat")
      if file then
        local state, parent = file:read("*a"):match("%) (%a) (%d+)[^)]*$")
        file:close()
        assert.is_false(state == "Z" and tonumber(parent) == system.getpid())
      end
    end
  end)
end)
