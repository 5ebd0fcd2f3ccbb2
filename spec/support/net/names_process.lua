-- A name server for the specs: names_process.lua. See spec/support/net/names.lua.
package.path = "./?.lua;" .. package.path
local bit = require("bit")
local control = require("spec.support.net.control")
local inet = require("spec.support.net.inet")

local RECORD_A, NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME = 1, 0, 2, 3

local socket = inet.datagrams("127.0.0.1", 0)
local known, asked = {}, {}

-- The first question: name in lower case, type, and where it ends.
local function question(query)
  local labels, at = {}, 13
  local size = query:byte(at)
  while size and size > 0 and size < 64 do
    labels[#labels + 1] = query:sub(at + 1, at + size):lower()
    at = at + size + 1
    size = query:byte(at)
  end
  local high, low = query:byte(at + 1, at + 2)
  if size ~= 0 or not low or #query < at + 4 then
    return nil
  end
  return table.concat(labels, "."), high * 256 + low, at + 4
end

local function u16(value)
  return string.char(bit.rshift(value, 8), bit.band(value, 255))
end

local function record(address)
  local a, b, c, d = address:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  return "\192\12" .. u16(RECORD_A) .. u16(1) .. u16(0) .. u16(0) .. u16(4) .. string.char(a, b, c, d)
end

-- Nothing for a name that hangs.
local function answer(query)
  local name, kind, ends = question(query)
  if not name then
    return nil
  end
  asked[name] = (asked[name] or 0) + 1
  local fate = known[name] or "unknown"
  if fate == "hang" then
    return nil
  end
  local code = fate == "unknown" and NO_SUCH_NAME or fate == "fail" and SERVER_FAILURE or NO_ERROR
  local records = code == NO_ERROR and kind == RECORD_A and record(fate) or ""
  return query:sub(1, 2) .. u16(0x8180 + code) .. u16(1) .. u16(records ~= "" and 1 or 0) .. u16(0) .. u16(0)
    .. query:sub(13, ends) .. records
end

local commands = {}

function commands.set(name, fate)
  known[name] = fate ~= "unknown" and fate or nil
end

function commands.asked(name)
  return asked[name] or 0
end

local function wanted(fds)
  fds[socket] = inet.IN
end

local function serve(ready)
  if not ready[socket] then
    return
  end
  local query, from = inet.receive_from(socket)
  while query do
    local reply = answer(query)
    if reply then
      inet.send_to(socket, reply, from)
    end
    query, from = inet.receive_from(socket)
  end
end

control.run(inet.port(socket), commands, wanted, serve)
