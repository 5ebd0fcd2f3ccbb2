-- A TCP proxy that does what networks do: proxy_process.lua HOST PORT TARGET-PORT. See spec/support/net/proxy.lua.
package.path = "./?.lua;" .. package.path
local control = require("spec.support.net.control")
local inet = require("spec.support.net.inet")
local now = require("lunashard").now

local host, port, target = arg[1], tonumber(arg[2]), tonumber(arg[3])
local listener = inet.listen(host, port)
port = inet.port(listener)

local QUEUE = 1048576 -- bytes on their way, beyond which the sender is not read

-- One for each direction. `pass`, `delay` (seconds), `hold` (nothing moves, nothing is lost) or `drop` (read and
-- thrown away, and so is what follows on that connection).
local rules = { up = { kind = "pass" }, down = { kind = "pass" } }
local piece -- bytes that are passed on at a time, at most
local limits = {} -- bytes after which a new connection is cut in that direction
local pairs_open, counts = {}, { accepted = 0, up = 0, down = 0 }

local function new_flow(name, source, sink)
  return { name = name, source = source, sink = sink, queue = {}, first = 1, last = 0, bytes = 0, limit = limits[name] }
end

local function close_pair(pair, reset)
  for _, fd in ipairs({ pair.client, pair.server }) do
    inet.close(fd, reset)
  end
  pairs_open[pair] = nil
end

local function accept()
  local client = inet.accept(listener)
  while client do
    counts.accepted = counts.accepted + 1
    local server = inet.connect("127.0.0.1", target)
    if server then
      local pair = { client = client, server = server }
      pair.up, pair.down = new_flow("up", client, server), new_flow("down", server, client)
      pairs_open[pair] = true
    else
      inet.close(client, true)
    end
    client = inet.accept(listener)
  end
end

-- Take what has come in; false when the connection is lost.
local function read(flow)
  local rule = rules[flow.name]
  local bytes = inet.receive(flow.source)
  if not bytes then
    return bytes == nil
  end
  flow.spoilt = flow.spoilt or rule.kind == "drop"
  if bytes == "" then
    flow.ended = true
    flow.finished = flow.finished or flow.spoilt
    return true
  elseif flow.spoilt then
    return true
  end
  if flow.limit and #bytes >= flow.limit then
    bytes, flow.cut = bytes:sub(1, flow.limit), true
  end
  flow.limit = flow.limit and flow.limit - #bytes
  flow.last = flow.last + 1
  flow.queue[flow.last] = { bytes = bytes, due = now() + (rule.delay or 0) }
  flow.bytes = flow.bytes + #bytes
  return true
end

-- Pass on what is due; false when the connection is lost, or was to be cut here.
local function write(flow)
  while flow.first <= flow.last do
    local chunk = flow.queue[flow.first]
    if chunk.due > now() or rules[flow.name].kind == "hold" then
      return true
    end
    local n = inet.send(flow.sink, piece and chunk.bytes:sub(1, math.random(piece)) or chunk.bytes)
    if not n then
      return false
    end
    counts[flow.name] = counts[flow.name] + n
    flow.bytes = flow.bytes - n
    if n < #chunk.bytes then
      chunk.bytes = chunk.bytes:sub(n + 1)
      return true
    end
    flow.queue[flow.first] = nil
    flow.first = flow.first + 1
  end
  if flow.ended and not flow.finished then
    inet.finish(flow.sink)
    flow.finished = true
  end
  return not flow.cut
end

local function add(fds, fd, events)
  fds[fd] = (fds[fd] or 0) + events
end

-- What to wait for in one direction; gives the time at which the next chunk is due.
local function want(flow, fds)
  local held = rules[flow.name].kind == "hold"
  if not flow.ended and not flow.cut and not held and flow.bytes < QUEUE then
    add(fds, flow.source, inet.IN)
  end
  local chunk = flow.queue[flow.first]
  if chunk and not held then
    if chunk.due > now() then
      return chunk.due
    end
    add(fds, flow.sink, inet.OUT)
  end
end

local function wanted(fds)
  local soonest = math.huge
  if listener then
    add(fds, listener, inet.IN)
  end
  for pair in pairs(pairs_open) do
    if pair.connected then
      soonest = math.min(soonest, want(pair.up, fds) or soonest, want(pair.down, fds) or soonest)
    else
      add(fds, pair.server, inet.OUT)
    end
  end
  return math.max(soonest - now(), 0)
end

local function serve_pair(pair, ready)
  if not pair.connected then
    if not ready[pair.server] then
      return true
    end
    pair.connected = true
    return inet.is_connected(pair.server)
  end
  for _, flow in ipairs({ pair.up, pair.down }) do
    local readable = ready[flow.source] and ready[flow.source] % 2 == 1
    local may_read = readable and not flow.ended and not flow.cut and rules[flow.name].kind ~= "hold"
    if may_read and not read(flow) or not write(flow) then
      return false
    end
  end
  return not (pair.up.finished and pair.down.finished)
end

local function serve(ready)
  if listener and ready[listener] then
    accept()
  end
  local lost = {}
  for pair in pairs(pairs_open) do
    if not serve_pair(pair, ready) then
      lost[#lost + 1] = pair
    end
  end
  for _, pair in ipairs(lost) do
    close_pair(pair, not (pair.up.cut or pair.down.cut or pair.up.ended or pair.down.ended))
  end
end

local function each_direction(direction, fn)
  for _, name in ipairs(direction == "both" and { "up", "down" } or { direction }) do
    fn(name)
  end
end

local commands = {}

function commands.rule(direction, kind, delay)
  each_direction(direction, function(name)
    rules[name] = { kind = kind, delay = tonumber(delay) }
  end)
end

function commands.truncate(direction, bytes)
  each_direction(direction, function(name)
    limits[name] = tonumber(bytes)
    for pair in pairs(pairs_open) do
      pair[name].limit = limits[name]
    end
  end)
end

local function end_half(pair, flow)
  if pair.connected and not flow.finished then
    inet.finish(flow.sink)
    flow.finished, flow.spoilt = true, true
  end
end

function commands.cut(how)
  local all = {}
  for pair in pairs(pairs_open) do
    all[#all + 1] = pair
  end
  for _, pair in ipairs(all) do
    if how == "client" or how == "server" then
      end_half(pair, how == "client" and pair.down or pair.up)
    else
      close_pair(pair, how == "reset")
    end
  end
  return #all
end

function commands.break_up(bytes)
  piece = tonumber(bytes)
end

function commands.refuse()
  if listener then
    inet.close(listener)
    listener = nil
  end
end

function commands.listen()
  listener = listener or inet.listen(host, port)
end

function commands.target(number)
  target = tonumber(number)
end

function commands.stats()
  local open = 0
  for _ in pairs(pairs_open) do
    open = open + 1
  end
  return ("%d %d %d %d"):format(counts.accepted, open, counts.up, counts.down)
end

control.run(port, commands, wanted, serve)
