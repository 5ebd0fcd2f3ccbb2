--- Cutting a connection of this very process, in one direction: what a network does to a request, or to an answer.
-- @module spec.moves.cut

local ffi = require("ffi")

ffi.cdef([[
int getsockname(int fd, void *address, unsigned *length);
int shutdown(int fd, int how);
]])

local C = ffi.C
local cut = {}

local MOST = 1024 -- descriptors
local SIZE = 28 -- of the larger of both kinds of addresses; the port is at the same place in both

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
    if C.getsockname(fd, address, length) == 0 and wanted[address[2] * 256 + address[3]] then
      n = n + (C.shutdown(fd, WAYS[way]) == 0 and 1 or 0)
    end
  end
  return n
end

return cut
