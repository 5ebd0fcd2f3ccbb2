local lunashard = require("lunashard")
local registry = require("lunashard.metrics.registry")
local cluster = require("spec.support.cluster")

local metrics = lunashard.metrics

describe("metrics of scripts", function()
  before_each(registry.clear)
  teardown(registry.clear)

  local function line(pattern)
    for found in metrics.render():gmatch("[^\n]+") do
      if found:find(pattern) then
        return found
      end
    end
  end

  local function refusal(kind, given)
    local ok, message = pcall(function()
      local _ = metrics[kind](given)
    end)
    assert.is_false(ok)
    assert.matches("^spec/unit/metrics_spec.lua:%d+: .*lunashard.metrics." .. kind, message)
    return message
  end

  it("count up, and are there from the start", function()
    local checks = metrics.counter({ name = "app_checks_total", help = "Checks." })
    assert.equal("app_checks_total 0", line("^app_checks_total"))
    checks:add()
    checks:add(2.5)
    assert.equal("app_checks_total 3.5", line("^app_checks_total"))
  end)

  it("go up and down, also below 0", function()
    local depth = metrics.gauge({ name = "app_depth", help = "Depth.", labels = { "queue" } })
    depth:set(5, { queue = "a" })
    depth:add(-7, { queue = "a" })
    depth:set(1e300, { queue = "b" })
    assert.equal('app_depth{queue="a"} -2', line('^app_depth{queue="a'))
    assert.equal('app_depth{queue="b"} 1e+300', line('^app_depth{queue="b'))
  end)

  it("sort values into buckets that hold those below, and their own bounds", function()
    local sizes = metrics.histogram({ name = "app_size_bytes", help = "Sizes.", buckets = { 1, 10, 100 } })
    for _, value in ipairs({ 0, 1, 1.5, 10, 11, 1000 }) do
      sizes:observe(value)
    end
    local seen = {}
    for bound, n in metrics.render():gmatch('app_size_bytes_bucket{le="([^"]+)"} (%d+)') do
      seen[bound] = tonumber(n)
    end
    assert.same({ ["1"] = 2, ["10"] = 4, ["100"] = 5, ["+Inf"] = 6 }, seen)
    assert.equal("app_size_bytes_sum 1023.5", line("^app_size_bytes_sum"))
    assert.equal("app_size_bytes_count 6", line("^app_size_bytes_count"))
  end)

  it("keep all digits of large counts", function()
    metrics.counter({ name = "app_bytes_total", help = "Bytes." }):add(2 ^ 53 - 1)
    assert.equal("app_bytes_total 9007199254740991", line("^app_bytes_total"))
  end)

  it("are found again by the same definition, and by no other", function()
    local given = { name = "app_checks_total", help = "Checks.", labels = { "a" } }
    assert.equal(metrics.counter(given), metrics.counter(given))
    assert.matches("is a counter with other labels", refusal("counter", { name = "app_checks_total", help = "x" }))
  end)

  it("refuse what Prometheus would not read, and names that are ours", function()
    for _, name in ipairs({ "", "1a_total", "a-b_total", "a b_total", "ä_total", "a\nb_total", ("a"):rep(200) .. "_total" }) do
      assert.matches("option name", refusal("counter", { name = name, help = "x" }))
    end
    for _, name in ipairs({ "shard_x_total", "lunashard_x_total", "process_x_total" }) do
      assert.matches("name of our own", refusal("counter", { name = name, help = "x" }))
    end
    assert.matches('"app_x_total"', refusal("counter", { name = "app_x", help = "x" }), 1, true)
    assert.matches("is for counters", refusal("gauge", { name = "app_x_total", help = "x" }))
    assert.matches("part of a histogram", refusal("gauge", { name = "app_x_count", help = "x" }))
    assert.matches("help: missing", refusal("gauge", { name = "app_x" }))
    for _, labels in ipairs({ { "a b" }, { "__name__" }, { "a", "a" }, { 5 }, { "" } }) do
      assert.matches("option labels", refusal("gauge", { name = "app_x", help = "x", labels = labels }))
    end
    assert.matches("le is the histogram's own", refusal("histogram", { name = "app_x", help = "x", labels = { "le" } }))
    for _, buckets in ipairs({ {}, { 2, 1 }, { 1, 1 }, { "a" }, { 0 / 0 }, { math.huge } }) do
      assert.matches("option buckets", refusal("histogram", { name = "app_x", help = "x", buckets = buckets }))
    end
    assert.matches("did you mean", refusal("gauge", { name = "app_x", help = "x", label = { "a" } }))
  end)

  it("raise for wrong values and labels where they are used", function()
    local checks = metrics.counter({ name = "app_checks_total", help = "Checks.", labels = { "outcome" } })
    for _, arguments in ipairs({
      { -1, { outcome = "ok" } }, { 0 / 0, { outcome = "ok" } }, { "x", { outcome = "ok" } }, { 1 }, { 1, "ok" },
      { 1, { outcom = "ok" } }, { 1, { outcome = "ok", other = 1 } },
    }) do
      local ok, message = pcall(function()
        checks:add(arguments[1], arguments[2])
      end)
      assert.is_false(ok)
      assert.matches("^spec/unit/metrics_spec.lua:%d+: app_checks_total add: ", message)
    end
    assert.is_nil(line("^app_checks_total{"))
  end)

  it("drop series beyond the limit, say so once, and count it", function()
    local seen = metrics.counter({ name = "app_seen_total", help = "Seen.", labels = { "user" }, max_series = 3 })
    local warnings = cluster.warnings(function()
      for i = 1, 10 do
        assert.equal(i <= 3, seen:add(1, { user = i }))
      end
    end)
    assert.equal(1, #warnings)
    local _, n = metrics.render():gsub("\napp_seen_total{", "")
    assert.equal(3, n)
    assert.equal('lunashard_metric_samples_dropped_total{metric="app_seen_total"} 7', line("dropped_total{"))
    assert.is_true(seen:add(1, { user = 2 }))
  end)

  it("escape hostile values, and keep them short and in UTF-8", function()
    local seen = metrics.gauge({ name = "app_seen", help = 'A "line"\nand \\another.', labels = { "v" } })
    seen:set(1, { v = 'a"b\\c\nd} 5' })
    seen:set(2, { v = "\255\192\128\237\160\128x" })
    seen:set(3, { v = ("ö"):rep(1000) })
    seen:set(4, { v = "fr\195\188h" })
    assert.equal('app_seen{v="a\\"b\\\\c\\nd} 5"} 1', line("^app_seen{.*} 1$"))
    assert.equal('app_seen{v="\\\\xFF\\\\xC0\\\\x80\\\\xED\\\\xA0\\\\x80x"} 2', line("^app_seen{.*} 2$"))
    assert.equal(('app_seen{v="%s"} 3'):format(("ö"):rep(128)), line("^app_seen{.*} 3$"))
    assert.equal('app_seen{v="fr\195\188h"} 4', line("^app_seen{.*} 4$"))
    assert.equal('# HELP app_seen A "line"\\nand \\\\another.', line("HELP app_seen"))
  end)

  it("are bounded in number", function()
    local made = 0
    local ok, message = pcall(function()
      for i = 1, 100000 do
        metrics.gauge({ name = "app_" .. i, help = "x" })
        made = i
      end
    end)
    assert.is_false(ok)
    assert.matches("there are 500 metrics already", message)
    assert.equal(500, made)
  end)
end)
