local faults = require("spec.support.faults")
local names = require("spec.support.net.names")
local proxy = require("spec.support.net.proxy")
local sandbox = require("spec.support.sandbox")
local through = require("spec.support.faults.through")

local HOST = "db2.fault.test"

describe("while many tasks work, a shard known by name", function()
  local servers, server, nameserver, old, new, drill

  setup(function()
    servers = sandbox.shared()
    server = servers.shards[2]
    nameserver = names.start()
    old = proxy.start(server.port, { host = "127.0.0.2" })
    new = proxy.start(server.port, { host = "127.0.0.3", port = old.port })
  end)

  teardown(function()
    for _, one in ipairs({ old, new, nameserver }) do
      one:close()
    end
    sandbox.release()
  end)

  before_each(function()
    old:pass()
    nameserver:set(HOST, "127.0.0.2")
    drill = faults.drill({ servers = servers, adapt = through.lead(server, { host = HOST, port = old.port }) })
  end)

  -- Cancel requests that hang would outlive their test.
  after_each(function()
    old:pass()
    old:reset()
    faults.close_all()
  end)

  local function move()
    nameserver:set(HOST, "127.0.0.3")
  end

  it("is found at its new address when it has gone from the old one", function()
    local before = new:stats().accepted
    drill:fault("shard2", function()
      old:refuse()
      old:reset()
    end)
    drill:expect_status("shard2")
    drill:expect_neighbours_unharmed()
    drill:recover(move)
    drill:expect_throughput()
    drill:finish()
    assert.is_true(new:stats().accepted > before)
  end)

  it("is found at its new address when the old one has fallen silent", function()
    drill:fault("shard2", function()
      old:drop("both")
    end)
    drill:expect_status("shard2")
    drill:expect_neighbours_unharmed()
    drill:recover(move)
    -- What hangs is known to do so by its deadline, and is cancelled in vain before another connection takes its place.
    drill:expect_throughput({ within = drill.timeout + 1 + 2 })
    drill:finish()
  end)

  it("is found at its new address when it is moved without a break #long", function()
    drill:fault("shard2", function()
      move()
      old:close_all()
    end)
    drill:expect_throughput()
    drill:expect_neighbours_unharmed()
    drill:expect_unknown_in_flight("shard2", drill:writers())
    drill:finish()
    assert.equal(0, old:stats().open)
  end)

  for _, one in ipairs({
    { fate = "hang", when = "the name server falls silent", says = { "resolver", "resolving" } },
    { fate = "unknown", when = "its name is gone", says = { HOST } },
    { fate = "fail", when = "the name server fails #long", says = { HOST } },
  }) do
    it(("goes on with the connections there are when %s, then fails in time and says why"):format(one.when), function()
      drill:fault("shard2", function()
        nameserver:set(HOST, one.fate)
      end)
      drill:observe(0.5)
      assert.equal(0, drill.ledger:count("undone", "shard2"), drill.ledger:summary("shard2"))

      drill:fault("shard2", function()
        old:close_all()
      end)
      drill:expect_status("shard2", {
        is = function(endpoint)
          for _, words in ipairs(one.says) do
            if tostring(endpoint.last_error):find(words, 1, true) then
              return true
            end
          end
          return false
        end,
      })
      drill:expect_neighbours_unharmed()
      drill:recover(function()
        nameserver:set(HOST, "127.0.0.2")
      end)
      drill:expect_throughput()
      drill:expect_unknown_in_flight("shard2", drill:writers())
      drill:finish()
    end)
  end
end)
