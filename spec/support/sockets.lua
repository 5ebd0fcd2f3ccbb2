--- TCP sockets for the specs: a port where nobody listens, and one where nobody answers.
local ffi = require("ffi")

ffi.cdef([[
int socket(int domain, int type, int protocol);
int bind(int fd, const void *address, unsigned length);
int listen(int fd, int backlog);
int getsockname(int fd, void *address, unsigned *length);
int close(int fd);
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
int getpid(void);
struct lunashard_spec_rlimit { unsigned long now, most; };
int getrlimit(int resource, struct lunashard_spec_rlimit *limit);
int setrlimit(int resource, const struct lunashard_spec_rlimit *limit);
ssize_t read(int fd, void *bytes, size_t n);
]])

local sockets = {}

local AF_INET, SOCK_STREAM, SOCKADDR_IN_SIZE = 2, 1, 16

-- A bound socket on 127.0.0.1 and its port.
local function bound()
  local fd = ffi.C.socket(AF_INET, SOCK_STREAM, 0)
  local address = ffi.new("uint8_t[?]", SOCKADDR_IN_SIZE)
  ffi.cast("uint16_t *", address)[0] = AF_INET
  address[4], address[7] = 127, 1
  assert(ffi.C.bind(fd, address, SOCKADDR_IN_SIZE) == 0, "bind")
  local length = ffi.new("unsigned[1]", SOCKADDR_IN_SIZE)
  assert(ffi.C.getsockname(fd, address, length) == 0, "getsockname")
  return fd, address[2] * 256 + address[3]
end

--- A port that refuses connections.
function sockets.closed_port()
  local fd, port = bound()
  ffi.C.close(fd)
  return port
end

--- A server that accepts connections (the kernel does) and never says a word.
-- @treturn table `port` and `close()`
function sockets.silent_server()
  local fd, port = bound()
  assert(ffi.C.listen(fd, 64) == 0, "listen")
  return {
    port = port,
    close = function()
      ffi.C.close(fd)
    end,
  }
end

--- A Unix socket that takes datagrams.
-- @string path
-- @treturn table `read()` gives all that came so far, one after the other, and `close()`
function sockets.datagrams(path)
  local AF_UNIX, DGRAM_NONBLOCK = 1, 2050
  local fd = ffi.C.socket(AF_UNIX, DGRAM_NONBLOCK, 0)
  local address = ffi.new("uint8_t[110]")
  ffi.cast("uint16_t *", address)[0] = AF_UNIX
  ffi.copy(address + 2, path)
  assert(ffi.C.bind(fd, address, 2 + #path + 1) == 0, "bind")
  local all, buffer = "", ffi.new("char[4096]")
  return {
    read = function()
      local n = tonumber(ffi.C.read(fd, buffer, 4096))
      while n > 0 do
        all = all .. ffi.string(buffer, n) .. "\n"
        n = tonumber(ffi.C.read(fd, buffer, 4096))
      end
      return all
    end,
    close = function()
      ffi.C.close(fd)
    end,
  }
end

--- Let this process open so many descriptors, where the system allows it.
function sockets.raise_descriptor_limit(wanted)
  local RLIMIT_NOFILE = 7
  local limit = ffi.new("struct lunashard_spec_rlimit")
  assert(ffi.C.getrlimit(RLIMIT_NOFILE, limit) == 0)
  if limit.now < wanted then
    limit.now = wanted
    limit.most = limit.most < wanted and wanted or limit.most
    assert(ffi.C.setrlimit(RLIMIT_NOFILE, limit) == 0, "setrlimit")
  end
end

--- Set an environment variable (nil removes it) and return its former value.
function sockets.setenv(name, value)
  local before = os.getenv(name)
  if value then
    ffi.C.setenv(name, value, 1)
  else
    ffi.C.unsetenv(name)
  end
  return before
end

--- How many descriptors this process has open.
function sockets.open_descriptors()
  local listing = assert(io.popen(("ls /proc/%d/fd | wc -l"):format(ffi.C.getpid())))
  local n = tonumber(listing:read("*a"))
  listing:close()
  return n
end

return sockets
