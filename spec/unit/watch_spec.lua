local lunashard = require("lunashard")
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local warn = require("lunashard.warn")
local watch = require("lunashard.watch")

local function run(command)
  assert(os.execute(command) == 0, command)
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

-- Wait until a condition holds: it is looked at after each change that is reported, and again after a while.
local function eventually(condition)
  local deadline = lunashard.now() + 10
  while not condition() do
    assert(lunashard.now() < deadline, "never came")
    lunashard.sleep(0.01)
  end
end

describe("A watched folder", function()
  local root, folder, seen, calls, watcher

  local function start(path)
    watcher = watch.folder(path or folder, function(paths)
      calls = calls + 1
      for _, changed in ipairs(paths) do
        seen[changed:sub(#root + 2)] = (seen[changed:sub(#root + 2)] or 0) + 1
      end
    end)
  end

  local function wait_for(name)
    eventually(function() return seen[name] ~= nil end)
    seen[name] = nil
  end

  before_each(function()
    root = os.tmpname()
    os.remove(root)
    folder, seen, calls = root .. "/plugins", {}, 0
    run("mkdir -p " .. folder .. "/strategies")
  end)

  after_each(function()
    if watcher then
      watcher:close()
      watcher = nil
    end
    lunashard.sleep(0) -- its task ends
    run("rm -rf " .. root)
  end)

  it("tells of files that come, change and go, also below it", function()
    write(folder .. "/old.lua", "1")
    start()
    write(folder .. "/strategies/tier.lua", "1")
    wait_for("plugins/strategies/tier.lua")
    write(folder .. "/strategies/tier.lua", "2")
    wait_for("plugins/strategies/tier.lua")
    os.remove(folder .. "/strategies/tier.lua")
    wait_for("plugins/strategies/tier.lua")
    assert.is_nil(seen["plugins/old.lua"])
  end)

  it("sees every way in which editors save", function()
    local path, name = folder .. "/strategies/a.lua", "plugins/strategies/a.lua"
    write(path, "one")
    start()
    write(path, "two") -- truncate and write
    wait_for(name)
    write(path .. ".tmp", "six") -- rename over, of the same size
    assert(os.rename(path .. ".tmp", path))
    wait_for(name)
    assert(os.rename(path, path .. "~")) -- back-up, then anew
    write(path, "ten")
    wait_for(name)
    run(("cd %s && printf old > v1 && printf new > v2 && ln -sf v1 a.lua"):format(folder .. "/strategies"))
    wait_for(name)
    run(("cd %s && ln -s v2 a.new && mv -T a.new a.lua"):format(folder .. "/strategies"))
    wait_for(name)
    run("chmod 000 " .. path)
    wait_for(name)
  end)

  it("takes a burst of changes for one", function()
    start()
    for i = 1, 20 do
      write(folder .. "/a.lua", ("x"):rep(i))
      write(folder .. ("/b%d.lua"):format(i), "x")
    end
    wait_for("plugins/b20.lua")
    assert.equal(1, calls)
    assert.equal(1, seen["plugins/a.lua"])
  end)

  it("does not wait for the end of changes that never end", function()
    start()
    local going = true
    local writer = task.spawn(function()
      while going do
        write(folder .. "/a.lua", tostring(lunashard.now()))
        lunashard.sleep(0.01)
      end
    end)
    eventually(function() return calls >= 2 end)
    going = false
    writer:join()
  end)

  it("tells of a save that nobody could see by size and time", function()
    write(folder .. "/a.lua", "one")
    start()
    write(folder .. "/a.lua", "two")
    run(("touch -d '2001-01-01' %s/a.lua"):format(folder))
    wait_for("plugins/a.lua")
    write(folder .. "/a.lua", "six")
    run(("touch -d '2001-01-01' %s/a.lua"):format(folder))
    wait_for("plugins/a.lua")
  end)

  it("does not tell of other files", function()
    start()
    write(folder .. "/.a.lua.swp", "x")
    write(folder .. "/notes.txt", "x")
    write(root .. "/beside.lua", "x")
    write(folder .. "/a.lua", "x")
    wait_for("plugins/a.lua")
    assert.same({}, seen)
  end)

  it("may appear, go and be replaced", function()
    run("rm -rf " .. folder)
    start()
    run("mkdir -p " .. folder .. "/strategies")
    write(folder .. "/strategies/a.lua", "1")
    wait_for("plugins/strategies/a.lua")
    run(("mkdir -p %s/other && printf 2 > %s/other/b.lua && mv %s %s/gone && mv %s/other %s"):format(
      root, root, folder, root, root, folder))
    wait_for("plugins/strategies/a.lua")
    wait_for("plugins/b.lua")
    write(folder .. "/b.lua", "3")
    wait_for("plugins/b.lua")
    run("rm -rf " .. folder)
    wait_for("plugins/b.lua")
  end)

  it("may be a link that is changed to another folder", function()
    run(("mkdir %s/v1 %s/v2 && printf 1 > %s/v1/a.lua && printf 2 > %s/v2/a.lua && ln -s v1 %s/current"):format(
      root, root, root, root, root))
    start(root .. "/current")
    run(("cd %s && ln -s v2 next && mv -T next current"):format(root))
    wait_for("current/a.lua")
    write(root .. "/v2/a.lua", "3")
    wait_for("current/a.lua")
  end)

  it("may have links that lead in a circle", function()
    run(("ln -s .. %s/strategies/up"):format(folder))
    start()
    write(folder .. "/a.lua", "x")
    wait_for("plugins/a.lua")
    assert.same({}, seen)
  end)

  it("is seen when what a link points to lies elsewhere", function()
    write(root .. "/elsewhere.lua", "1")
    run(("ln -s ../elsewhere.lua %s/a.lua"):format(folder))
    start()
    write(root .. "/elsewhere.lua", "22")
    wait_for("plugins/a.lua")
  end)

  it("goes on after its function raised", function()
    local warned
    local before = warn.set(function(message) warned = message end)
    local times = 0
    watcher = watch.folder(folder .. "/", function()
      times = times + 1
      if times == 1 then
        error("no")
      end
    end)
    write(folder .. "/a.lua", "x")
    eventually(function() return times == 1 end)
    write(folder .. "/b.lua", "x")
    eventually(function() return times == 2 end)
    warn.set(before)
    assert.truthy(warned:find("^after a change in .*no"))
  end)

  it("is told of by one call at a time, which may wait", function()
    local inside, most, done = 0, 0, 0
    watcher = watch.folder(folder, function()
      inside = inside + 1
      most = math.max(most, inside)
      lunashard.sleep(0.15)
      inside, done = inside - 1, done + 1
    end)
    write(folder .. "/a.lua", "x")
    eventually(function() return inside == 1 end)
    write(folder .. "/b.lua", "x")
    eventually(function() return done == 2 end)
    assert.equal(1, most)
  end)

  it("is not told of any more once closed, and leaves no descriptor behind", function()
    local function descriptors()
      return #assert(system.listdir("/proc/self/fd"))
    end
    local before = descriptors()
    for _ = 1, 3 do
      start()
      watcher:close()
      watcher:close()
    end
    write(folder .. "/a.lua", "x")
    lunashard.sleep(0.1)
    assert.equal(0, calls)
    assert.equal(before, descriptors())
  end)

  it("is named by a path, told of to a function", function()
    assert.error_matches(function() watch.folder("", print) end, "expected the path of a folder")
    assert.error_matches(function() watch.folder(folder) end, "expected a function, got a nil")
  end)
end)
