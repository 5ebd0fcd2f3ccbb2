local attempt = require("lunashard.router.attempt")
local errors = require("lunashard.errors")
local task = require("lunashard.task")

local function safe(code, fields, read_only)
  fields = fields or {}
  fields.message = "x"
  return attempt.is_safe(errors.new(code, fields), read_only) == true
end

describe("trying again", function()
  it("is safe when the statement never left", function()
    assert.is_true(safe("SHARD_DOWN", { retryable = true }))
    assert.is_true(safe("SQL", { sqlstate = "57P03" }))
    assert.is_true(safe("SQL", { sqlstate = "53300" }))
  end)

  it("is safe when the server says that it undid everything", function()
    assert.is_true(safe("SQL", { sqlstate = "40001" }))
    assert.is_true(safe("SQL", { sqlstate = "40P01" }))
  end)

  it("is never done for a write that may have taken effect", function()
    assert.is_false(safe("UNKNOWN_OUTCOME"))
    assert.is_false(safe("SHARD_DOWN", { retryable = false }))
    assert.is_false(safe("SQL", { sqlstate = "57P01" }))
  end)

  it("is safe for a read whose connection was lost", function()
    assert.is_true(safe("UNKNOWN_OUTCOME", nil, true))
    assert.is_true(safe("SHARD_DOWN", { retryable = false }, true))
  end)

  it("is useless for mistakes, refused logins, full pools and time that is up", function()
    for _, code in ipairs({ "INVALID", "AUTH", "POOL_EXHAUSTED", "TIMEOUT", "CANCELED", "CLOSED" }) do
      assert.is_false(safe(code, nil, true), code)
    end
    assert.is_false(safe("SQL", { sqlstate = "23505" }, true))
  end)

  it("waits longer each time, and not at all past the deadline", function()
    local function seconds(n, deadline)
      local started = task.now()
      local waited = attempt.pause(n, deadline)
      return task.now() - started, waited
    end
    local first, waited = seconds(1)
    assert.is_true(waited)
    assert.is_true(first >= 0.025 and first < 0.2, tostring(first))
    local third = seconds(3)
    assert.is_true(third >= 0.1, tostring(third))
    local none, again = seconds(5, task.now() + 0.01)
    assert.is_false(again)
    assert.is_true(none < 0.02)
  end)
end)
