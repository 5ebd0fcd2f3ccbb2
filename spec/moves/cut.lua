--- Cutting a connection of this very process, in one direction: what a network does to a request, or to an answer.
-- @module spec.moves.cut

local ffi = require("ffi")

ffi.cdef([[
int getsockname(int fd, void *address, unsigned *length);
int setsockopt(int fd, int level, int name, const void *value, unsigned length);
int shutdown(int fd, int how);
]])

local C = ffi.C
local cut = {}

local MOST = 1024 -- descriptors
local SIZE = 28 -- of the larger of both kinds of addresses; the port is at the same place in both

local SOL_SOCKET, SO_ATTACH_FILTER = 1, 26

-- A filter of packets that takes none: `shutdown` alone would let in an answer that is quicker than we look.
local FILTER = { code = ffi.new("uint16_t[4]", 6, 0, 0, 0) } -- "return 0"
FILTER.program = ffi.new("uint64_t[2]", 1, ffi.cast("uintptr_t", FILTER.code)) -- how many instructions, and where

-- How `shutdown` names them.
local WAYS = { ["reply lost"] = 0, ["request lost"] = 1 }

--- Cut connections: with `reply lost` the server gets what is sent, and we nothing any more; with `request lost` it gets
-- the end of the stream.
-- @tparam {int,...} ports of ours
-- @string way
-- @treturn int how many there were
function cut.now(ports, way)
  local wanted, n = {}, 0
  for _, port in ipairs(ports) do
    wanted[port] = true
  end
  local address, length = ffi.new("uint8_t[?]", SIZE), ffi.new("unsigned[1]")
  for fd = 3, MOST - 1 do
    length[0] = SIZE
    ffi.fill(address, SIZE) -- a socket of another kind writes less
    if C.getsockname(fd, address, length) == 0 and wanted[address[2] * 256 + address[3]] then
      assert(way ~= "reply lost" or C.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, FILTER.program, 16) == 0)
      n = n + (C.shutdown(fd, WAYS[way]) == 0 and 1 or 0)
    end
  end
  return n
end

return cut
