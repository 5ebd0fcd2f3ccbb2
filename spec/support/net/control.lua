--- What runs in a helper process of the specs: commands come as datagrams, one answer each.
local inet = require("spec.support.net.inet")

local control = {}

--- Serve until the process that started us is gone or ends us.
-- The first line on stdout says the ports: of the commands, then `port`.
-- @tparam number port what clients are to know
-- @tparam table commands name -> function(words...) that returns text or raises
-- @tparam func wanted adds fd -> events to a table; gives the seconds until it has something to do
-- @tparam func serve takes fd -> events
function control.run(port, commands, wanted, serve)
  local parent = inet.parent()
  local datagrams = inet.datagrams("127.0.0.1", 0)
  print(("ready %d %d"):format(inet.port(datagrams), port))
  io.stdout:flush()
  while inet.parent() == parent do
    local fds = { [datagrams] = inet.IN }
    local ready = inet.poll(fds, math.min(wanted(fds) or 1, 1))
    if ready[datagrams] then
      local text, from = inet.receive_from(datagrams)
      local words = {}
      for word in (text or ""):gmatch("%S+") do
        words[#words + 1] = word
      end
      local ok, answer = pcall(commands[words[2]] or error, unpack(words, 3))
      if from then
        inet.send_to(datagrams, ("%s %s %s"):format(words[1], ok and "ok" or "failed", tostring(answer or "")), from)
      end
    end
    serve(ready)
  end
end

return control
