--- Telling systemd how we are: datagrams to the socket that it names in `NOTIFY_SOCKET`; see sd_notify(3).
-- @module lunashard.serve.notify

local system = require("lunashard.core.system")

local notify = {}

--- Tell it. Does nothing when nobody wants to know.
-- @string text such as `READY=1`
function notify.send(text)
  local socket = os.getenv("NOTIFY_SOCKET")
  if socket and socket:find("^[/@]") then
    system.send_datagram(socket, text)
  end
end

--- How often systemd is to hear that all is well.
-- @treturn ?number seconds: half of what its watchdog waits for; nil when it does not
function notify.interval()
  local usec, pid = tonumber(os.getenv("WATCHDOG_USEC")), tonumber(os.getenv("WATCHDOG_PID"))
  if usec and usec > 0 and (pid == nil or pid == system.getpid()) then
    return usec / 2e6
  end
end

return notify
