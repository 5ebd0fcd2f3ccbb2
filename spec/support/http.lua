--- A client of HTTP for the specs that can also misbehave: sockets that never block, so that the server may live in
-- this process. What was opened is closed by `close_all`.
-- @module spec.support.http

local bit = require("bit")
local ffi = require("ffi")
local task = require("lunashard.task")

require("spec.support.sockets") -- declares socket, bind, close and others

ffi.cdef([[
int connect(int fd, const void *address, unsigned length);
ssize_t send(int fd, const void *bytes, size_t n, int flags);
ssize_t recv(int fd, void *bytes, size_t n, int flags);
int setsockopt(int fd, int level, int name, const void *value, unsigned length);
]])

local http = {}

local AF_INET, STREAM_NONBLOCK, MSG_NOSIGNAL = 2, 2049, 0x4000
local EAGAIN, ECONNRESET = 11, 104
local TIMEOUT = 10

local opened = {}

local Connection = {}
Connection.__index = Connection

--- Connect to 127.0.0.1. Does not wait for it.
-- @number port
-- @tparam[opt] number receive_buffer bytes that the kernel keeps of what is not read
-- @treturn Connection
function http.connect(port, receive_buffer)
  local fd = ffi.C.socket(AF_INET, STREAM_NONBLOCK, 0)
  assert(fd >= 0, "no socket")
  if receive_buffer then
    ffi.C.setsockopt(fd, 1, 8, ffi.new("int[1]", receive_buffer), 4)
  end
  local address = ffi.new("uint8_t[16]")
  ffi.cast("uint16_t *", address)[0] = AF_INET
  address[2], address[3], address[4], address[7] = bit.rshift(port, 8), bit.band(port, 255), 127, 1
  ffi.C.connect(fd, address, 16)
  local self = setmetatable({ fd = fd, received = "", ended = false }, Connection)
  opened[self] = true
  return self
end

--- Send bytes; false when the other side has closed. Yields.
function Connection:send(text)
  local deadline = task.now() + TIMEOUT
  while #text > 0 do
    local n = tonumber(ffi.C.send(self.fd, text, #text, MSG_NOSIGNAL))
    if n > 0 then
      text = text:sub(n + 1)
    elseif ffi.errno() ~= EAGAIN then
      return false
    elseif task.now() > deadline then
      error("could not send", 2)
    else
      task.sleep(0.002)
    end
  end
  return true
end

local buffer = ffi.new("char[65536]")

--- Read what is there. Does not wait.
-- @treturn string all that was received so far
function Connection:read()
  while not self.ended do
    local n = tonumber(ffi.C.recv(self.fd, buffer, 65536, 0))
    if n > 0 then
      self.received = self.received .. ffi.string(buffer, n)
    elseif n == 0 or ffi.errno() == ECONNRESET then
      self.ended = true
    else
      break
    end
  end
  return self.received
end

--- Wait until what was received has a pattern, or until the other side closes. Yields.
-- @tparam ?string pattern none waits for the end
-- @tparam[opt] number timeout
-- @treturn string all that was received
function Connection:wait(pattern, timeout)
  local deadline = task.now() + (timeout or TIMEOUT)
  while not self.ended and not (pattern and self:read():find(pattern)) do
    self:read()
    if task.now() > deadline then
      error(("waited in vain for %s; received: %s"):format(pattern or "the end", self.received:sub(1, 300)), 2)
    end
    task.sleep(0.002)
  end
  return self.received
end

--- Wait for a whole answer and take it. Yields.
-- @treturn table `status`, `headers` (names in lower case), `body`, `text`
function Connection:answer()
  local text = self:wait("\r\n\r\n")
  local head_end = select(2, text:find("\r\n\r\n", 1, true))
  if not head_end then
    return { text = text, headers = {} }
  end
  local answer = { headers = {}, status = tonumber(text:match("^HTTP/1%.[01] (%d+)")) }
  for name, value in text:sub(1, head_end):gmatch("\r\n([^:\r\n]+): *([^\r\n]*)") do
    answer.headers[name:lower()] = value
  end
  local length = not self.is_head and tonumber(answer.headers["content-length"]) or 0
  while #self.received < head_end + length and not self.ended do
    task.sleep(0.002)
    self:read()
  end
  answer.text = self.received:sub(1, head_end + length)
  answer.body = answer.text:sub(head_end + 1)
  self.received = self.received:sub(head_end + length + 1)
  return answer
end

--- Close it.
function Connection:close()
  if opened[self] then
    ffi.C.close(self.fd)
    opened[self] = nil
  end
end

--- Ask for a path. Yields.
-- @number port
-- @string path
-- @tparam[opt] table options `method`, `headers`
-- @treturn table as `Connection:answer` gives it
function http.get(port, path, options)
  options = options or {}
  local connection = http.connect(port)
  local lines = { ("%s %s HTTP/1.1"):format(options.method or "GET", path) }
  local headers = { Host = "127.0.0.1:" .. port, Connection = "close" }
  for name, value in pairs(options.headers or {}) do
    headers[name] = value or nil
  end
  for name, value in pairs(headers) do
    lines[#lines + 1] = name .. ": " .. value
  end
  connection.is_head = options.method == "HEAD"
  connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
  local answer = connection:answer()
  connection:close()
  return answer
end

--- Close all connections.
function http.close_all()
  for connection in pairs(opened) do
    connection:close()
  end
end

return http
