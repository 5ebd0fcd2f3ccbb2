local faults = require("spec.support.faults")
local sandbox = require("spec.support.sandbox")

describe("while many tasks work, the loss of a primary", function()
  local servers

  setup(function()
    servers = sandbox.start({ shards = 3 })
  end)

  teardown(function()
    servers:destroy()
  end)

  before_each(function()
    servers:start()
  end)

  after_each(faults.close_all)

  it("by kill -9 loses and doubles no write, harms no neighbour, is said, and passes with the server's return", function()
    local drill = faults.drill({ servers = servers })
    for _ = 1, 2 do
      drill:fault("shard2", function()
        servers:kill("shard2")
      end)
      drill:expect_status("shard2")
      drill:expect_neighbours_unharmed()
      drill:recover(function()
        servers:start()
      end)
      drill:expect_throughput()
    end
    drill:expect_unknown_in_flight("shard2", 2 * 2 * drill:writers())
    drill:finish()
  end)
end)
