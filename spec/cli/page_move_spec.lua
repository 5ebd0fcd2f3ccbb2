-- The page of `lunashard serve` in a browser while rows move to a shard that joins.

local browser = require("spec.support.browser")
local cli = require("spec.support.cli")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")

local KEYS = 900

describe("the page of lunashard serve while rows move", function()
  local cluster, service, mover, window, url

  if not browser.find() then
    return pending("has no Chromium to be looked at with")
  end

  setup(function()
    cluster = moving.new({ shards = 3, strategy = "hash" })
    local router, manager = cluster:connect(2)
    local users = {}
    for key = 1, KEYS do
      users[key] = { key, "user " .. key }
    end
    assert(router:copy_in("users", { "user_id", "name" }, users))
    manager:shutdown()
    cluster:init(2)
    window = browser.start(cli.directory())
    service = cli.spawn({ "serve", "-c", cluster:file(3), "--http", "127.0.0.1:0" })
    cli.wait_until("it answers", function()
      url = select(2, service:output()):match("HTTP on (http:%S+)")
      return url
    end)
  end)

  teardown(function()
    window:close()
    service:close()
    if mover then
      mover:close()
    end
    cluster:destroy()
    sandbox.release()
    cli.remove_all()
  end)

  it("tells how far it is, by itself, on a phone too, and how it ended", function()
    window:call("Emulation.setDeviceMetricsOverride", { width = 360, height = 740, deviceScaleFactor = 2, mobile = true })
    window:open(url)
    window:wait("document.getElementById('live').innerText === 'live'")
    assert.is_nil(window:text():find("job 1", 1, true))
    mover = cli.spawn({ "rebalance", "start", "-c", cluster:file(3), "--batch-size", "5", "--throttle-ms", "100",
      "--parallel", "1" })
    window:wait("/running\\s*job 1, group int8, by follow/.test(document.body.innerText)")
    window:wait("/s1 → s3|s2 → s3/.test(document.body.innerText)")
    window:wait("/[1-9]\\d* of [23]\\d\\d/.test(document.body.innerText)")
    assert.is_true(window:evaluate("document.documentElement.scrollWidth <= 360"))
    mover:signal("INT")
    assert.equal(130, assert(mover:wait(30)).code)
    window:wait("/paused\\s*job 1/.test(document.body.innerText)")
    assert.equal(0, cli.run({ "rebalance", "resume", "-c", cluster:file(3), "--batch-size", "500" }).code)
    window:wait("/completed\\s*job 1/.test(document.body.innerText)")
    assert.matches("rows (%d+) of %1 ", window:text())
  end)
end)
