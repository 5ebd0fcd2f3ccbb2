local lunashard = require("lunashard")

describe("the choice of DNS servers", function()
  after_each(function()
    lunashard.set_dns_servers(nil)
  end)

  it("takes addresses, with and without a port, and nil for those of the system", function()
    for _, servers in ipairs({ { "127.0.0.1" }, { "127.0.0.1:8600" }, { "::1" }, { "[::1]:8600", "127.0.0.2" } }) do
      assert.is_true(lunashard.set_dns_servers(servers))
    end
    assert.is_true(lunashard.set_dns_servers(nil))
  end)

  it("refuses what is no address, and names it", function()
    for _, wrong in ipairs({ "dns.example.com", "1.2.3.4.5", "127.0.0.1, 127.0.0.2", "", "999.1.1.1", "127.0.0.1:x" }) do
      local ok, message = pcall(lunashard.set_dns_servers, { "127.0.0.1", wrong })
      assert.is_false(ok, wrong)
      assert.is_truthy(message:find(wrong, 1, true), message)
    end
    for _, wrong in ipairs({ {}, "127.0.0.1", 53, { 53 } }) do
      local ok, message = pcall(lunashard.set_dns_servers, wrong)
      assert.is_false(ok)
      assert.is_truthy(message:find("set_dns_servers", 1, true), message)
    end
  end)
end)
