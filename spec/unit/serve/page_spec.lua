local cjson = require("cjson.safe")
local page = require("lunashard.serve.page")
local verdict = require("lunashard.serve.verdict")

describe("the page", function()
  local function endpoint(name, role, fields)
    local one = { endpoint = name, role = role, configured_role = role, status = "healthy", is_healthy = true,
      average_latency_ms = 1.5, pool = { used = 1, size = 2, max_size = 10, waiting = 0 } }
    for key, value in pairs(fields or {}) do
      one[key] = value
    end
    return one
  end

  local function shard(id, fields, replica)
    local primary = endpoint(id .. ":5432", "primary", fields)
    local one = { shard_id = id, primary = primary.endpoint, health = primary, weight = 1, endpoints = { primary } }
    if replica then
      one.endpoints[2] = endpoint(id .. ":5433", "replica", replica)
    end
    return one
  end

  local function status(...)
    local all = { name = "orders", file = "cluster.lua", version = "1", time = 1e9, total_shards = select("#", ...),
      shard_ids = {}, shards = {}, alerts = {}, plugins = {}, jobs = {}, events = {},
      statistics = { errors_by_shard = {} },
      runtime = { lua_memory_bytes = 1e6, tasks = 1, stalls = 0, longest_stall = 0 } }
    for i, one in ipairs({ ... }) do
      all.shard_ids[i], all.shards[one.shard_id] = one.shard_id, one
    end
    all.verdict = verdict.of(all)
    return all
  end

  local DOWN = { status = "unhealthy", is_healthy = false, failing_for = 12 }
  local HOSTILE = [[</script><script>alert("1")</script>'&]]

  local function sentence(...)
    local said = verdict.of(status(...))
    return said.level .. ": " .. said.sentence
  end

  describe("in one sentence", function()
    it("says that all is well", function()
      assert.equal("ok: All is well: 2 shards, all healthy.", sentence(shard("a"), shard("b")))
      assert.equal("ok: All is well: 1 shard and 1 replica, all healthy.", sentence(shard("a", nil, {})))
      assert.equal("ok: The only shard is healthy.", sentence(shard("a")))
    end)

    it("names the shards that are down, and how many answer", function()
      assert.equal("bad: Shard b is down; 1 of 2 shards answers.", sentence(shard("a"), shard("b", DOWN)))
      assert.equal("bad: Shards a and b are down; no shard answers.", sentence(shard("a", DOWN), shard("b", DOWN)))
      assert.equal("bad: Shards a, b and 2 others are down; 1 of 5 shards answers.",
        sentence(shard("a", DOWN), shard("b", DOWN), shard("c", DOWN), shard("d", DOWN), shard("e")))
    end)

    it("does not say shard twice", function()
      assert.equal("bad: shard1 is down; no shard answers.", sentence(shard("shard1", DOWN)))
    end)

    it("says what is worst first", function()
      local refusing = shard("b")
      refusing.write_refusal = "two primaries"
      assert.equal("bad: Shard b takes no writes; all shards can be read.", sentence(shard("a", nil, DOWN), refusing))
      assert.equal("bad: Shard c is down; 2 of 3 shards answer.", sentence(shard("a"), refusing, shard("c", DOWN)))
    end)

    it("warns of a replica, of a crowd, and says how much more there is", function()
      assert.equal("warn: Replica a:5433 is of no use.", sentence(shard("a", nil, DOWN)))
      local crowded = { pool = { used = 10, size = 10, max_size = 10, waiting = 3 } }
      assert.equal("warn: Statements wait for a connection to shard a.", sentence(shard("a", crowded)))
      assert.equal("warn: Replica b:5433 is of no use, and 1 more.", sentence(shard("a", crowded), shard("b", nil, DOWN)))
    end)

    it("finds no crowd where connections are being made for those who wait", function()
      local connecting = { pool = { used = 0, size = 1, max_size = 10, waiting = 3 } }
      assert.matches("^ok", sentence(shard("a", connecting)))
    end)

    it("warns of jobs that fail and of plug-ins that do not serve", function()
      local given = status(shard("a"))
      given.jobs = { { name = "check", failures_in_a_row = 2 }, { name = "well", failures_in_a_row = 0 } }
      given.plugins = { { name = "tiers", state = "tripped" }, { name = "fine", state = "active" } }
      assert.equal("Plug-in tiers does not serve as written, and 1 more.", verdict.of(given).sentence)
    end)
  end)

  it("shows texts from elsewhere as what they are, and never as HTML", function()
    local hostile = shard(HOSTILE, { last_error = HOSTILE }, { status = HOSTILE })
    hostile.region = HOSTILE
    local given = status(hostile)
    given.name, given.file, given.environment = HOSTILE, HOSTILE, HOSTILE
    given.alerts = { { kind = "health", shard_id = HOSTILE, message = HOSTILE }, { kind = HOSTILE, message = HOSTILE } }
    given.plugins = { { name = HOSTILE, kind = HOSTILE, state = HOSTILE, problem = HOSTILE } }
    given.jobs = { { name = HOSTILE, every = 1, runs = 1, failures = 1, failures_in_a_row = 1, outcome = HOSTILE,
      error = HOSTILE } }
    given.events = { { time = 1e9, times = 2, kind = HOSTILE, message = HOSTILE, to = HOSTILE } }
    given.top_statements = { { statement = HOSTILE, share = 1, count = 1, average_ms = 1, longest_ms = 1 } }
    given.top_buckets = { { bucket = 7, shard_id = HOSTILE, table = HOSTILE, count = 1 } }
    given.slow_statements = { { at = 1e9, statement = HOSTILE, shard_id = HOSTILE, bucket = HOSTILE, duration = 1,
      error = HOSTILE } }
    given.keys = { shards = { [HOSTILE] = 10 } }
    given.verdict = verdict.of(given)
    local text = page.render(given)
    local _, scripts = text:gsub("<script", "")
    assert.equal(1, scripts)
    assert.is_nil(text:find("alert(\"", 1, true))
    assert.is_truthy(text:find("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;", 1, true))
  end)

  it("makes control characters visible", function()
    assert.is_truthy(page.render(status(shard("a\27[31m\0b"))):find("a\\x1b[31m\\x00b", 1, true))
  end)

  it("asks nothing of others", function()
    local text = page.render(status(shard("a"))):gsub("http://www.w3.org/2000/svg", "")
    assert.is_nil(text:find("https?://"))
    assert.is_nil(text:find("src=", 1, true))
    assert.is_nil(text:find("url(", 1, true))
    assert.is_nil(text:find("@import", 1, true))
  end)

  it("says how far each shard is from its share of the keys, by weight", function()
    local heavy = shard("b")
    heavy.weight = 3
    local given = status(shard("a"), heavy)
    given.keys = { shards = { a = 300, b = 700 } }
    local text = page.parts(given).keys
    assert.matches("300</td><td class=\"num\">%+20%.0", text)
    assert.matches("700</td><td class=\"num\">−6%.7", text)
  end)

  it("lists buckets that are hot, and not all others as if they were one", function()
    local given = status(shard("a"))
    given.top_buckets = { { count = 500 }, { bucket = 7, shard_id = "a", count = 20 } }
    local text = page.parts(given).buckets
    assert.matches('<th scope="row">7</th>', text)
    assert.is_nil(text:find("500", 1, true))
  end)

  it("has no empty panels", function()
    local parts = page.parts(status(shard("a")))
    for _, id in ipairs({ "keys", "buckets", "statements", "slow", "plugins", "jobs", "alerts", "charts", "numbers" }) do
      assert.equal("", parts[id])
    end
  end)

  it("leaves a gap where there was nothing to measure", function()
    local given = status(shard("a"))
    given.history = { seconds = 300, throughput = { 0, 5, 0, 2 }, errors = { 0, 0, 0, 0 },
      p50 = { cjson.null, 0.001, cjson.null, 0.002 },
      p95 = {}, p99 = {}, used = { 0, 0, 0, 0 }, size = { 1, 1, 1, 1 }, waiting = { 0, 0, 0, 0 }, shards = {} }
    local charts = page.parts(given).charts
    assert.is_truthy(charts:find('d="M297 50h0.01M299 0h0.01"', 1, true), charts)
  end)

  describe("kept up to date", function()
    it("is told of what changed only, and newcomers of everything", function()
      local feed = page.feed()
      local first = cjson.decode(feed:changes(status(shard("a")), true))
      assert.is_string(first.verdict)
      assert.is_string(first.shards)
      assert.is_nil(feed:changes(status(shard("a")), false))
      local second = cjson.decode(feed:changes(status(shard("a", DOWN)), false))
      assert.matches("is down", second.verdict)
      assert.matches("^✕", second.title)
      assert.is_nil(second.jobs)
      assert.is_nil(second.events)
      assert.is_string(cjson.decode(feed:changes(status(shard("a", DOWN)), true)).jobs)
    end)
  end)
end)
