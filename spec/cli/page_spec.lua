-- The page of `lunashard serve` in a browser, on servers of which one is killed.

local browser = require("spec.support.browser")
local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")

describe("the page of lunashard serve", function()
  local servers, service, window, url

  if not browser.find() then
    return pending("has no Chromium to be looked at with")
  end

  setup(function()
    servers = sandbox.start({ shards = 2 })
    local dir = cli.directory()
    window = browser.start(dir)
    local path = cli.write(dir, "cluster.lua", ([[
      local options = dofile(%q)
      options.name, options.health_check_interval, options.health_check_timeout = "<i>orders</i>", 0.2, 1
      options.max_consecutive_failures = 2
      return options
    ]]):format(servers.cluster_file))
    service = cli.spawn({ "serve", "-c", path, "--http", "127.0.0.1:0" })
    cli.wait_until("it answers", function()
      url = select(2, service:output()):match("HTTP on (http:%S+)")
      return url
    end)
  end)

  teardown(function()
    window:close()
    service:close()
    servers:destroy()
    cli.remove_all()
  end)

  it("is complete without scripts", function()
    window:call("Emulation.setScriptExecutionDisabled", { value = true })
    window:open(url)
    local text = window:text()
    window:call("Emulation.setScriptExecutionDisabled", { value = false })
    assert.matches("^<i>orders</i> .* as of %d%d:%d%d:%d%d All is well: 2 shards, all healthy%.", text)
    assert.matches("shard1 127%.0%.0%.1:%d+ primary healthy", text)
    assert.matches("shard2 127%.0%.0%.1:%d+ primary healthy", text)
  end)

  it("fits a phone, wherever it is looked at", function()
    window:call("Emulation.setDeviceMetricsOverride", { width = 360, height = 740, deviceScaleFactor = 2, mobile = true })
    window:open(url)
    assert.is_true(window:evaluate("document.documentElement.scrollWidth <= 360"))
    assert.same({}, window:evaluate([[Array.from(document.querySelectorAll("body *")).filter(function (one) {
      return one.getBoundingClientRect().right > 360 && !one.closest(".scroll");
    }).map(function (one) { return one.tagName + "." + one.className; })]]))
    window:call("Emulation.clearDeviceMetricsOverride")
  end)

  it("comes to life with scripts, and says when a shard dies and when it is back", function()
    window:open(url)
    window:wait("document.getElementById('live').innerText === 'live'")
    window:evaluate("document.querySelector('details').open = true; window.before = document.getElementById('verdict')")
    servers:kill("shard2")
    window:wait("/shard2 is down; 1 of 2 shards answers/.test(document.getElementById('verdict').innerText)")
    local text = window:text()
    assert.matches("shard1 127%.0%.0%.1:%d+ primary healthy", text)
    assert.matches("shard2 127%.0%.0%.1:%d+ primary down %d+ s", text)
    assert.equal("✕ <i>orders</i>", window:evaluate("document.title"))
    assert.is_true(window:evaluate("document.querySelector('details').open"))
    assert.is_true(window:evaluate("document.getElementById('verdict') === window.before"))
    servers:start()
    window:wait("/All is well/.test(document.getElementById('verdict').innerText)")
    assert.equal("<i>orders</i>", window:evaluate("document.title"))
    assert.matches("shard2.* healthy", window:evaluate("document.getElementById('events').innerText"))
  end)

  it("says that it hears nothing when the process has ended", function()
    window:open(url)
    window:wait("document.getElementById('live').innerText === 'live'")
    service:signal("TERM")
    window:wait("/not connected/.test(document.getElementById('live').innerText)")
  end)
end)
