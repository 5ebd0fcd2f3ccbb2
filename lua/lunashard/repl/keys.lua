--- What was typed, from the bytes that a terminal sends.
-- Pure: bytes go in, events come out. An event is a table with one of `text` (characters to be inserted), `paste` (a
-- bracketed paste, whole) and `key` (a name such as `enter`, `C-a`, `M-b`, `up`, `S-tab`).
-- @module lunashard.repl.keys

local keys = {}

local PASTE_END = "\27[201~"

local FINAL = { A = "up", B = "down", C = "right", D = "left", H = "home", F = "end", Z = "S-tab" }
local NUMBERED = { [1] = "home", [3] = "delete", [4] = "end", [5] = "pageup", [6] = "pagedown", [7] = "home", [8] = "end" }
local CONTROL = { [8] = "backspace", [9] = "tab", [10] = "enter", [13] = "enter", [127] = "backspace", [31] = "C-_" }

local Decoder = {}
Decoder.__index = Decoder

--- A decoder, which keeps what is not complete yet.
-- @treturn Decoder
function keys.decoder()
  return setmetatable({ rest = "" }, Decoder)
end

local function control_name(byte)
  return CONTROL[byte] or (byte >= 1 and byte <= 26 and "C-" .. string.char(byte + 96)) or nil
end

-- ESC [ parameters final, and ESC O final. 5 is Ctrl, 3 is Alt, 2 is Shift.
local function sequence(parameters, final)
  local name = FINAL[final]
  if final == "~" then
    name = NUMBERED[tonumber(parameters:match("^%d+"))]
  end
  local modifier = tonumber(parameters:match(";(%d+)"))
  if not name or not modifier or modifier < 2 then
    return name
  end
  return (modifier >= 5 and "C-" or modifier >= 3 and "M-" or "") .. name
end

-- After an escape: the event (false for what means nothing here) and the bytes it took; nil when more is to come.
local function after_escape(bytes)
  local parameters, final = bytes:match("^\27%[([%d;<=>?]*)([%a~@^$])")
  if parameters then
    return sequence(parameters, final) or false, #parameters + 3
  elseif bytes:find("^\27%[[%d;<=>?]*$") or bytes == "\27O" or bytes == "\27" then
    return nil
  elseif bytes:find("^\27%[") then
    return false, 2
  elseif bytes:find("^\27O") then
    return FINAL[bytes:sub(3, 3)] or false, 3
  end
  local byte = bytes:byte(2)
  if byte == 27 then
    return "escape", 1
  elseif byte >= 128 then
    return false, 1
  end
  local name = control_name(byte) or string.char(byte)
  return "M-" .. name, 2
end

local function characters(bytes)
  -- What may be the beginning of a character at the end waits for the rest of it.
  local whole = bytes:match("^[^%c\127]+")
  if #whole == #bytes then
    local start = bytes:match("()[\194-\223]$") or bytes:match("()[\224-\239][\128-\191]?$")
      or bytes:match("()[\240-\244][\128-\191]?[\128-\191]?$")
    if start then
      whole = bytes:sub(1, start - 1)
    end
  end
  return whole
end

local function paste(self)
  local stop = self.rest:find(PASTE_END, self.pasting, true)
  if not stop then
    self.pasting = math.max(1, #self.rest - #PASTE_END + 2) -- looked at so far
    return nil
  end
  local text = self.rest:sub(1, stop - 1)
  self.rest, self.pasting = self.rest:sub(stop + #PASTE_END), nil
  return { paste = (text:gsub("\r\n?", "\n")) }
end

-- The next event; false for what means nothing; nil when more is to come.
local function next_event(self)
  local bytes = self.rest
  if self.pasting then
    return paste(self)
  elseif bytes == "" then
    return nil
  end
  local byte = bytes:byte()
  if byte == 27 then
    if bytes:sub(1, 6) == "\27[200~" then
      self.rest, self.pasting = bytes:sub(7), 1
      return paste(self)
    end
    local name, n = after_escape(bytes)
    if name == nil then
      return nil
    end
    self.rest = bytes:sub(n + 1)
    return name and { key = name }
  elseif byte < 32 or byte == 127 then
    self.rest = bytes:sub(2)
    local name = control_name(byte)
    return name and { key = name } or false
  end
  local text = characters(bytes)
  if text == "" then
    return nil
  end
  self.rest = bytes:sub(#text + 1)
  return { text = text }
end

--- Take bytes; give the events that they complete.
-- @string bytes
-- @treturn {table,...}
function Decoder:feed(bytes)
  self.rest = self.rest .. bytes
  local events = {}
  repeat
    local event = next_event(self)
    if event then
      events[#events + 1] = event
    end
  until event == nil
  return events
end

--- Is there an escape that may be the key of that name, or the beginning of a sequence?
-- @treturn boolean
function Decoder:is_unsure()
  return not self.pasting and self.rest:sub(1, 1) == "\27"
end

--- Nothing more came for a while: an escape was the key. Gives its event.
-- @treturn {table,...}
function Decoder:settle()
  local rest = self.rest:sub(2)
  self.rest = ""
  local events = self:feed(rest)
  table.insert(events, 1, { key = "escape" })
  return events
end

return keys
