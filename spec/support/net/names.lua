--- A name server in a process of its own, whose answers the specs choose. Names it was told nothing of do not exist.
local lunashard = require("lunashard")
local remote = require("spec.support.net.remote")

local names = {}

local Names = {}
Names.__index = Names

--- Start it, and have this process ask it. Yields.
function names.start()
  local process = remote.start("names_process", {})
  lunashard.set_dns_servers({ ("127.0.0.1:%d"):format(process.port) })
  return setmetatable({ process = process }, Names)
end

--- Say what becomes of a name.
-- @string name in lower case, with two dots at least, so that no search domain is tried first
-- @string fate an IPv4 address; `hang` (no answer), `fail` (the server cannot say) or `unknown` (no such name)
function Names:set(name, fate)
  self.process:tell("set", name, fate)
end

--- How often a name was asked for.
function Names:asked(name)
  return tonumber(self.process:tell("asked", name))
end

--- End it, and ask the system's servers again.
function Names:close()
  self.process:close()
  lunashard.set_dns_servers(nil)
end

return names
