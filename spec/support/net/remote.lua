--- Helper processes of the specs, as the specs hold them: started, told what to do, ended.
local cli = require("spec.support.cli")
local inet = require("spec.support.net.inet")
local task = require("lunashard.task")

local remote = {}

local Remote = {}
Remote.__index = Remote

local PATIENCE = 10

local function wait_for(what, get)
  local deadline = task.now() + PATIENCE
  while true do
    local value = get()
    if value then
      return value
    elseif task.now() > deadline then
      error(("no answer from the helper: %s"):format(what), 3)
    end
    task.sleep(0.001)
  end
end

--- Start a script of this folder. Yields until it is ready.
-- @string script
-- @tparam {string,...} arguments
-- @treturn Remote with `port`
function remote.start(script, arguments)
  local argv = { "run", ("spec/support/net/%s.lua"):format(script) }
  for _, argument in ipairs(arguments) do
    argv[#argv + 1] = tostring(argument)
  end
  local child = cli.spawn(argv, { env = { LUNASHARD_GCSTRESS = false } })
  local ports = wait_for("start of " .. script, function()
    local stdout, stderr = child:output()
    if not child:is_running() then
      error(("%s ended: %s"):format(script, stderr))
    end
    local control, port = stdout:match("^ready (%d+) (%d+)\n")
    return control and { tonumber(control), tonumber(port) }
  end)
  return setmetatable({
    child = child,
    port = ports[2],
    to = inet.address("127.0.0.1", ports[1]),
    fd = inet.datagrams("127.0.0.1", 0),
    asked = 0,
  }, Remote)
end

--- Send a command and wait until it is obeyed. Yields.
-- @treturn string what the helper has to say
function Remote:tell(...)
  self.asked = self.asked + 1
  local words, number = { self.asked, ... }, tostring(self.asked)
  for i, word in ipairs(words) do
    words[i] = tostring(word)
  end
  local command = table.concat(words, " ")
  inet.send_to(self.fd, command, self.to)
  return wait_for(command, function()
    local text = inet.receive_from(self.fd)
    local answers, outcome, answer = (text or ""):match("^(%d+) (%a+) (.*)$")
    if answers ~= number then
      return nil
    elseif outcome ~= "ok" then
      error(("%s: %s"):format(command, answer))
    end
    return answer
  end)
end

--- End it.
function Remote:close()
  if self.fd then
    self.child:close()
    inet.close(self.fd)
    self.fd = nil
  end
end

return remote
