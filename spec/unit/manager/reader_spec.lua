local lag_limit = require("lunashard.manager.lag_limit")
local reader = require("lunashard.manager.reader")

describe("the endpoint for a read", function()
  local function endpoint(name, status, lag_seconds, lag_bytes)
    return { name = name, health = { status = status, lag_seconds = lag_seconds, lag_bytes = lag_bytes } }
  end

  local function member(primary_status, ...)
    return { primary = endpoint("primary", primary_status), replicas = { ... }, turn = 0 }
  end

  -- The names of those that get reads, as a set.
  local function chosen(of, seconds, bytes, avoid)
    local names = {}
    for _ = 1, 12 do
      local name = reader.choose(of, seconds, bytes, avoid).name
      names[name] = (names[name] or 0) + 1
    end
    return names
  end

  it("is each of the healthy replicas in turn, when none has more to do", function()
    local of = member("healthy", endpoint("r1", "healthy", 0), endpoint("r2", "healthy", 0), endpoint("r3", "healthy", 0))
    assert.same({ r1 = 4, r2 = 4, r3 = 4 }, chosen(of, 10))
  end)

  it("is no replica that is behind by more seconds than allowed", function()
    local of = member("healthy", endpoint("r1", "healthy", 10.1), endpoint("r2", "healthy", 10))
    assert.same({ r2 = 12 }, chosen(of, 10))
  end)

  it("is no replica that is behind by more bytes than allowed", function()
    local of = member("healthy", endpoint("r1", "healthy", 0, 1025), endpoint("r2", "healthy", 9, 1024))
    assert.same({ r2 = 12 }, chosen(of, nil, 1024))
  end)

  it("is no replica that is beyond either limit, when there are two", function()
    local of = member("healthy", endpoint("r1", "healthy", 0, 2000), endpoint("r2", "healthy", 20, 0),
      endpoint("r3", "healthy", 0, 0))
    assert.same({ r3 = 12 }, chosen(of, 10, 1024))
  end)

  it("is no replica of which nobody knows how far behind it is, however generous the limit", function()
    assert.same({ primary = 12 }, chosen(member("healthy", endpoint("r1", "healthy")), 1e9))
    assert.same({ primary = 12 }, chosen(member("healthy", endpoint("r1", "healthy", 0)), nil, 1e15))
  end)

  it("is the primary when no replica is healthy", function()
    for _, status in ipairs({ "unchecked", "degraded", "unhealthy", "recovering" }) do
      assert.same({ primary = 12 }, chosen(member("healthy", endpoint("r1", status, 0)), 10), status)
    end
  end)

  it("is a replica that is not quite well while the primary is down, but none that is down or too far behind", function()
    local of = member("unhealthy", endpoint("r1", "degraded", 0), endpoint("r2", "recovering", 0),
      endpoint("r3", "unhealthy", 0), endpoint("r4", "unchecked", 0), endpoint("r5", "degraded", 11))
    assert.same({ r1 = 6, r2 = 6 }, { r1 = chosen(of, 10).r1 and 6, r2 = chosen(of, 10).r2 and 6 })
    local names = chosen(of, 10)
    assert.is_nil(names.r3 or names.r4 or names.r5 or names.primary)
  end)

  it("is another one than that which is to be avoided, and the primary when there is no other", function()
    local r1, r2 = endpoint("r1", "healthy", 0), endpoint("r2", "healthy", 0)
    assert.same({ r2 = 12 }, chosen(member("healthy", r1, r2), 10, nil, r1))
    assert.same({ primary = 12 }, chosen(member("healthy", r1), 10, nil, r1))
  end)
end)

describe("a limit of replica lag", function()
  it("is seconds, bytes, or both", function()
    for _, limit in ipairs({ 0, 10, 0.5, { seconds = 1 }, { bytes = 0 }, { seconds = 1, bytes = 16 * 2 ^ 20 } }) do
      assert.is_nil(lag_limit.problem(limit))
    end
    assert.same({ 10 }, { lag_limit.limits(10) })
    assert.same({ 2, 3 }, { lag_limit.limits({ seconds = 2, bytes = 3 }) })
  end)

  for what, limit in pairs({
    ["expected a number of seconds or a table such as"] = {},
    ["seconds: expected a number, 0 or more, got %-1"] = -1,
    ["seconds: expected a number, 0 or more, got nan"] = 0 / 0,
    ["bytes: expected a number, 0 or more, got \"16MB\""] = { bytes = "16MB" },
    ["did you mean \"bytes\""] = { byte = 1 },
  }) do
    it("is refused where it is wrong: " .. what, function()
      assert.matches(what, (lag_limit.problem(limit):gsub("%-nan", "nan")))
    end)
  end
end)
