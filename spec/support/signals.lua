--- Signals to a whole server: its postmaster and all that it started.
-- @module spec.support.signals

local kill = require("lunashard.core.system").kill
local signals = require("lunashard.process").signals

local server_signals = {}

local function read(path, format)
  local file = io.open(path)
  local content = file and file:read(format)
  if file then
    file:close()
  end
  return content
end

local function send(servers, name, signal)
  local postmaster = read(("%s/data/%s/postmaster.pid"):format(servers.dir, name), "*n")
  local children = read(("/proc/%d/task/%d/children"):format(postmaster, postmaster), "*a")
  assert(children and children:find("%d"), "no processes of " .. name .. " were found")
  assert(kill(postmaster, signal)) -- first, so that no child comes after the list was read
  for pid in children:gmatch("%d+") do
    kill(tonumber(pid), signal) -- one may have ended meanwhile
  end
end

--- Stop a server in its tracks (SIGSTOP): the kernel goes on to accept connections, and nobody answers.
-- @tparam table servers of spec.support.sandbox
-- @string name such as `shard2`
function server_signals.freeze(servers, name)
  send(servers, name, signals.STOP)
end

--- Let it go on (SIGCONT).
function server_signals.thaw(servers, name)
  send(servers, name, signals.CONT)
end

return server_signals
