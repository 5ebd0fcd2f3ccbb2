--- A TCP proxy in a process of its own, between the program and a server, that spoils what passes through it.
-- "up" is from the program to the server, "down" from the server; "both" is both.
local remote = require("spec.support.net.remote")

local proxy = {}

local Proxy = {}
Proxy.__index = Proxy

--- Start one. Yields.
-- @number target the server's port
-- @tparam[opt] table options `host` ["127.0.0.1"] and `port` [any] where it listens
-- @treturn Proxy with `host` and `port`
function proxy.start(target, options)
  options = options or {}
  local host = options.host or "127.0.0.1"
  local process = remote.start("proxy_process", { host, options.port or 0, target })
  return setmetatable({ process = process, host = host, port = process.port }, Proxy)
end

--- Let everything pass, and accept connections. What was held comes now; what was dropped never will.
function Proxy:pass()
  self.process:tell("rule", "both", "pass")
  self.process:tell("truncate", "both", "none")
  self.process:tell("break_up", "none")
  self.process:tell("listen")
end

--- Deliver everything later.
function Proxy:delay(direction, seconds)
  self.process:tell("rule", direction, "delay", seconds)
end

--- Deliver nothing until `pass`: a network that is cut and heals.
function Proxy:hold(direction)
  self.process:tell("rule", direction, "hold")
end

--- Throw away what comes, and what follows on the same connections, ends included: a firewall that forgot them.
function Proxy:drop(direction)
  self.process:tell("rule", direction, "drop")
end

--- End each connection after so many more bytes, until `pass`.
function Proxy:truncate(direction, bytes)
  self.process:tell("truncate", direction, bytes)
end

--- Pass on at most so many bytes at a time, at random, until `pass`.
function Proxy:break_up(bytes)
  self.process:tell("break_up", bytes)
end

--- Tell the "client" or the "server" on all connections that there is the end of the stream, and the other side nothing.
-- What the one that was told still sends goes on being delivered.
function Proxy:half_close(side)
  self.process:tell("cut", side)
end

--- Reset all connections, on both sides.
function Proxy:reset()
  self.process:tell("cut", "reset")
end

--- Close all connections, on both sides, as a restarting proxy does.
function Proxy:close_all()
  self.process:tell("cut", "close")
end

--- Refuse new connections, until `pass`.
function Proxy:refuse()
  self.process:tell("refuse")
end

--- Lead new connections to another server.
function Proxy:lead_to(port)
  self.process:tell("target", port)
end

--- What went through: `accepted` connections, those `open`, bytes `up` and `down`.
function Proxy:stats()
  local accepted, open, up, down = self.process:tell("stats"):match("(%d+) (%d+) (%d+) (%d+)")
  return { accepted = tonumber(accepted), open = tonumber(open), up = tonumber(up), down = tonumber(down) }
end

function Proxy:close()
  self.process:close()
end

return proxy
