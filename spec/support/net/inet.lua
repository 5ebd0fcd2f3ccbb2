--- Non-blocking IPv4 sockets on this machine, by FFI: what the proxy, the name server and their controls need.
-- All addresses are numeric; a port of 0 lets the kernel choose.
local bit = require("bit")
local ffi = require("ffi")

ffi.cdef([[
struct lunashard_spec_pollfd { int fd; short events; short revents; };
int socket(int domain, int type, int protocol);
int bind(int fd, const void *address, unsigned length);
int listen(int fd, int backlog);
int accept4(int fd, void *address, unsigned *length, int flags);
int connect(int fd, const void *address, unsigned length);
int getsockname(int fd, void *address, unsigned *length);
int setsockopt(int fd, int level, int name, const void *value, unsigned length);
int getsockopt(int fd, int level, int name, void *value, unsigned *length);
int shutdown(int fd, int how);
int close(int fd);
int getppid(void);
int poll(struct lunashard_spec_pollfd *fds, unsigned long n, int timeout);
ssize_t recv(int fd, void *buf, size_t n, int flags);
ssize_t send(int fd, const void *buf, size_t n, int flags);
ssize_t recvfrom(int fd, void *buf, size_t n, int flags, void *address, unsigned *length);
ssize_t sendto(int fd, const void *buf, size_t n, int flags, const void *address, unsigned length);
]])

local C = ffi.C
local inet = {}

local AF_INET, STREAM, DATAGRAM, NONBLOCK_CLOEXEC = 2, 1, 2, 2048 + 524288
local SOL_SOCKET, SO_REUSEADDR, SO_ERROR, SO_LINGER, IPPROTO_TCP, TCP_NODELAY = 1, 2, 4, 13, 6, 1
local NOSIGNAL = 0x4000
local EAGAIN, EINPROGRESS = 11, 115
local SIZE = 16 -- of a sockaddr_in
local ROOM = 65536

--- For `poll`.
inet.IN, inet.OUT = 1, 4

local buf = ffi.new("uint8_t[?]", ROOM)
local number = ffi.new("int[2]")
local length = ffi.new("unsigned[1]")

local function sockaddr(host, port)
  local address = ffi.new("uint8_t[?]", SIZE)
  ffi.cast("uint16_t *", address)[0] = AF_INET
  address[2], address[3] = bit.rshift(port, 8), bit.band(port, 255)
  local i = 4
  for part in host:gmatch("%d+") do
    address[i], i = tonumber(part), i + 1
  end
  return address
end

local function set(fd, level, name, value, more)
  number[0], number[1] = value, more or 0
  C.setsockopt(fd, level, name, number, more and 8 or 4)
end

local function checked(result, what)
  if result < 0 then
    error(("%s: errno %d"):format(what, ffi.errno()), 3)
  end
  return result
end

--- The port that a socket is bound to.
function inet.port(fd)
  local address = ffi.new("uint8_t[?]", SIZE)
  length[0] = SIZE
  checked(C.getsockname(fd, address, length), "getsockname")
  return address[2] * 256 + address[3]
end

--- A socket that listens.
function inet.listen(host, port)
  local fd = checked(C.socket(AF_INET, STREAM + NONBLOCK_CLOEXEC, 0), "socket")
  set(fd, SOL_SOCKET, SO_REUSEADDR, 1)
  checked(C.bind(fd, sockaddr(host, port), SIZE), ("bind to %s:%d"):format(host, port))
  checked(C.listen(fd, 1024), "listen")
  return fd
end

--- The next connection to it; nil when there is none.
function inet.accept(listener)
  local fd = C.accept4(listener, nil, nil, NONBLOCK_CLOEXEC)
  if fd < 0 then
    return nil
  end
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1)
  return fd
end

--- Begin to connect. `send` works, or fails, once poll says OUT.
function inet.connect(host, port)
  local fd = checked(C.socket(AF_INET, STREAM + NONBLOCK_CLOEXEC, 0), "socket")
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1)
  if C.connect(fd, sockaddr(host, port), SIZE) < 0 and ffi.errno() ~= EINPROGRESS then
    C.close(fd)
    return nil
  end
  return fd
end

--- Did the connection come about?
function inet.is_connected(fd)
  length[0] = 4
  return C.getsockopt(fd, SOL_SOCKET, SO_ERROR, number, length) == 0 and number[0] == 0
end

--- A datagram socket, bound to a port.
function inet.datagrams(host, port)
  local fd = checked(C.socket(AF_INET, DATAGRAM + NONBLOCK_CLOEXEC, 0), "socket")
  checked(C.bind(fd, sockaddr(host, port), SIZE), ("bind to %s:%d"):format(host, port))
  return fd
end

--- What has come: bytes, "" at the end of the stream, nil when there is nothing yet, false when the connection is lost.
function inet.receive(fd)
  local n = tonumber(C.recv(fd, buf, ROOM, 0))
  if n >= 0 then
    return ffi.string(buf, n)
  end
  return ffi.errno() ~= EAGAIN and false or nil
end

--- Send what fits: how many bytes, 0 when there is no room, nil when the connection is lost.
function inet.send(fd, bytes)
  local n = tonumber(C.send(fd, bytes, #bytes, NOSIGNAL))
  if n >= 0 then
    return n
  end
  return ffi.errno() == EAGAIN and 0 or nil
end

--- A datagram and whom to answer; nil when there is none.
function inet.receive_from(fd)
  local from = ffi.new("uint8_t[?]", SIZE)
  length[0] = SIZE
  local n = tonumber(C.recvfrom(fd, buf, ROOM, 0, from, length))
  if n >= 0 then
    return ffi.string(buf, n), from
  end
end

--- Send a datagram to an address, as `receive_from` or `address` gave it.
function inet.send_to(fd, bytes, to)
  C.sendto(fd, bytes, #bytes, NOSIGNAL, to, SIZE)
end

--- An address for `send_to`.
inet.address = sockaddr

--- No more bytes will be sent: the other side reads the end of the stream.
function inet.finish(fd)
  C.shutdown(fd, 1)
end

--- Close; with `reset`, so that the other side sees a connection reset.
function inet.close(fd, reset)
  if reset then
    set(fd, SOL_SOCKET, SO_LINGER, 1, 0)
  end
  C.close(fd)
end

--- Wait until something can be done.
-- @tparam table wanted fd -> IN, OUT or their sum
-- @number timeout seconds
-- @treturn table fd -> what can be done; an error or a hang-up counts as IN and OUT
function inet.poll(wanted, timeout)
  local n = 0
  for _ in pairs(wanted) do
    n = n + 1
  end
  local fds, i = ffi.new("struct lunashard_spec_pollfd[?]", math.max(n, 1)), 0
  for fd, events in pairs(wanted) do
    fds[i].fd, fds[i].events, fds[i].revents = fd, events, 0
    i = i + 1
  end
  local ready = {}
  if C.poll(fds, n, math.ceil(timeout * 1000)) > 0 then
    for at = 0, n - 1 do
      local events = fds[at].revents
      if events ~= 0 then
        ready[fds[at].fd] = events > 7 and inet.IN + inet.OUT or events
      end
    end
  end
  return ready
end

--- The process that started this one.
function inet.parent()
  return C.getppid()
end

return inet
