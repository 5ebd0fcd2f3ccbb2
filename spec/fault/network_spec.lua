local faults = require("spec.support.faults")
local sandbox = require("spec.support.sandbox")
local through = require("spec.support.faults.through")

describe("while many tasks work, a network that", function()
  local servers, drill, network

  setup(function()
    servers = sandbox.shared()
  end)

  teardown(sandbox.release)

  before_each(function()
    drill, network = through.drill({ servers = servers }, 2)
  end)

  after_each(function()
    faults.close_all()
    network:close()
  end)

  local function pass()
    network:pass()
  end

  -- What was forgotten stays so: those on the other side find out in the end, by their keepalives.
  local function forget_and_pass()
    network:reset()
    network:pass()
  end

  local function has_error(endpoint)
    return endpoint.last_error ~= nil
  end

  it("gets slow makes its shard slow and no statement fail", function()
    drill:fault("shard2", function()
      network:delay("both", 0.15)
    end)
    drill:expect_status("shard2", {
      is = function(endpoint)
        return endpoint.average_latency_ms > 50
      end,
    })
    drill:expect_neighbours_unharmed()
    drill:recover(pass)
    drill:expect_throughput()
    assert.equal(0, drill.ledger:count("undone") + drill.ledger:count("unknown"), drill.ledger:summary())
    drill:finish()
  end)

  -- Whether what is lost midway was done is unknown for as long as statements go out.
  for _, lossy in ipairs({
    {
      "is cut, and heals",
      function()
        network:hold("both")
      end,
      pass,
    },
    {
      "answers later than anybody waits #long",
      function()
        network:delay("both", 4)
      end,
      pass,
    },
    {
      "forgets what servers say",
      function()
        network:drop("down")
      end,
      forget_and_pass,
    },
    {
      "forgets what servers are told #long",
      function()
        network:drop("up")
      end,
      forget_and_pass,
    },
  }) do
    it(lossy[1] .. " costs no write, no neighbour and no time beyond the limit, and is said", function()
      drill:fault("shard2", lossy[2])
      drill:expect_status("shard2")
      drill:expect_neighbours_unharmed()
      drill:recover(lossy[3])
      drill:expect_throughput()
      drill:finish()
    end)
  end

  -- Writes that come after the connections broke find no connection, so that nothing is unknown of them.
  for _, broken in ipairs({
    {
      "breaks off in the middle of answers",
      function()
        network:truncate("down", 40)
      end,
    },
    {
      "breaks off in the middle of statements #long",
      function()
        network:truncate("up", 40)
      end,
    },
    {
      "resets all connections and refuses new ones",
      function()
        network:refuse()
        network:reset()
      end,
    },
  }) do
    it(broken[1] .. " costs no write and no neighbour, and is said", function()
      drill:fault("shard2", broken[2])
      drill:expect_status("shard2")
      drill:expect_neighbours_unharmed()
      drill:recover(pass)
      drill:expect_throughput()
      drill:finish()
    end)
  end

  for _, how in ipairs({
    {
      "tells us alone that connections have ended",
      function()
        network:half_close("client")
      end,
    },
    {
      "tells servers alone that connections have ended",
      function()
        network:half_close("server")
      end,
    },
    {
      "tells servers alone that connections have ended, and forgets what they say #long",
      function()
        network:drop("down")
        network:half_close("server")
        network:pass()
      end,
    },
    {
      "closes all connections at once #long",
      function()
        network:close_all()
      end,
    },
  }) do
    it(how[1] .. ", again and again, costs only what was under way", function()
      drill:fault("shard2", function()
        for _ = 1, 8 do
          how[2]()
          drill:observe(0.1)
        end
      end)
      drill:expect_status("shard2", { is = has_error })
      drill:expect_neighbours_unharmed()
      drill:recover(pass)
      drill:expect_throughput()
      drill:expect_unknown_in_flight("shard2", 8 * drill:writers())
      drill:finish()
    end)
  end
end)
