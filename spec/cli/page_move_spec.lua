-- The page of `lunashard serve` in a browser while rows move to a shard that joins.

local browser = require("spec.support.browser")
local cli = require("spec.support.cli")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")

local KEYS = 900

-- The texts on the page that stand out from what is behind them by less than 4.5 to 1, as WCAG counts it.
local FAINT = [[(function () {
  function channels(colour) { return colour.match(/[\d.]+/g).map(Number); }
  function light(c) {
    var v = c.slice(0, 3).map(function (x) { x /= 255; return x <= .03928 ? x / 12.92 : Math.pow((x + .055) / 1.055, 2.4); });
    return .2126 * v[0] + .7152 * v[1] + .0722 * v[2];
  }
  function behind(one) {
    for (; one; one = one.parentElement) {
      var c = channels(getComputedStyle(one).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  }
  return Array.from(document.querySelectorAll("body *")).filter(function (one) {
    return Array.from(one.childNodes).some(function (n) { return n.nodeType === 3 && n.nodeValue.trim(); });
  }).filter(function (one) {
    var a = light(channels(getComputedStyle(one).color)), b = light(behind(one));
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
  }).map(function (one) { return one.tagName + "." + one.className + ": " + one.innerText; });
})()]]

describe("the page of lunashard serve while rows move", function()
  local cluster, service, mover, window, url

  if not browser.find() then
    return pending("has no Chromium to be looked at with")
  end

  setup(function()
    cluster = moving.new({ shards = 3, strategy = "hash" })
    cluster:fill(2, 1, KEYS)
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
    for scheme, ground in pairs({ light = "rgb(244, 245, 247)", dark = "rgb(15, 18, 22)" }) do
      window:call("Emulation.setEmulatedMedia", { features = { { name = "prefers-color-scheme", value = scheme } } })
      assert.equal(ground, window:evaluate("getComputedStyle(document.body).backgroundColor"))
      assert.same({}, window:evaluate(FAINT))
    end
    mover:signal("INT")
    assert.equal(130, assert(mover:wait(30)).code)
    window:wait("/paused\\s*job 1/.test(document.body.innerText)")
    assert.equal(0, cli.run({ "rebalance", "resume", "-c", cluster:file(3), "--batch-size", "500" }).code)
    window:wait("/completed\\s*job 1/.test(document.body.innerText)")
    assert.matches("rows (%d+) of %1 ", window:text())
  end)

  it("tells which wave of a gradual job is watched, and by which gates", function()
    mover:close()
    mover = cli.spawn({ "rebalance", "start", "-c", cluster:file(3), "--drain", "s3", "--waves", "1,100", "--soak", "60",
      "--gate", "p99_ms=60000,error_rate=off,lag_seconds=9" })
    window:wait("/running\\s*job 2, group int8, by drain/.test(document.body.innerText)")
    window:wait("/wave\\s*1 of 2, up to 1 %\\s*it is\\s*soaking, \\d+ of 60 s\\s*p99\\s*\\d+ ms, 60000 ms allowed"
      .. "\\s*replica lag\\s*0.0 s, 9.0 s allowed/.test(document.body.innerText)")
    assert.is_true(window:evaluate("document.documentElement.scrollWidth <= 360"))
    assert.same({}, window:evaluate(FAINT))
    mover:signal("INT")
    assert.equal(130, assert(mover:wait(30)).code)
  end)
end)
