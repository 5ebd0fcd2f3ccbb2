local cli = require("spec.support.cli")
local jobs = require("lunashard.serve.jobs")
local lunashard = require("lunashard")
local task = require("lunashard.task")

describe("background jobs", function()
  local running, dir, warnings, before, cluster

  before_each(function()
    dir, warnings = cli.directory(), {}
    cluster = { manager = { options = {} }, router = { ran = {} } }
    before = lunashard.set_warn(function(message)
      warnings[#warnings + 1] = message
    end)
  end)

  after_each(function()
    lunashard.set_warn(before)
    if running then
      running:stop()
    end
    running = nil
    cli.remove_all()
  end)

  local function job(name, text, fields)
    local one = { name = name, run = cli.write(dir, name .. ".lua", text), every = 0.05, timeout = 5 }
    for field, value in pairs(fields or {}) do
      one[field] = value
    end
    return one
  end

  local function start(...)
    running = jobs.new(cluster, { ... })
    running:start()
    return running
  end

  local function status(name)
    for _, one in ipairs(running:status()) do
      if one.name == name then
        return one
      end
    end
  end

  local function counting(name)
    return ([[
      router.ran.NAME = (router.ran.NAME or 0) + 1
      assert(cluster.router == router and manager == cluster.manager)
      leaked = true
    ]]):gsub("NAME", name)
  end

  it("run at once, and again whenever they are due, and set no globals", function()
    start(job("a", (counting("a"))), job("b", (counting("b")), { every = 3600 }))
    cli.wait_until("one ran three times", function()
      return (cluster.router.ran.a or 0) >= 3
    end)
    assert.equal(1, cluster.router.ran.b)
    assert.is_nil(rawget(_G, "leaked"))
    local one = status("b")
    assert.equal("ok", one.outcome)
    assert.equal("waiting", one.state)
    assert.equal(1, one.runs)
    assert.is_true(one.next_in > 3590 and one.next_in <= 3600)
    assert.is_true(math.abs(one.last_started - os.time()) < 20)
    assert.same({}, warnings)
  end)

  it("run one at a time", function()
    local alone = [[
      local lunashard = require("lunashard")
      assert(not router.busy, "another one runs")
      router.busy = true
      lunashard.sleep(0.02)
      router.busy = false
    ]]
    start(job("a", alone), job("b", alone), job("c", alone))
    cli.wait_until("each ran twice", function()
      return status("a").runs >= 2 and status("b").runs >= 2 and status("c").runs >= 2
    end)
    assert.equal(0, status("a").failures + status("b").failures + status("c").failures)
  end)

  it("fail when they raise, return false or nil and an error, or cannot be read, and go on", function()
    local missing = job("missing", "")
    missing.run = dir .. "/none.lua"
    start(job("raise", 'error("boom\\nand more")'), job("syntax", "return ="), job("no", "return false"),
      job("err", 'return nil, "no luck"'), job("table", "error({})"), missing, job("fine", "return nil"))
    cli.wait_until("each ran twice", function()
      for _, one in ipairs(running:status()) do
        if one.runs < 2 then
          return false
        end
      end
      return true
    end)
    assert.matches("raise.lua:1: boom$", status("raise").error)
    assert.matches("syntax.lua:1: unexpected symbol", status("syntax").error)
    assert.equal("it returned false", status("no").error)
    assert.equal("no luck", status("err").error)
    assert.equal("failed", status("table").outcome)
    assert.matches("cannot read the job: .*none.lua: No such file", status("missing").error)
    assert.equal("ok", status("fine").outcome)
    assert.is_true(status("raise").failures_in_a_row >= 2)
  end)

  it("are read again for each run, and say when they are well again", function()
    start(job("a", 'error("broken")'))
    cli.wait_until("it failed", function()
      return status("a").failures > 0
    end)
    job("a", "return true")
    cli.wait_until("it is well", function()
      return status("a").outcome == "ok"
    end)
    assert.matches("job a failed: .*broken", warnings[1])
    assert.equal("job a is well again", warnings[#warnings])
    assert.equal(0, status("a").failures_in_a_row)
  end)

  it("are cancelled when they take too long", function()
    start(job("slow", 'require("lunashard").sleep(60)', { timeout = 0.05 }), job("fine", ""))
    cli.wait_until("it was cancelled and the other ran", function()
      return status("slow").outcome == "timeout" and status("fine").runs > 0
    end)
    assert.equal("it took longer than 0.05s", status("slow").error)
  end)

  it("have until the deadline when they are to stop, and start no more", function()
    start(job("slow", 'require("lunashard").sleep(0.1) router.ran.slow = true', { every = 3600 }))
    cli.wait_until("it runs", function()
      return status("slow").state == "running"
    end)
    running:stop(task.now() + 10)
    assert.is_true(cluster.router.ran.slow)
    assert.equal("ok", status("slow").outcome)
  end)

  it("are cancelled at the deadline", function()
    start(job("slow", 'require("lunashard").sleep(60)', { every = 3600, timeout = 3600 }))
    cli.wait_until("it runs", function()
      return status("slow").state == "running"
    end)
    running:stop(task.now() + 0.05)
    assert.equal("cancelled", status("slow").outcome)
    assert.same({}, warnings)
  end)

  it("keep what is known of them when the list changes", function()
    local a = job("a", "", { every = 3600 })
    start(a, job("b", ""))
    cli.wait_until("both ran", function()
      return status("a").runs == 1 and status("b").runs > 0
    end)
    running:set({ a, job("c", "") })
    assert.equal(1, status("a").runs)
    assert.is_nil(status("b"))
    cli.wait_until("the new one ran", function()
      return status("c").runs > 0
    end)
    a.every = 0.05
    running:set({ a })
    cli.wait_until("it is due earlier", function()
      return status("a").runs > 2
    end)
  end)
end)
