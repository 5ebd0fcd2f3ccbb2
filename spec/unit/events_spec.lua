local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local events = require("lunashard.events")

describe("lunashard.events", function()
  local stop

  after_each(function()
    if stop then
      stop()
      stop = nil
    end
  end)

  local function event(message)
    return { kind = "health", shard_id = "shard1", endpoint = "h:1", from = "healthy", to = "unhealthy", message = message }
  end

  it("are one line of warning each, and a call for whoever subscribed", function()
    local seen
    stop = events.subscribe(function(one)
      seen = one
    end)
    local given = event("it is down")
    local warnings = cluster.warnings(function()
      events.emit(given)
    end)
    assert.same({ "it is down" }, warnings)
    cluster.wait_until("the subscriber was called", function()
      return seen == given
    end)
  end)

  it("go to the manager's on_health too, and to nobody after the end of a subscription", function()
    local seen, others = {}, 0
    local cancel = events.subscribe(function()
      others = others + 1
    end)
    cancel()
    cluster.warnings(function()
      events.emit(event("one"), {
        options = {
          on_health = function(one)
            seen[#seen + 1] = one.message
          end,
        },
      })
    end)
    cluster.wait_until("on_health was called", function()
      return seen[1] == "one"
    end)
    assert.equal(0, others)
  end)

  it("reach the others when one subscriber raises, and that is warned of", function()
    local seen = 0
    local first = events.subscribe(function()
      error(errors.new("INVALID", { message = "no good" }))
    end)
    stop = events.subscribe(function()
      seen = seen + 1
    end)
    local warnings = cluster.warnings(function()
      events.emit(event("two"))
      cluster.wait_until("both were called", function()
        return seen == 1
      end)
    end)
    first()
    assert.equal(2, #warnings)
    assert.is_truthy(warnings[2]:find("health raised: INVALID: no good", 1, true), warnings[2])
  end)

  it("refuse a subscriber that cannot be called", function()
    assert.has_error(function() events.subscribe("me") end, "subscribe: expected a function, got a string")
  end)
end)
