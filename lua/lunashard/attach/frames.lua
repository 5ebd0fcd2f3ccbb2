--- Tables sent over a local socket, one line of JSON each.
-- @module lunashard.attach.frames

local cjson = require("cjson.safe")
local task = require("lunashard.task")

local frames = {}

local MAX_FRAME = 2 ^ 26 -- bytes
local MAX_WAITING = 2 ^ 20 -- bytes that are not sent yet, beyond which a sender waits

local Frames = {}
Frames.__index = Frames

local wait_socket = task.waits(function(socket, is_writing)
  return socket:wait(nil, is_writing)
end)

--- Frames over a socket, which belongs to them from now on.
-- @tparam lunashard.descriptor socket
-- @treturn[1] Frames
-- @treturn[2] nil
-- @treturn[2] string reason
function frames.over(socket)
  local writer, reason = socket:twin()
  if not writer then
    return nil, reason
  end
  return setmetatable({ reader = socket, writer = writer, rest = {}, length = 0, lines = {}, queue = {}, waiting = 0,
    sent = task.event() }, Frames)
end

local function write(self, bytes)
  local at = 1
  while at <= #bytes and not self.is_closed do
    local n = self.writer:write(bytes, at)
    if not n then
      return false
    end
    at = at + n
    if at <= #bytes then
      wait_socket(self.writer, true)
    end
  end
  return true
end

local function send_all(self)
  while #self.queue > 0 and not self.is_closed do
    local bytes = table.concat(self.queue)
    self.queue = {}
    if not write(self, bytes) then
      self.is_broken = true
      break
    end
    self.waiting = self.waiting - #bytes
    self.sent:notify()
  end
  self.sending = nil
  self.sent:notify()
end

--- Send a table. Yields while too much waits to be sent, where that is possible.
-- @tparam table frame
function Frames:send(frame)
  if self.is_closed or self.is_broken then
    return
  end
  local bytes = assert(cjson.encode(frame)) .. "\n"
  self.queue[#self.queue + 1] = bytes
  self.waiting = self.waiting + #bytes
  self.sending = self.sending or task.daemon(send_all, self)
  while self.waiting > MAX_WAITING and not self.is_closed and not self.is_broken and coroutine.isyieldable() do
    self.sent:wait()
  end
end

local function take(self, bytes)
  local at = 1
  while true do
    local stop = bytes:find("\n", at, true)
    local piece = bytes:sub(at, stop and stop - 1)
    self.rest[#self.rest + 1] = piece
    self.length = self.length + #piece
    if not stop then
      return self.length <= MAX_FRAME
    end
    self.lines[#self.lines + 1] = table.concat(self.rest)
    self.rest, self.length, at = {}, 0, stop + 1
  end
end

--- Wait for the next table. Yields.
-- @treturn ?table nil when the other side has gone, or sends what is no frame
function Frames:receive()
  while #self.lines == 0 do
    if self.is_closed then
      return nil
    end
    wait_socket(self.reader, false)
    local bytes = not self.is_closed and self.reader:read()
    if not bytes or not take(self, bytes) then
      return nil
    end
  end
  local frame = cjson.decode(table.remove(self.lines, 1))
  return type(frame) == "table" and frame or nil
end

--- Close it, after what waits to be sent was tried once more. May be called again.
function Frames:close()
  if self.is_closed then
    return
  end
  if #self.queue > 0 and not self.is_broken then
    self.writer:write(table.concat(self.queue))
  end
  self.is_closed = true
  self.sent:notify()
  self.reader:close()
  self.writer:close()
end

return frames
