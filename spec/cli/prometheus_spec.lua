local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local process = require("lunashard.process")
local prometheus = require("spec.support.prometheus")
local sandbox = require("spec.support.sandbox")
local system = require("lunashard.core.system")

local FOLDER = "examples/prometheus/"

describe("Prometheus", function()
  local there, running

  setup(function()
    there = prometheus.is_there()
  end)

  after_each(function()
    for _, one in ipairs(running or {}) do
      one:close()
    end
    running = nil
    cli.remove_all()
  end)

  teardown(sandbox.release)

  local function wanted()
    if not there then
      pending("prometheus is missing: make deps-dev")
    end
    return there
  end

  it("understands the examples, and the alerts do what their tests say", function()
    if not wanted() then
      return
    end
    for _, arguments in ipairs({ { "check", "config", FOLDER .. "prometheus.yml" }, { "check", "rules", FOLDER .. "alerts.yml" },
      { "test", "rules", FOLDER .. "alerts_test.yml" } }) do
      local code, said = prometheus.promtool(arguments)
      assert.equal(0, code, said)
    end
  end)

  it("finds in what we say every metric that the alerts and the dashboard ask for", function()
    local known = {}
    local router, manager = cluster.connect()
    manager.plugins = { status = function() return { { path = "a.lua", kind = "strategy", name = "a", state = "active" } } end }
    for name in require("lunashard.metrics").render({ manager = manager, router = router }):gmatch("# TYPE (%S+)") do
      known[name] = true
    end
    manager.plugins = nil
    cluster.close_all()
    local n = 0
    for _, file in ipairs({ "alerts.yml", "dashboard.json" }) do
      local text = assert(io.open(FOLDER .. file)):read("*a")
      for name in text:gmatch("[%a_]+") do
        if name:find("^shard_%l+") or name:find("^lunashard_%l") or name:find("^process_") or name == "keys_per_shard" then
          assert(known[name:gsub("_bucket$", "")] or known[name:gsub("_sum$", "")] or known[name:gsub("_count$", "")]
            or known[name], file .. ": " .. name)
          n = n + 1
        end
      end
    end
    assert.is_true(n > 20)
    assert(cjson.decode(assert(io.open(FOLDER .. "dashboard.json")):read("*a")))
  end)

  it("scrapes lunashard serve", function()
    if not wanted() then
      return
    end
    local dir = cli.directory()
    local service = cli.spawn({ "serve", "-c", sandbox.shared().cluster_file, "--http", "127.0.0.1:0" })
    running = { service }
    local port
    cli.wait_until("serve listens", function()
      port = select(2, service:output()):match("HTTP on http:[^\n]-127.0.0.1:(%d+)")
      return port
    end)
    local text = assert(io.open(FOLDER .. "prometheus.yml")):read("*a")
    local adapted, changes = text:gsub("127%.0%.0%.1:9180", "127.0.0.1:" .. port):gsub("scrape_interval: 15s",
      "scrape_interval: 1s")
    assert.equal(1, changes)
    local config = cli.write(dir, "prometheus.yml", adapted)
    cli.write(dir, "alerts.yml", assert(io.open(FOLDER .. "alerts.yml")):read("*a"))
    local own = assert(system.free_port())
    running[2] = assert(process.spawn({ argv = { "prometheus", "--config.file=" .. config, "--storage.tsdb.path=" .. dir
      .. "/data", "--web.listen-address=127.0.0.1:" .. own, "--log.level=error" } }))
    local url = "http://127.0.0.1:" .. own
    local function ask(query)
      local code, said = prometheus.promtool({ "query", "instant", url, query })
      return code == 0 and said or ""
    end
    cli.wait_until("Prometheus has scraped", function()
      return ask('up{job="lunashard"}'):find("=> 1 ", 1, true)
    end, 30)
    local healthy = ask("shard_healthy")
    for _, shard in ipairs(sandbox.shared().shards) do
      assert.matches(('shard="%s"} => 1 '):format(shard.shard_id), healthy, 1, true)
    end
    assert.matches("=> 3 ", ask("count(shard_query_duration_seconds_count)"), 1, true)
    assert.matches("=> 0 ", ask("sum(scrape_samples_scraped - scrape_samples_post_metric_relabeling)"), 1, true)
  end)
end)
