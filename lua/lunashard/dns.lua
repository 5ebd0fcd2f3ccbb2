--- Which DNS servers are asked for the names of hosts.
-- Those of the system, as /etc/resolv.conf names them, unless a script says otherwise. Names are looked up for each
-- new connection, so that a name that moves to another address is followed; `/etc/hosts` comes first.
-- @module lunashard.dns

local checks = require("lunashard.options")
local core = require("lunashard.core.pool")

local dns = {}

local function is_address(text)
  return text:find("^%d+%.%d+%.%d+%.%d+:?%d*$") or text:find("^%[?%x*:[%x:.]*%]?:?%d*$")
end

local function check(servers)
  if type(servers) ~= "table" or #servers == 0 then
    error(("set_dns_servers: expected a list of addresses such as \"10.0.0.2\" or \"10.0.0.2:8600\", got %s"):format(
      checks.describe(servers)), 3)
  end
  for i, server in ipairs(servers) do
    if type(server) ~= "string" or not is_address(server) then
      error(("set_dns_servers: server %d: expected an address such as \"10.0.0.2\" or \"10.0.0.2:8600\", got %s"):format(i,
        checks.describe(server)), 3)
    end
  end
end

--- Ask these servers from now on, for everything in this program. Lookups under way fail with `SHARD_DOWN`.
-- Raises for what is no address.
-- @tparam ?{string,...} servers numeric addresses, with `:port` where it is not 53 (`[::1]:8600` for IPv6); nil for
--   those of the system again
-- @treturn boolean true
function dns.set_servers(servers)
  if servers ~= nil then
    check(servers)
  end
  local ok, err = core.set_dns_servers(servers and table.concat(servers, ","))
  if not ok then
    error("set_dns_servers: " .. err.message, 2)
  end
  return true
end

return dns
