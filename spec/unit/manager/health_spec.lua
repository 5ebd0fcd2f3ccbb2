local errors = require("lunashard.errors")
local health = require("lunashard.manager.health")

local DOWN = errors.new("SHARD_DOWN", { message = "connection refused" })
local FOUND = { latency = 0.001, in_recovery = false, timeline = 1, lsn = 100 }

describe("a health record", function()
  it("is neither healthy nor unhealthy before anything is known", function()
    local record = health.new(3)
    assert.is_false(record.is_healthy)
    assert.equal("unchecked", record.status)
    assert.is_true(health.is_usable(record))
  end)

  it("turns healthy with a success and unhealthy with the limit's failure in a row", function()
    local record = health.new(3)
    health.success(record, 0.010)
    assert.is_true(record.is_healthy)
    health.failure(record, DOWN)
    health.failure(record, DOWN)
    assert.is_true(record.is_healthy)
    health.failure(record, DOWN)
    assert.is_false(record.is_healthy)
    assert.equal(3, record.consecutive_failures)
    assert.equal(DOWN, record.last_error)
  end)

  it("blames the server for what it cannot do, and statements for what they ask", function()
    local function blames(code, sqlstate)
      return health.is_to_blame(errors.new(code, { message = "no", sqlstate = sqlstate }))
    end
    for _, code in ipairs({ "SHARD_DOWN", "AUTH", "TIMEOUT", "UNKNOWN_OUTCOME" }) do
      assert.is_true(blames(code), code)
    end
    for _, sqlstate in ipairs({ "53100", "53200", "58030", "XX001" }) do
      assert.is_true(blames("SQL", sqlstate), sqlstate)
    end
    for _, sqlstate in ipairs({ "23505", "42P01", "53400", "58P01", "XX000" }) do
      assert.is_false(blames("SQL", sqlstate), sqlstate)
    end
    for _, code in ipairs({ "CANCELED", "POOL_EXHAUSTED", "INVALID", "RESULT_TOO_LARGE" }) do
      assert.is_false(blames(code), code)
    end
  end)

  it("forgives failures that successes interrupt", function()
    local record = health.new(2)
    for _ = 1, 10 do
      health.failure(record, DOWN)
      health.success(record, 0.010)
    end
    assert.is_true(record.is_healthy)
    assert.equal(0, record.consecutive_failures)
    assert.is_true(record.error_rate > 0.2 and record.error_rate < 0.8)
  end)

  it("turns unhealthy at once when a probe's failure is certain", function()
    local record = health.new(3)
    health.probe_failure(record, DOWN, 1, true)
    assert.equal("unhealthy", record.status)
    assert.equal("open", record.circuit)
    assert.is_false(health.is_usable(record))
  end)

  it("is in use again after one probe, and healthy when more has succeeded", function()
    local record = health.new(3)
    health.probe_failure(record, DOWN, 1, true)
    health.probe_begins(record)
    assert.equal("half_open", record.circuit)
    assert.is_false(health.is_usable(record))
    health.probe_success(record, FOUND, 2)
    assert.equal("recovering", record.status)
    assert.is_true(health.is_usable(record))
    assert.is_false(record.is_healthy)
    health.success(record, 0.010)
    health.success(record, 0.010)
    assert.equal("healthy", record.status)
    assert.is_true(record.is_healthy)
  end)

  it("stays in use while statements fail and probes do not", function()
    local record = health.new(2)
    health.probe_success(record, FOUND, 1)
    for _ = 1, 10 do
      health.failure(record, DOWN)
    end
    assert.equal("degraded", record.status)
    assert.is_true(health.is_usable(record))
    assert.equal(10, record.consecutive_failures)
    health.probe_failure(record, DOWN, 2)
    assert.equal("unhealthy", record.status)
  end)

  it("takes a full server for a live one", function()
    local record = health.new(1)
    health.probe_success(record, FOUND, 1)
    health.probe_failure(record, errors.new("SHARD_DOWN", { message = "full", sqlstate = "53300" }), 2)
    assert.equal("degraded", record.status)
    assert.is_true(health.is_usable(record))
  end)

  it("wakes whoever looks after it when a statement fails", function()
    local record, woken = health.new(3), 0
    record.wake = {
      notify = function()
        woken = woken + 1
      end,
    }
    health.success(record, 0.010)
    assert.equal(0, woken)
    health.failure(record, DOWN)
    assert.equal(1, woken)
  end)

  it("says what it is when printed, and knows no other fields", function()
    local record = health.new(1)
    assert.equal("lunashard.health(unchecked)", tostring(record))
    health.failure(record, DOWN)
    assert.is_truthy(tostring(record):find("unhealthy, SHARD_DOWN: connection refused", 1, true))
    assert.is_nil(record.latency)
  end)

  it("averages latency so that one slow answer does not take over", function()
    local record = health.new(3)
    for _ = 1, 50 do
      health.success(record, 0.010)
    end
    assert.is_true(math.abs(record.average_latency_ms - 10) < 0.001)
    health.success(record, 1.0)
    assert.is_true(record.average_latency_ms > 10 and record.average_latency_ms < 150)
  end)

  it("shows its last error as text in a snapshot", function()
    local record = health.new(3)
    health.failure(record, DOWN)
    assert.is_truthy(health.snapshot(record).last_error:find("connection refused", 1, true))
  end)
end)
